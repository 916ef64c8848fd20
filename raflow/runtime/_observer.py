"""Who wants to hear of a run while it runs: progress displays, hooks, tests."""

from __future__ import annotations

from collections.abc import Sequence

from raflow.model import FlowRun, GraphNode, LogLine, TaskRun


class Observer:
    """Told of everything that happens in a flow run and its subflows; overrides what it needs.

    Methods are called on the thread that drives the run, in order, and must be quick. An exception
    in one is logged and otherwise ignored: watching a run cannot break it.
    """

    def flow_run_changed(self, run: FlowRun) -> None:
        """A flow run was created, or entered a state."""

    def node_added(self, flow_run_id: str, node: GraphNode) -> None:
        """The body made a call. Called again when the length of a map becomes known."""

    def task_run_changed(self, run: TaskRun) -> None:
        """A task run entered a state."""

    def log_written(self, flow_run_id: str, label: str, lines: Sequence[LogLine]) -> None:
        """A task run (or, with an empty label, the flow's body) wrote lines."""
