"""The progress of a run where there is no terminal: a line for what is worth one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

from raflow.cli import _console, _format
from raflow.cli._log_lines import log_text
from raflow.model import (
    FlowRun,
    GraphNode,
    LogLine,
    NodeKind,
    State,
    StateName,
    StateType,
    TaskRun,
)
from raflow.runtime import Observer

_STEPS: Final = 10
_SILENT: Final = frozenset({StateType.PENDING, StateType.RUNNING})


class PlainProgress(Observer):
    """Prints state changes and log lines; a map gets a line for each tenth of its items."""

    def __init__(self, console: Console) -> None:
        """Print to this console."""
        self._console = console
        self._nodes: dict[tuple[str, int], GraphNode] = {}
        self._done: dict[tuple[str, int], int] = {}

    def flow_run_changed(self, run: FlowRun) -> None:
        """See `Observer`."""
        if run.state.type is not StateType.PENDING:
            self._say(run.state, f"{run.flow} {run.name}", run.state.message)

    def node_added(self, flow_run_id: str, node: GraphNode) -> None:
        """See `Observer`."""
        if node.kind is NodeKind.MAP:
            self._nodes[flow_run_id, node.id] = node

    def task_run_changed(self, run: TaskRun) -> None:
        """See `Observer`."""
        state = run.state
        node = self._nodes.get((run.flow_run_id, run.key.node))
        if node is not None and state.is_final:
            self._count_item(run.flow_run_id, node, state)
        worth = state.name not in {StateName.COMPLETED, StateName.SKIPPED} if node else True
        if worth and state.type not in _SILENT:
            took = _format.duration(_took(run)) if state.is_final else ""
            self._say(state, run.label, state.message or state.reason or took)

    def log_written(
        self,
        flow_run_id: str,  # noqa: ARG002 - an observer takes what it is told
        label: str,
        lines: Sequence[LogLine],
    ) -> None:
        """See `Observer`."""
        for line in lines:
            self._console.print(log_text(line, label), soft_wrap=True)

    def _count_item(self, flow_run_id: str, node: GraphNode, state: State) -> None:
        done = self._done[flow_run_id, node.id] = self._done.get((flow_run_id, node.id), 0) + 1
        total = node.length or 0
        if done == total or done * _STEPS // max(total, 1) != (done - 1) * _STEPS // max(total, 1):
            self._say(state, node.key, f"{done:,}/{total:,}", name=f"{done / max(total, 1):.0%}")

    def _say(self, state: State, what: str, more: str, *, name: str = "") -> None:
        badge = _console.badge(state.type)
        clock = (f"{_format.clock(state.at)} ", "dim")
        text = Text.assemble(clock, badge, f" {name or state.name.value:<14} {what}")
        if more:
            text.append(f"  {more}", style="dim")
        self._console.print(text, soft_wrap=True)


def _took(run: TaskRun) -> float | None:
    if run.started_at is None or run.ended_at is None:
        return None
    return run.ended_at - run.started_at
