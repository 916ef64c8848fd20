"""Flow runs: looking at them, and steering them."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from raflow import errors, model
from raflow._util import short_id
from raflow.model import StateType, TaskRunKey
from raflow.service import _explain, _forms, _logs
from raflow.service._signals import Signals
from raflow.store import Store

LIST_SECONDS: Final = 5.0
"""So long the database may take over a list or a count: others want to know something, too."""
_LEVELS: Final = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}


class Runs:
    """Flow runs, and what is inside them. Each method that takes an id raises `NotFoundError`."""

    def __init__(self, store: Store, signals: Signals, actor: str) -> None:
        self._store = store
        self._signals = signals
        self._actor = actor

    def get(self, flow_run_id: str) -> model.FlowRun:
        """Return the flow run with this id."""
        return self._store.flow_run(flow_run_id)

    def find(self, text: str) -> model.FlowRun:
        """Return the flow run that a person means; see `Store.find_flow_run`."""
        return self._store.find_flow_run(text)

    def page(
        self,
        which: model.RunFilter,
        *,
        sort: model.Sort = model.Sort.NEWEST,
        cursor: str = "",
        limit: int = 50,
    ) -> model.Page[model.RunSummary]:
        """Return a page of runs; see `Store.runs`. Raises `TooSlowError` after 5 s."""
        return self._store.runs.page(
            which, sort=sort, cursor=cursor, limit=limit, seconds=LIST_SECONDS
        )

    def count(self, which: model.RunFilter) -> model.Count:
        """Return how many runs there are. Raises `TooSlowError` after 5 s."""
        return self._store.runs.count(which, seconds=LIST_SECONDS)

    def lease(self, flow_run_id: str) -> model.RunLease | None:
        """Return which process drives a flow run."""
        return self._store.leases.get(flow_run_id)

    def why(self, flow_run_id: str) -> model.Why:
        """Return why a flow run, or a part of it, does not go on, and what would change that.

        Of very many calls the first two thousand of each kind are looked at.
        """
        return _explain.explain(_explain.look(self._store, flow_run_id))

    # --- Inside -----------------------------------------------------------------------------------

    def task_runs(
        self,
        flow_run_id: str,
        *,
        state_types: Collection[StateType] | None = None,
        node: int | None = None,
        after: TaskRunKey | None = None,
        limit: int = 100,
    ) -> list[model.TaskRun]:
        """Return task runs in the order of their keys; see `Store.task_runs`."""
        self.get(flow_run_id)
        return self._store.task_runs(
            flow_run_id, state_types=state_types, node=node, after=after, limit=limit
        )

    def task_run(self, flow_run_id: str, key: TaskRunKey) -> model.TaskRun:
        """Return a task run."""
        before = TaskRunKey(key.node, key.map_index - 1)
        found = self.task_runs(flow_run_id, node=key.node, after=before, limit=1)
        if not found or found[0].key != key:
            item = "" if key.map_index < 0 else f"[{key.map_index}]"
            raise errors.NotFoundError(
                f"Flow run {short_id(flow_run_id)!r} has no task run {key.node}{item}: no call of "
                "that number was recorded."
            )
        return found[0]

    def attempts(self, flow_run_id: str, key: TaskRunKey) -> list[model.Attempt]:
        """Return the attempts of a task run that have ended, in their order."""
        self.task_run(flow_run_id, key)
        return self._store.attempts(flow_run_id, key)

    def states(self, flow_run_id: str, key: TaskRunKey | None = None) -> list[model.StateChange]:
        """Return what a task run, or by default the flow run itself, went through."""
        self.get(flow_run_id) if key is None else self.task_run(flow_run_id, key)
        return self._store.states(flow_run_id, key=key)

    def counts(self, flow_run_id: str) -> dict[int, dict[StateType, int]]:
        """Return how many task runs of each node are in a state of which type."""
        self.get(flow_run_id)
        return self._store.task_run_counts(flow_run_id)

    def graph(self, flow_run_id: str) -> model.FlowGraph:
        """Return the graph that a flow run recorded so far."""
        return self._store.graph(flow_run_id)

    def result(self, flow_run_id: str, key: TaskRunKey | None = None) -> model.ResultInfo | None:
        """Return what is known about the value of a task run, or by default of the flow run."""
        self.get(flow_run_id) if key is None else self.task_run(flow_run_id, key)
        return self._store.result(flow_run_id, key)

    def logs(
        self,
        flow_run_id: str,
        which: _logs.LogFilter,
        *,
        after: _logs.Position | None = None,
        before: _logs.Position | None = None,
        limit: int = 1000,
    ) -> _logs.LogPage:
        """Return a page of the log: the lines behind `after`, or the last ones before `before`."""
        self.get(flow_run_id)
        return _logs.page(self._store, flow_run_id, which, after=after, before=before, limit=limit)

    def raw_log(self, flow_run_id: str) -> Iterator[bytes]:
        """Return the whole log as text, in parts.

        Raises:
            StoreError: Its first part is not there; another one that is missing says so.
        """
        self.get(flow_run_id)
        parts = _logs.raw(self._store, flow_run_id, _LEVELS)
        return itertools.chain([next(parts, b"")], parts)

    # --- Steering ---------------------------------------------------------------------------------

    def ask(
        self, flow_run_id: str, kind: model.RequestKind, *, message: str = ""
    ) -> model.RunRequest:
        """Ask something of a flow run; the process that drives it sees that within a second.

        To cancel one that has not begun needs no process: it is over then.

        Raises:
            NotFoundError: No such flow run was recorded.
            RunHasEndedError: It is over.
        """
        if kind is model.RequestKind.CANCEL:
            asked = self._store.work.cancel(flow_run_id, by=self._actor, message=message)
        else:
            asked = self._store.requests.ask(flow_run_id, kind, by=self._actor, message=message)
        self._signals.wake(f"run:{flow_run_id}", "feed")
        return asked

    # --- Of deployments ---------------------------------------------------------------------------

    def start(
        self,
        deployment: str,
        parameters: Mapping[str, object],
        *,
        begins_at: float | None = None,
        name: str = "",
        tags: Sequence[str] = (),
        key: str = "",
    ) -> model.Ordered:
        """Order a run of a deployment, of the version that it uses; a worker of its pool takes it.

        Args:
            deployment: Name of the deployment.
            parameters: In place of those of the deployment, in their JSON form.
            begins_at: When it begins at the earliest, in seconds since the epoch. Default: now.
            name: Of the run. Default: made from the flow's name.
            tags: Of the run, besides those of the deployment.
            key: Ordering again under the same key is the same order. Default: none.

        Raises:
            NotFoundError: There is no such deployment; names the closest.
            ParameterError: The flow does not take the parameters.
            ConflictError: The key was used for something else.
        """
        found = self._store.deployments.get(deployment)
        with _forms.telling(f"deployment {deployment!r}"):
            order = model.order_of(
                found,
                self._store.deployments.version(deployment, found.version),
                parameters,
                begins_at=begins_at,
                name=name,
                tags=tuple(tags),
                key=key,
                actor=self._actor,
            )
        ordered = self._store.work.order([order])[0]
        self._signals.wake(f"pool:{found.spec.pool}", "feed")
        return ordered

    def resume(self, flow_run_id: str) -> model.FlowRun:
        """Have a worker go on with a run of a deployment that did not complete.

        Raises:
            NotFoundError: No such flow run was recorded.
            ResumeError: It completed, or is none of a deployment: only its own code can go on.
            RunIsAliveError: A worker has it.
        """
        run = self.get(flow_run_id)
        most = 3
        if run.origin is not None:
            version = self._store.deployments.version(run.origin.deployment, run.origin.version)
            most = version.spec.max_resumes
        self._store.work.requeue(flow_run_id, max_resumes=most)
        topics = (f"run:{flow_run_id}", "feed")
        pool = () if run.origin is None else (f"pool:{run.origin.pool}",)
        self._signals.wake(*topics, *pool)
        return run
