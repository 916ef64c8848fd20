"""Turns what the engine decides into records, and tells observers."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from raflow import engine
from raflow.model import (
    Attempt,
    BatchReport,
    CallReport,
    Chunk,
    EdgeRecord,
    FlowRun,
    FlowVersion,
    GraphNode,
    LogLine,
    NodeKind,
    NodeRecord,
    Outcome,
    Record,
    State,
    StateChange,
    StateName,
    TaskPace,
    TaskRun,
    TaskRunKey,
    call_report,
    completed_block,
    decode_log,
    encode_log,
)
from raflow.runtime._calls import CallEntry
from raflow.runtime._observer import Observer
from raflow.runtime._recorder import Recorder

_LOG = logging.getLogger("raflow.runtime")
_BEGUN: Final = frozenset({StateName.RUNNING, StateName.RETRYING})


class History:
    """The record of one flow run as it grows; used by the thread that drives the run.

    Task runs that complete at their first attempt are recorded in blocks. Any other has a row from
    the moment that it leaves this way: when it has been running for a while, fails, or is skipped.
    """

    def __init__(
        self, flow_run: FlowRun, recorder: Recorder, observers: Sequence[Observer]
    ) -> None:
        """Begin with a flow run that has just been created."""
        self.flow_run = flow_run
        self._recorder = recorder
        self._observers = tuple(observers)
        self._rows: dict[int, dict[int, TaskRun]] = {}
        self._submitted: dict[TaskRunKey, float] = {}
        self._maps: dict[int, GraphNode] = {}
        self._changes = 0
        self._blocks = 0

    def created(self, version: FlowVersion) -> None:
        """Record the flow's version, the run and its first state."""
        self._add(version)
        self._flow_run_is(self.flow_run)

    def flow_run_entered(self, state: State, **changes: Any) -> None:
        """Record a state of the flow run, with whatever else changes about it."""
        self._flow_run_is(dataclasses.replace(self.flow_run, state=state, **changes))

    # The graph ----------------------------------------------------------------------------------

    def called(self, calls: Sequence[engine.CallMade], entries: Sequence[CallEntry | None]) -> None:
        """Record calls of the body."""
        run_id = self.flow_run.id
        records: list[Record] = []
        for call, entry in zip(calls, entries, strict=True):
            assert entry is not None
            node = _graph_node(call, entry.request.line)
            if call.kind is NodeKind.MAP:
                self._maps[node.id] = node
            records.append(NodeRecord(run_id, node))
            records += [EdgeRecord(run_id, edge) for edge in call.edges]
            self._tell_node(node)
        self._recorder.add(run_id, *records)

    def map_expanded(self, node_id: int, length: int) -> None:
        """Record the number of items of a map, if it was not known."""
        node = self._maps[node_id]
        if node.length != length:
            node = self._maps[node_id] = node._replace(length=length)
            self._add(NodeRecord(flow_run_id=self.flow_run.id, node=node))
            self._tell_node(node)

    # Task runs ----------------------------------------------------------------------------------

    def sent(self, chunks: Sequence[Chunk]) -> None:
        """Tell that calls were handed to the backend; what is recorded of it comes later."""
        run_id = self.flow_run.id
        self._tell(lambda observer: observer.task_runs_submitted(run_id, chunks))

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
            flow_run_id=self.flow_run.id,
            number=self._blocks,
            submitted_at=command.submitted_at,
        )
        if block.size:
            self._blocks += 1
            self._add(block)
            self._tell(lambda observer: observer.task_runs_completed(block))

    def attempt_ended(self, ended: engine.AttemptEnded, entry: CallEntry) -> None:
        """Record an attempt and its log lines."""
        run_id, report = self.flow_run.id, ended.report
        current = self._row(ended.run, entry)
        if current.state.name not in _BEGUN:
            self._state_changed(ended.run, State(name=StateName.SUBMITTED, at=ended.submitted_at))
        self._add(_attempt(run_id, ended))
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
            self._recorder.add_log(run_id, ended.run, ended.number, report.logs)
            self._tell_log(report, current.label)

    def task_run_entered(self, entered: engine.StateEntered, entry: CallEntry) -> TaskRun:
        """Record a state of a task run."""
        state, key = entered.state, entered.run
        run = self._row(key, entry)
        submitted_at = self._submitted.pop(key, None)
        if submitted_at is not None and state.name in _BEGUN:
            self._state_changed(key, State(name=StateName.SUBMITTED, at=submitted_at))
        run = dataclasses.replace(
            run,
            state=state,
            attempts=entered.attempts,
            started_at=state.at if state.name in _BEGUN else run.started_at,
            ended_at=state.at if state.is_final else None,
        )
        if state.is_final:
            del self._rows[key.node][key.map_index]
            if not self._rows[key.node]:
                del self._rows[key.node]
        else:
            self._rows[key.node][key.map_index] = run
        self._add(run)
        self._state_changed(key, state)
        self._tell(lambda observer: observer.task_run_changed(run))
        return run

    def child_started(self, key: TaskRunKey, child_id: str) -> None:
        """Record which flow run stands for a subflow call; its task run must have begun."""
        run = dataclasses.replace(self._rows[key.node][key.map_index], child_flow_run_id=child_id)
        self._rows[key.node][key.map_index] = run
        self._add(run)

    def body_logged(self, lines: Sequence[LogLine]) -> None:
        """Record log lines of the flow's own body."""
        if lines:
            self._recorder.add_log(self.flow_run.id, None, 0, encode_log(lines))
            self._tell(lambda observer: observer.log_written(self.flow_run.id, "", lines))

    def learned(self, pace: engine.Pace) -> None:
        """Record how long calls take, for the next run of the same code."""
        for task, known in pace.learned.items():
            self._add(
                TaskPace(
                    flow=self.flow_run.flow,
                    fingerprint=self.flow_run.fingerprint,
                    task=task,
                    seconds=known.seconds,
                    bytes=known.bytes,
                )
            )

    def _row(self, key: TaskRunKey, entry: CallEntry) -> TaskRun:
        """Return the row of a task run; one that has none begins with what is known already."""
        rows = self._rows.setdefault(key.node, {})
        run = rows.get(key.map_index)
        if run is None:
            pending = State(name=StateName.PENDING, at=entry.at)
            run = rows[key.map_index] = TaskRun(
                flow_run_id=self.flow_run.id,
                key=key,
                task=entry.request.target.name,
                label=entry.label(key.map_index),
                state=pending,
                created_at=entry.at,
            )
            self._state_changed(key, pending)
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
        self.task_run_entered(entered, entry)

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
                    self._recorder.add_log(self.flow_run.id, call.run, call.attempt, call.logs)
                    self._tell_log(call, label)

    # The flow run, and what all share -----------------------------------------------------------

    def _flow_run_is(self, run: FlowRun) -> None:
        self.flow_run = run
        self._add(run)
        self._state_changed(None, run.state)
        self._tell(lambda observer: observer.flow_run_changed(run))

    def _state_changed(self, key: TaskRunKey | None, state: State) -> None:
        run_id = self.flow_run.id
        self._add(StateChange(flow_run_id=run_id, number=self._changes, key=key, state=state))
        self._changes += 1

    def _add(self, record: Record) -> None:
        self._recorder.add(self.flow_run.id, record)

    def _tell_node(self, node: GraphNode) -> None:
        if self._observers:
            self._tell(lambda observer: observer.node_added(self.flow_run.id, node))

    def _tell_log(self, report: CallReport, label: str) -> None:
        if any(type(o).log_written is not Observer.log_written for o in self._observers):
            lines = decode_log(report.logs)
            self._tell(lambda observer: observer.log_written(self.flow_run.id, label, lines))

    def _tell(self, what: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            try:
                what(observer)
            except Exception:
                _LOG.exception("An observer of the run failed; the run goes on.")


def _graph_node(call: engine.CallMade, line: str) -> GraphNode:
    is_task = call.kind is not NodeKind.SUBFLOW
    return GraphNode(
        call.node,
        call.key,
        call.kind,
        call.name,
        call.key,
        line,
        call.length,
        call.options.trigger_rule,
        call.options.resources if is_task else None,
        call.at,
    )


def _keep(
    kept: list[engine.CompletedChunk], chunk: Chunk, position: int, start: int, stop: int
) -> None:
    """Add the part of a chunk from item `start` to `stop`, if there is one."""
    if start < stop:
        part = chunk._replace(start=start, stop=stop)
        kept.append(engine.CompletedChunk(part, position + start - chunk.start))


def _attempt(flow_run_id: str, ended: engine.AttemptEnded) -> Attempt:
    report = ended.report
    base = Attempt(
        flow_run_id=flow_run_id,
        key=ended.run,
        number=ended.number,
        outcome=ended.outcome,
        submitted_at=ended.submitted_at,
        started_at=None,
        ended_at=ended.ended_at,
        message=ended.message,
    )
    if report is None:
        return base
    return dataclasses.replace(
        base,
        started_at=report.started_at,
        cpu_seconds=report.cpu_seconds,
        peak_memory=report.peak_memory,
        pid=report.pid,
        host=report.host,
        node_id=report.node_id,
        error=report.error,
    )
