"""The one door to the record of every flow run."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from raflow import errors, model
from raflow._util import crash_point
from raflow.store import _peek
from raflow.store._database import _clock, _engine, _revision, _schema
from raflow.store._reading import _counts, _graphs, _history, _queries, _task_runs
from raflow.store._record import _logs, _writes

if TYPE_CHECKING:
    import sqlalchemy as sa

    from raflow.store import _feed, _tokens
    from raflow.store._deployments import _deployments
    from raflow.store._reading import _recall, _run_lists
    from raflow.store._schedules import _backfills, _schedules
    from raflow.store._sharing import _cache, _limits
    from raflow.store._steering import _leases, _requests
    from raflow.store._work import _dispatches


class Store:
    """The record of every flow run: flows, runs, attempts, states, graphs, results and logs.

    One store may be used by several threads. Make one with `Store.open`; it is a context manager.
    Every method raises `StoreError` when the database cannot be reached, is locked for longer than
    it is waited for, or is broken.
    """

    def __init__(self, database: _engine.Database, log_files: _logs.LogFiles) -> None:
        self._database = database
        self._logs = log_files
        self._identity = database.identity()

    @classmethod
    def open(
        cls,
        url: str,
        *,
        log_dir: Path,
        create: bool = True,
        wait_seconds: float = _engine.WAIT_SECONDS,
    ) -> Self:
        """Open the record.

        Args:
            url: The database: `sqlite:////path/to/file` or `postgresql://user@host/database`.
            log_dir: Directory of log segments; made when the first is written.
            create: Whether to make the database if it is not there, and to bring it to the revision
                that this code needs. False: use it as it is, or fail. Default: yes.
            wait_seconds: How long each call waits for a locked database. Default: 10.

        Raises:
            StoreError: The database cannot be reached, made or upgraded; belongs to something else;
                or was made by a newer raflow.
        """
        database = _engine.Database.connect(url, create=create, wait_seconds=wait_seconds)
        try:
            revision = database.read(_revision.current)
            if revision != _peek.HEAD:
                if not create:
                    raise _revision.outdated(revision, database.shown)
                _schema.upgrade(url)
        except errors.StoreError:
            database.close()
            raise
        return cls(database, _logs.LogFiles(log_dir))

    # What a short flow has no use for is not even loaded.

    @functools.cached_property
    def leases(self) -> _leases.Leases:
        """Which process drives which flow run."""
        from raflow.store._steering import _leases  # noqa: PLC0415

        return _leases.Leases(self._database)

    @functools.cached_property
    def requests(self) -> _requests.Requests:
        """What is asked of flow runs, and what flow runs ask of people."""
        from raflow.store._steering import _requests  # noqa: PLC0415

        return _requests.Requests(self._database)

    @functools.cached_property
    def limits(self) -> _limits.Limits:
        """Limits that all flow runs share."""
        from raflow.store._sharing import _limits  # noqa: PLC0415

        return _limits.Limits(self._database)

    @functools.cached_property
    def cache(self) -> _cache.Cache:
        """Values that were computed before."""
        from raflow.store._sharing import _cache  # noqa: PLC0415

        return _cache.Cache(self._database)

    @functools.cached_property
    def work(self) -> _dispatches.Dispatches:
        """Runs of deployments on their way to workers, and the workers."""
        from raflow.store._work import _dispatches  # noqa: PLC0415

        return _dispatches.Dispatches(self._database)

    @functools.cached_property
    def runs(self) -> _run_lists.Runs:
        """Flow runs as lists show them, and how many there are."""
        from raflow.store._reading import _run_lists  # noqa: PLC0415

        return _run_lists.Runs(self._database)

    @functools.cached_property
    def deployments(self) -> _deployments.Deployments:
        """Which code the service runs under which name."""
        from raflow.store._deployments import _deployments  # noqa: PLC0415

        return _deployments.Deployments(self._database)

    @functools.cached_property
    def schedules(self) -> _schedules.Schedules:
        """When the service starts which runs by itself."""
        from raflow.store._schedules import _schedules  # noqa: PLC0415

        return _schedules.Schedules(self._database)

    @functools.cached_property
    def backfills(self) -> _backfills.Backfills:
        """Runs for slots of the past."""
        from raflow.store._schedules import _backfills  # noqa: PLC0415

        return _backfills.Backfills(self._database)

    @functools.cached_property
    def recall(self) -> _recall.Recall:
        """The past of a flow run, for resuming it."""
        from raflow.store._reading import _recall  # noqa: PLC0415

        return _recall.Recall(self._database)

    @functools.cached_property
    def feed(self) -> _feed.Feed:
        """Everything that happens, in one order."""
        from raflow.store import _feed  # noqa: PLC0415

        return _feed.Feed(self._database)

    @functools.cached_property
    def tokens(self) -> _tokens.Tokens:
        """Who may use the service."""
        from raflow.store import _tokens  # noqa: PLC0415

        return _tokens.Tokens(self._database)

    @property
    def shown_url(self) -> str:
        """URL of the database for people: without its passwords."""
        return self._database.shown

    def is_there(self) -> bool:
        """Whether the database is still the one that was opened; its file may be another now."""
        return self._database.identity() == self._identity

    def close(self) -> None:
        """Close the connections to the database."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # --- Writing ----------------------------------------------------------------------------------

    def apply(self, batch: model.RecordBatch | model.BatchParts) -> bool:
        """Write a batch in one transaction, with the log lines that it names; on disk on return.

        Of one in parts, blocks and graph are kept as they are: nobody reads them for that. Log
        lines that it brings itself are kept first.

        A record replaces the one with the same key, unless that came from a later batch. A flow run
        that is over gives back its lease and its slots.

        Returns:
            False, having changed nothing, if this `(flow_run_id, seq)` was written before.

        Raises:
            FencedError: A later process of the flow run has begun; nothing was written.
            StoreError: Nothing was written; or the commit was sent and its answer lost: applying
                the batch again finds out which.
        """
        if isinstance(batch, model.BatchParts) and batch.logs:
            batch = batch.with_logs_at(
                [self._logs.append(batch.flow_run_id, blob) for blob in batch.logs]
            )
        self._logs.sync(r for r in batch.records if isinstance(r, model.LogSegment))
        prepared = _writes.prepare(batch)

        def write(connection: sa.Connection) -> bool:
            applied = _writes.apply(connection, prepared)
            crash_point("store.before_commit")
            return applied

        applied = self._database.write(write)
        crash_point("store.after_commit")
        return applied

    def apply_many(self, batches: Sequence[model.BatchParts]) -> list[bool | errors.RaflowError]:
        """Write batches in one transaction; one that is no good does not keep the others out.

        Returns:
            For each batch what `apply` returns, or the error that it raises; `BatchError` where it
            is the batch that no database can hold.
        """
        from raflow.store._record import _applying  # noqa: PLC0415  # only a service has many

        return _applying.apply_many(self._database, self._logs, batches)

    @property
    def is_embedded(self) -> bool:
        """Whether it is a file, to which one writes at a time."""
        return self._database.writer.dialect.name == "sqlite"

    def now(self) -> float:
        """Return the time by the clock of the database, which leases and schedules go by."""
        return self._database.read(_clock.now)

    def append_log(self, flow_run_id: str, blob: bytes) -> tuple[str, int]:
        """Append compressed log lines; return `file` and `offset` of their `LogSegment`.

        Raises:
            StoreError: The log directory cannot be written.
        """
        return self._logs.append(flow_run_id, blob)

    # --- Flows and flow runs ----------------------------------------------------------------------

    def flows(self) -> list[_queries.FlowSummary]:
        """Return every flow with its newest run and counts, the one that ran last first."""
        return self._database.read(_queries.flows)

    def flow_version(self, fingerprint: str, *, flow: str | None = None) -> model.FlowVersion:
        """Return a version of a flow's code.

        Args:
            fingerprint: The hash of its code.
            flow: Name of the flow, where several flows share the code. Default: the newest of them.

        Raises:
            NotFoundError: No such version was recorded.
        """
        return self._database.read(lambda c: _queries.flow_version(c, fingerprint, flow=flow))

    def flow_versions(self, flow: str) -> list[model.FlowVersion]:
        """Return the versions of a flow's code, newest first."""
        return self._database.read(lambda c: _queries.flow_versions(c, flow))

    def paces(self, flow: str, fingerprint: str) -> dict[str, model.TaskPace]:
        """Return what earlier runs of the same code have learned about its tasks, by task."""
        return self._database.read(lambda c: _queries.task_paces(c, flow, fingerprint))

    def flow_runs(
        self,
        *,
        flow: str | None = None,
        state_types: Collection[model.StateType] | None = None,
        limit: int | None = 50,
        before: tuple[float, str] | None = None,
        parent: str | None = None,
        roots: bool = False,
    ) -> list[model.FlowRun]:
        """Return flow runs, newest first.

        Args:
            flow: Only runs of the flow with this name.
            state_types: Only runs in a state of one of these types.
            limit: At most so many; None: all. Default: 50.
            before: Only runs older than this `(created_at, id)`, the last one of a page.
            parent: Only the runs that the body of this flow run started.
            roots: Only runs that no other run started.
        """
        return self._database.read(
            lambda connection: _queries.flow_runs(
                connection,
                flow=flow,
                state_types=state_types,
                limit=limit,
                before=before,
                parent=parent,
                roots=roots,
            )
        )

    def flow_run(self, flow_run_id: str) -> model.FlowRun:
        """Return the flow run with this id.

        Raises:
            NotFoundError: None was recorded.
        """
        return self._database.read(lambda c: _queries.flow_run(c, flow_run_id))

    def find_flow_run(self, text: str) -> model.FlowRun:
        """Return the flow run that a person means.

        Args:
            text: Its id, its name, the beginning or the end of its id, or `latest` for the newest
                one that no other run started.

        Raises:
            NotFoundError: Nothing fits, or several do; names the closest.
        """
        return self._database.read(lambda connection: _queries.find_flow_run(connection, text))

    def line_of(self, flow_run_id: str) -> list[str]:
        """Return the flow run, the one whose body called it, and so on up to the root.

        Raises:
            NotFoundError: No such flow run was recorded.
        """
        return self._database.read(lambda c: _queries.line_of(c, flow_run_id))

    # --- Inside a flow run ------------------------------------------------------------------------

    def graph(self, flow_run_id: str) -> model.FlowGraph:
        """Return the graph that a flow run recorded so far, with those of its subflows inside.

        Raises:
            NotFoundError: No such flow run was recorded.
        """
        return self._database.read(lambda connection: _graphs.graph(connection, flow_run_id))

    def task_runs(
        self,
        flow_run_id: str,
        *,
        state_types: Collection[model.StateType] | None = None,
        node: int | None = None,
        limit: int | None = None,
        after: model.TaskRunKey | None = None,
    ) -> list[model.TaskRun]:
        """Return task runs in the order of their keys.

        A call of the graph of which no more is recorded is PENDING since it was made, and so is
        each item of a map of known length.

        Args:
            flow_run_id: The flow run that they belong to.
            state_types: Only task runs in a state of one of these types.
            node: Only those of this node of the graph.
            limit: At most so many. Default: all.
            after: Only those behind this key, the last one of a page.
        """
        return self._database.read(
            lambda connection: _task_runs.task_runs(
                connection,
                flow_run_id,
                state_types=state_types,
                node=node,
                limit=limit,
                after=after,
            )
        )

    def task_run_counts(self, flow_run_id: str) -> dict[int, dict[model.StateType, int]]:
        """Return how many task runs of each node are in a state of which type."""
        return self._database.read(lambda c: _counts.task_run_counts(c, flow_run_id))

    def recovered_counts(self, flow_run_id: str) -> dict[int, int]:
        """Return how many task runs of each node are Recovered; nodes without any are left out."""
        return self._database.read(lambda c: _counts.recovered_counts(c, flow_run_id))

    def attempts(
        self, flow_run_id: str, key: model.TaskRunKey | None = None
    ) -> list[model.Attempt]:
        """Return the attempts of one task run, or of all, in the order of keys and numbers."""
        return self._database.read(lambda c: _history.attempts(c, flow_run_id, key))

    def states(
        self, flow_run_id: str, *, key: model.TaskRunKey | None = None
    ) -> list[model.StateChange]:
        """Return what a task run, or by default the flow run itself, went through, oldest first.

        The numbers of changes that were not recorded one by one are negative.
        """
        return self._database.read(lambda c: _history.states(c, flow_run_id, key))

    def result(
        self, flow_run_id: str, key: model.TaskRunKey | None = None
    ) -> model.ResultInfo | None:
        """Return what is known about the value of a task run, or by default of the flow run."""
        return self._database.read(lambda c: _history.result(c, flow_run_id, key))

    def log_segments(
        self,
        flow_run_id: str,
        *,
        key: model.TaskRunKey | None = None,
        attempt: int | None = None,
    ) -> list[model.LogSegment]:
        """Return where log lines are, oldest first; `read_log` reads them.

        Args:
            flow_run_id: The flow run that wrote them.
            key: Only those of this task run; `TaskRunKey(-1)` for the flow's body. Default: all.
            attempt: Only those of the attempt with this number; 0 for the flow's body.
        """
        return self._database.read(
            lambda c: _queries.log_segments(c, flow_run_id, key=key, attempt=attempt)
        )

    def read_log(self, segment: model.LogSegment) -> list[model.LogLine]:
        """Return the lines of a log segment.

        Raises:
            StoreError: The segment is not there, or damaged.
        """
        return self._logs.read(segment)
