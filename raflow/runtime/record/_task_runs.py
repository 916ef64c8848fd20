"""The record of task runs as it grows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from raflow import engine
from raflow.model import (
    BatchReport,
    CallReport,
    Chunk,
    Outcome,
    ResultInfo,
    State,
    StateName,
    TaskRun,
    TaskRunEvent,
    TaskRunKey,
    call_report,
    completed_block,
    next_task_run_state,
)
from raflow.runtime.calls import CallEntry
from raflow.runtime.recall import Piece
from raflow.runtime.record._journal import Journal
from raflow.runtime.record._rows import attempt_of, reused_block

_BEGUN: Final = frozenset({StateName.RUNNING, StateName.RETRYING})
_MAY_RUN: Final = _BEGUN | {StateName.SUBMITTED}


class TaskRuns:
    """The task runs of one flow run; used by the thread that drives the run.

    Those that complete at their first attempt are recorded in blocks. Any other has a row from the
    moment that it leaves this way: when it has been running for a while, fails, or is skipped.
    """

    def __init__(self, journal: Journal) -> None:
        """Begin with none."""
        self._journal = journal
        self._rows: dict[int, dict[int, TaskRun]] = {}
        self._submitted: dict[TaskRunKey, float] = {}

    def wait_again(self, row: TaskRun, at: float, why: str) -> None:
        """Record that a task run waits again that has not completed, as its flow run goes on."""
        pending = State(name=StateName.PENDING, at=at, message=why)
        again = dataclasses.replace(row, state=pending, ended_at=None, error=None)
        self._rows.setdefault(row.key.node, {})[row.key.map_index] = again
        self._journal.add(again)
        self._journal.state_changed(row.key, pending)
        self._journal.tell(lambda observer: observer.task_run_changed(again))

    def drop(self, node: int) -> None:
        """Take note that what is on record of a call counts no more."""
        self._rows.pop(node, None)

    def sent(self, chunks: Sequence[Chunk]) -> None:
        """Tell that calls were handed to the backend; what is recorded of it comes later."""
        run_id = self._journal.flow_run_id
        self._journal.tell(lambda observer: observer.task_runs_submitted(run_id, chunks))

    def submitted(self, run: TaskRunKey, at: float) -> None:
        """Take note of when the attempt that goes on was handed to the backend."""
        self._submitted[run] = at

    def completed(
        self,
        command: engine.CallsCompleted,
        report: BatchReport,
        entry_of: Callable[[int], CallEntry],
    ) -> None:
        """Record task runs that completed at their first attempt."""
        chunks: Iterable[engine.CompletedChunk] = command.chunks
        if self._rows:
            chunks = self._without_rows(command, report, entry_of)
        if report.told:
            chunks = list(chunks)
            self._add_logs(chunks, report, entry_of)
        block = completed_block(
            report,
            tuple(chunks),
            flow_run_id=self._journal.flow_run_id,
            number=self._journal.blocks,
            submitted_at=command.submitted_at,
        )
        if block.size:
            self._journal.add_block(block)

    def reused(self, runs: Sequence[tuple[int, Piece]], origin: str, at: float) -> None:
        """Record task runs whose values another flow run has left.

        Args:
            runs: By node.
            origin: Where the values come from, in words.
            at: The time.
        """
        if not runs:
            return
        journal = self._journal
        journal.add_block(reused_block(runs, journal.flow_run_id, journal.blocks, origin, at))

    def attempt_ended(self, ended: engine.AttemptEnded, entry: CallEntry) -> None:
        """Record an attempt and its log lines."""
        report = ended.report
        current = self._row(ended.run, entry)
        if current.state.name not in _BEGUN:
            self._journal.state_changed(
                ended.run, State(name=StateName.SUBMITTED, at=ended.submitted_at)
            )
        self._journal.add(attempt_of(self._journal.flow_run_id, ended))
        if report is None:
            return
        current = dataclasses.replace(
            current,
            label=report.label or current.label,
            started_at=report.started_at,
            result=report.result,
            error=report.error,
        )
        self._rows[ended.run.node][ended.run.map_index] = current
        if report.logs:
            self._journal.add_log(ended.run, ended.number, report.logs, current.label)

    def entered(self, entered: engine.StateEntered, entry: CallEntry) -> TaskRun:
        """Record a state of a task run."""
        state, key = entered.state, entered.run
        run = self._row(key, entry)
        submitted_at = self._submitted.pop(key, None)
        if submitted_at is not None and state.name in _BEGUN:
            self._journal.state_changed(key, State(name=StateName.SUBMITTED, at=submitted_at))
        if state.name in _BEGUN:
            run = dataclasses.replace(run, started_at=state.at)
        return self._has_entered(dataclasses.replace(run, attempts=entered.attempts), state)

    def _has_entered(self, run: TaskRun, state: State) -> TaskRun:
        """Record that a row is in another state."""
        key = run.key
        run = dataclasses.replace(run, state=state, ended_at=state.at if state.is_final else None)
        if state.is_final:
            del self._rows[key.node][key.map_index]
            if not self._rows[key.node]:
                del self._rows[key.node]
        else:
            self._rows[key.node][key.map_index] = run
        self._journal.add(run)
        self._journal.state_changed(key, state)
        self._journal.tell(lambda observer: observer.task_run_changed(run))
        return run

    def begun(self, command: engine.SendBatch, entry_of: Callable[[int], CallEntry]) -> None:
        """Record that attempts begin, before they do."""
        for chunk in command.chunks:
            for key in chunk.runs():
                state = State(name=StateName.SUBMITTED, at=command.at)
                self._is_sent(key, entry_of(key.node), chunk.attempt, state)

    def _is_sent(self, key: TaskRunKey, entry: CallEntry, attempt: int, state: State) -> None:
        run = dataclasses.replace(self._row(key, entry), state=state, attempts=attempt)
        self._rows[key.node][key.map_index] = run
        self._journal.add(run)
        self._journal.state_changed(key, state)

    def lost(
        self, at: float, message: str, running: Iterable[tuple[TaskRunKey, int, CallEntry]]
    ) -> None:
        """Record the end of all that ran when the backend died; what had not begun stays as it is.

        Nobody decides about these task runs any more: the flow run has crashed.

        Args:
            at: Now.
            message: What died.
            running: Runs that have begun as well, though nothing was told of them; their attempts.
        """
        for key, attempt, entry in running:
            if self._row(key, entry).state.name not in _MAY_RUN:
                state = State(name=StateName.SUBMITTED, at=at)
                self._is_sent(key, entry, attempt, state)
        ran = [
            row
            for rows in self._rows.values()
            for row in rows.values()
            if row.state.name in _MAY_RUN
        ]
        for run in ran:
            is_call = run.child_flow_run_id is None
            event = TaskRunEvent.LOST if is_call else TaskRunEvent.CRASHED
            if is_call:
                ended = engine.AttemptEnded(
                    run=run.key,
                    number=run.attempts,
                    outcome=Outcome.LOST,
                    submitted_at=run.started_at or run.state.at,
                    ended_at=at,
                    message=message,
                )
                self._journal.add(attempt_of(self._journal.flow_run_id, ended))
            name = next_task_run_state(run.state.name, event, attempt=run.attempts)
            self._has_entered(run, State(name=name, at=at, message=message))

    def cached(self, key: TaskRunKey, entry: CallEntry, result: ResultInfo) -> None:
        """Take note of the value that was computed before; the state that tells of it follows."""
        run = dataclasses.replace(self._row(key, entry), result=result)
        self._rows[key.node][key.map_index] = run

    def waits(self, reason: str, key: TaskRunKey) -> None:
        """Record what a task run waits for while it runs; empty: for nothing any more."""
        run = self._rows.get(key.node, {}).get(key.map_index)
        if run is None or run.state.name not in _BEGUN or run.state.reason == reason:
            return
        run = dataclasses.replace(run, state=dataclasses.replace(run.state, reason=reason))
        self._rows[key.node][key.map_index] = run
        self._journal.add(run)
        self._journal.tell(lambda observer: observer.task_run_changed(run))

    def noted(self, key: TaskRunKey, at: float, message: str) -> None:
        """Record something that happened to a task run in its present state.

        One of which nothing is recorded yet has no state to tell of.
        """
        run = self._rows.get(key.node, {}).get(key.map_index)
        if run is not None:
            self._journal.state_changed(key, State(name=run.state.name, at=at, message=message))

    def undone(self, run: TaskRun) -> None:
        """Record that what a task run did was undone."""
        self._journal.add(run)
        self._journal.state_changed(run.key, run.state)
        self._journal.tell(lambda observer: observer.task_run_changed(run))

    def child_started(self, key: TaskRunKey, child_id: str) -> None:
        """Record which flow run stands for a subflow call; its task run must have begun."""
        run = dataclasses.replace(self._rows[key.node][key.map_index], child_flow_run_id=child_id)
        self._rows[key.node][key.map_index] = run
        self._journal.add(run)

    def _row(self, key: TaskRunKey, entry: CallEntry) -> TaskRun:
        """Return the row of a task run; one that has none begins with what is known already."""
        rows = self._rows.setdefault(key.node, {})
        run = rows.get(key.map_index)
        if run is None:
            pending = State(name=StateName.PENDING, at=entry.at)
            run = rows[key.map_index] = TaskRun(
                flow_run_id=self._journal.flow_run_id,
                key=key,
                task=entry.request.target.name,
                label=entry.label(key.map_index),
                state=pending,
                created_at=entry.at,
            )
            self._journal.state_changed(key, pending)
        return run

    def _without_rows(
        self,
        command: engine.CallsCompleted,
        report: BatchReport,
        entry_of: Callable[[int], CallEntry],
    ) -> list[engine.CompletedChunk]:
        """Record the end of task runs that have a row; return those that have none."""
        others: list[engine.CompletedChunk] = []
        for chunk, position in command.chunks:
            rows = self._rows.get(chunk.node)
            start = chunk.start
            for item in sorted(i for i in rows or () if chunk.start <= i < chunk.stop):
                _keep(others, chunk, position, start, item)
                start = item + 1
                at = position + item - chunk.start
                call = call_report(report, at, run=TaskRunKey(chunk.node, item), attempt=1)
                assert call is not None
                self._row_completed(call, command.submitted_at, entry_of(chunk.node))
            _keep(others, chunk, position, start, chunk.stop)
        return others

    def _row_completed(self, call: CallReport, submitted_at: float, entry: CallEntry) -> None:
        ended = engine.AttemptEnded(
            run=call.run,
            number=call.attempt,
            outcome=Outcome.COMPLETED,
            submitted_at=submitted_at,
            ended_at=call.ended_at,
            report=call,
        )
        state = State(name=StateName.COMPLETED, at=call.ended_at)
        self.attempt_ended(ended, entry)
        entered = engine.StateEntered(run=call.run, state=state, attempts=call.attempt)
        self.entered(entered, entry)

    def _add_logs(
        self,
        chunks: Iterable[engine.CompletedChunk],
        report: BatchReport,
        entry_of: Callable[[int], CallEntry],
    ) -> None:
        for chunk, position in chunks:
            for told in sorted(p for p in report.told if position <= p < position + chunk.size):
                call = report.told[told]
                if call.logs:
                    label = call.label or entry_of(chunk.node).label(call.run.map_index)
                    self._journal.add_log(call.run, call.attempt, call.logs, label)


def _keep(
    kept: list[engine.CompletedChunk], chunk: Chunk, position: int, start: int, stop: int
) -> None:
    """Add the part of a chunk from item `start` to `stop`, if there is one."""
    if start < stop:
        part = chunk._replace(start=start, stop=stop)
        kept.append(engine.CompletedChunk(part, position + start - chunk.start))
