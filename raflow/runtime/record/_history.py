"""The record of one flow run as it grows: the run itself, and the graph of its calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from raflow import engine
from raflow.model import (
    Edge,
    FlowRun,
    FlowVersion,
    GraphNode,
    GraphRecord,
    LogLine,
    NodeKind,
    RunNumbers,
    State,
    StateType,
    TaskPace,
)
from raflow.runtime.calls import CallEntry
from raflow.runtime.recall import Recall
from raflow.runtime.record._journal import Journal
from raflow.runtime.record._observer import Observer
from raflow.runtime.record._recorder import Recorder
from raflow.runtime.record._rows import node_of
from raflow.runtime.record._task_runs import TaskRuns


class History:
    """The record of one flow run as it grows; used by the thread that drives the run."""

    def __init__(
        self,
        flow_run: FlowRun,
        recorder: Recorder,
        observers: Sequence[Observer],
        recall: Recall | None = None,
        numbers: RunNumbers | None = None,
    ) -> None:
        """Begin with a flow run that has just been created, or go on with one that is recalled.

        Args:
            flow_run: The run.
            recorder: Writes the record.
            observers: Who wants to hear of it.
            recall: The past of a run that goes on.
            numbers: Where to go on counting, of a run that was ordered and begins.
        """
        self.flow_run = flow_run
        numbers = recall.numbers if recall else numbers
        self._journal = Journal(flow_run.id, recorder, observers, numbers)
        self.task_runs = TaskRuns(self._journal)
        self._maps: dict[int, GraphNode] = {}
        self._recall = recall

    def created(self, version: FlowVersion) -> None:
        """Record the flow's version, the run and its first state."""
        self._journal.add(version)
        self._flow_run_is(self.flow_run)

    def began(self, version: FlowVersion, state: State) -> None:
        """Record that a run begins that was ordered."""
        self._journal.add(version)
        self.flow_run_entered(state, started_at=state.at)

    def resumed(self, version: FlowVersion, state: State) -> None:
        """Record that a new process goes on with the run, and that what had not completed waits."""
        self._journal.add(version)
        self._goes_on(state, "the run was resumed")

    def tried_again(self, state: State) -> None:
        """Record that the next attempt of the run begins, for which all waits that failed."""
        self._goes_on(state, "the run is tried again")

    def _goes_on(self, state: State, why: str) -> None:
        assert self._recall is not None
        self._flow_run_is(dataclasses.replace(self.flow_run, state=state, error=None))
        for row in self._recall.rows:
            if row.state.type is not StateType.COMPLETED:
                self.task_runs.wait_again(row, state.at, why)

    def flow_run_entered(self, state: State, **changes: Any) -> None:
        """Record a state of the flow run, with whatever else changes about it."""
        self._flow_run_is(dataclasses.replace(self.flow_run, state=state, **changes))

    def noted(self, at: float, message: str) -> None:
        """Record something that happened to the flow run in its present state."""
        state = State(name=self.flow_run.state.name, at=at, message=message)
        self._journal.state_changed(None, state)

    # The graph ----------------------------------------------------------------------------------

    def called(self, calls: Sequence[engine.CallMade], entries: Sequence[CallEntry]) -> None:
        """Record calls of the body."""
        nodes = [node_of(call, entry) for call, entry in zip(calls, entries, strict=True)]
        edges: list[Edge] = []
        for call, node in zip(calls, nodes, strict=True):
            if call.edges:
                edges += call.edges
            if call.kind is NodeKind.MAP:
                self._maps[node.id] = node
        dropped: list[int] = []
        if self._recall is not None:
            dropped = [node.id for node in nodes if self._recall.has_other(node.id)]
        self._drop(dropped)
        for node in nodes if self._journal.is_watched else ():
            self._tell_node(node)
        if self._recall is not None:
            nodes = [node for node in nodes if not self._recall.knows(node.id)]
            edges = [edge for edge in edges if not self._recall.knows(edge.target)]
        self._journal.add(GraphRecord(self.flow_run.id, nodes, edges, dropped))

    def not_called(self, first: int) -> None:
        """Drop the calls from this one on: the body has completed without them."""
        if self._recall is None:
            return
        known = range(first, len(self._recall.nodes))
        dropped = [node for node in known if self._recall.has_other(node)]
        if dropped:
            self._drop(dropped)
            self._journal.add(GraphRecord(self.flow_run.id, dropped=dropped))

    def _drop(self, nodes: Iterable[int]) -> None:
        for node in nodes:
            self.task_runs.drop(node)
            self._tell_dropped(node)

    def map_expanded(self, node_id: int, length: int) -> None:
        """Record the number of items of a map, if it was not known."""
        node = self._maps[node_id]
        if node.length != length:
            node = self._maps[node_id] = node._replace(length=length)
            self._journal.add(GraphRecord(self.flow_run.id, [node]))
            self._tell_node(node)

    # The rest -----------------------------------------------------------------------------------

    def body_logged(self, lines: Sequence[LogLine]) -> None:
        """Record log lines of the flow's own body."""
        if lines:
            self._journal.add_body_log(lines)

    def learned(self, pace: engine.Pace) -> None:
        """Record how long calls take, for the next run of the same code."""
        for task, known in pace.learned.items():
            self._journal.add(
                TaskPace(
                    flow=self.flow_run.flow,
                    fingerprint=self.flow_run.fingerprint,
                    task=task,
                    seconds=known.seconds,
                    bytes=known.bytes,
                )
            )

    def _flow_run_is(self, run: FlowRun) -> None:
        self.flow_run = run
        self._journal.add(run)
        self._journal.state_changed(None, run.state)
        self._journal.tell(lambda observer: observer.flow_run_changed(run))

    def _tell_node(self, node: GraphNode) -> None:
        self._journal.tell(lambda observer: observer.node_added(self.flow_run.id, node))

    def _tell_dropped(self, node: int) -> None:
        self._journal.tell(lambda observer: observer.node_dropped(self.flow_run.id, node))
