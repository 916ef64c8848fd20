"""The one door to the record of every flow run."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Self

from raflow import errors, model
from raflow.store import (
    _counts,
    _engine,
    _graphs,
    _history,
    _logs,
    _queries,
    _revision,
    _schema,
    _tables,
    _task_runs,
    _writes,
)


class Store:
    """The record of every flow run: flows, runs, attempts, states, graphs, results and logs.

    One store may be used by several threads. Make one with `Store.open`; it is a context manager.
    Every method raises `StoreError` when the database cannot be reached, is locked for longer than
    it is waited for, or is broken.
    """

    def __init__(self, database: _engine.Database, log_files: _logs.LogFiles) -> None:
        self._database = database
        self._logs = log_files

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
            if revision != _tables.HEAD:
                if not create:
                    raise _revision.outdated(revision, database.shown)
                _schema.upgrade(url)
        except errors.StoreError:
            database.close()
            raise
        return cls(database, _logs.LogFiles(log_dir))

    @property
    def shown_url(self) -> str:
        """URL of the database for people: without its passwords."""
        return self._database.shown

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

    def apply(self, batch: model.RecordBatch) -> bool:
        """Write a batch in one transaction, with the log lines that it names; on disk on return.

        A record replaces the one with the same key, unless that came from a later batch.

        Returns:
            False, having changed nothing, if this `(flow_run_id, seq)` was written before.

        Raises:
            StoreError: Nothing was written; or the commit was sent and its answer lost: applying
                the batch again finds out which.
        """
        self._logs.sync(r for r in batch.records if isinstance(r, model.LogSegment))
        prepared = _writes.prepare(batch)
        return self._database.write(lambda connection: _writes.apply(connection, prepared))

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

    def find_flow_run(self, text: str) -> model.FlowRun:
        """Return the flow run that a person means.

        Args:
            text: Its id, its name, the beginning or the end of its id, or `latest` for the newest
                one that no other run started.

        Raises:
            NotFoundError: Nothing fits, or several do; names the closest.
        """
        return self._database.read(lambda connection: _queries.find_flow_run(connection, text))

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
