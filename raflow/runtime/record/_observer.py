"""Who wants to hear of a run while it runs: progress displays, hooks, tests."""

from __future__ import annotations

from collections.abc import Sequence

from raflow.model import Chunk, FlowRun, GraphNode, LogLine, TaskRun, TaskRunBlock


class Observer:
    """Told of everything that happens in a flow run and its subflows; overrides what it needs.

    Methods are called on the thread that drives the run, in order, and must be quick. An exception
    in one is logged and otherwise ignored: watching a run cannot break it.
    """

    def flow_run_changed(self, run: FlowRun) -> None:
        """A flow run was created, or entered a state."""

    def node_added(self, flow_run_id: str, node: GraphNode) -> None:
        """The body made a call. Called again when the length of a map becomes known."""

    def node_dropped(self, flow_run_id: str, node: int) -> None:
        """What is on record of a call counts no more; `node_added` tells what is in its place."""

    def task_runs_submitted(self, flow_run_id: str, chunks: Sequence[Chunk]) -> None:
        """Task runs were handed to the backend. What it gives back is told again."""

    def task_runs_completed(self, block: TaskRunBlock) -> None:
        """Task runs completed at their first attempt; nothing else is told of them."""

    def task_run_changed(self, run: TaskRun) -> None:
        """A task run entered a state otherwise than by `task_runs_completed`."""

    def log_written(self, flow_run_id: str, label: str, lines: Sequence[LogLine]) -> None:
        """A task run (or, with an empty label, the flow's body) wrote lines."""
