"""Turns what the engine decides into records, and tells observers."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

from raflow import engine
from raflow.model import (
    Attempt,
    CallReport,
    Edge,
    EdgeRecord,
    FlowRun,
    FlowVersion,
    GraphNode,
    LogLine,
    NodeRecord,
    State,
    StateChange,
    StateName,
    TaskRun,
    TaskRunKey,
    decode_log,
    encode_log,
)
from raflow.runtime._observer import Observer
from raflow.runtime._recorder import Recorder

_LOG = logging.getLogger("raflow.runtime")


class History:
    """The record of one flow run as it grows; used by the thread that drives the run."""

    def __init__(
        self, flow_run: FlowRun, recorder: Recorder, observers: Sequence[Observer]
    ) -> None:
        """Begin with a flow run that has just been created."""
        self.flow_run = flow_run
        self._recorder = recorder
        self._observers = tuple(observers)
        self._task_runs: dict[TaskRunKey, TaskRun] = {}
        self._labels: dict[int, GraphNode] = {}
        self._changes = 0

    def created(self, version: FlowVersion) -> None:
        """Record the flow's version, the run and its first state."""
        self._recorder.add(self.flow_run.id, version)
        self._flow_run_is(self.flow_run)

    def flow_run_entered(self, state: State, **changes: Any) -> None:
        """Record a state of the flow run, with whatever else changes about it."""
        self._flow_run_is(dataclasses.replace(self.flow_run, state=state, **changes))

    def node_added(self, node: GraphNode, edges: Sequence[Edge]) -> None:
        """Record a call of the body."""
        run_id = self.flow_run.id
        self._labels[node.id] = node
        self._recorder.add(run_id, NodeRecord(flow_run_id=run_id, node=node))
        for edge in edges:
            self._recorder.add(run_id, EdgeRecord(flow_run_id=run_id, edge=edge))
        self._tell(lambda observer: observer.node_added(run_id, node))

    def map_expanded(self, node_id: int, length: int) -> None:
        """Record the number of items of a map, if it was not known."""
        node = self._labels[node_id]
        if node.length != length:
            self.node_added(dataclasses.replace(node, length=length), ())

    def attempt_ended(self, ended: engine.AttemptEnded) -> None:
        """Record an attempt and its log lines."""
        run_id, report = self.flow_run.id, ended.report
        self._recorder.add(run_id, _attempt(run_id, ended))
        if report is None:
            return
        current = self._task_runs[ended.run]
        self._task_runs[ended.run] = dataclasses.replace(
            current,
            label=report.label or current.label,
            started_at=report.started_at,
            result=report.result,
            error=report.error,
        )
        if report.logs:
            self._recorder.add_log(run_id, ended.run, ended.number, report.logs)
            self._tell_log(report, self._task_runs[ended.run].label)

    def task_run_entered(self, entered: engine.StateEntered, label: str) -> TaskRun:
        """Record a state of a task run."""
        run_id, state, key = self.flow_run.id, entered.state, entered.run
        run = self._task_runs.get(key)
        if run is None:
            task = self._labels[key.node].name
            run = TaskRun(
                flow_run_id=run_id,
                key=key,
                task=task,
                label=label,
                state=state,
                created_at=state.at,
            )
        started = state.at if state.name in _BEGUN else run.started_at
        run = dataclasses.replace(
            run,
            state=state,
            attempts=entered.attempts,
            started_at=started,
            ended_at=state.at if state.is_final else None,
        )
        self._task_runs[key] = run
        self._recorder.add(run_id, run)
        self._state_changed(key, state)
        self._tell(lambda observer: observer.task_run_changed(run))
        return run

    def child_started(self, key: TaskRunKey, child_id: str) -> None:
        """Record which flow run stands for a subflow call."""
        run = dataclasses.replace(self._task_runs[key], child_flow_run_id=child_id)
        self._task_runs[key] = run
        self._recorder.add(self.flow_run.id, run)

    def body_logged(self, lines: Sequence[LogLine]) -> None:
        """Record log lines of the flow's own body."""
        if lines:
            self._recorder.add_log(self.flow_run.id, None, 0, encode_log(lines))
            self._tell(lambda observer: observer.log_written(self.flow_run.id, "", lines))

    def _flow_run_is(self, run: FlowRun) -> None:
        self.flow_run = run
        self._recorder.add(run.id, run)
        self._state_changed(None, run.state)
        self._tell(lambda observer: observer.flow_run_changed(run))

    def _state_changed(self, key: TaskRunKey | None, state: State) -> None:
        run_id = self.flow_run.id
        change = StateChange(flow_run_id=run_id, number=self._changes, key=key, state=state)
        self._changes += 1
        self._recorder.add(run_id, change)

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


_BEGUN = frozenset({StateName.RUNNING, StateName.RETRYING})


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
