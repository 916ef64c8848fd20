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
    TaskRunBlock,
)
from raflow.runtime import Observer

_STEPS: Final = 10
_MOST_LINES: Final = 20
"""How many single calls that ended together get a line each."""
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
        self._nodes[flow_run_id, node.id] = node

    def task_runs_completed(self, block: TaskRunBlock) -> None:
        """See `Observer`."""
        position = singles = 0
        for chunk in block.chunks:
            node = self._nodes[block.flow_run_id, chunk.node]
            started_at, ended_at = block.started_at[position], block.ended_at[position]
            position += chunk.size
            state = State(name=StateName.COMPLETED, at=block.ended_at[position - 1])
            if node.kind is NodeKind.MAP:
                self._count_items(block.flow_run_id, node, state, chunk.size)
                continue
            singles += 1
            if singles <= _MOST_LINES:
                self._say(state, node.label or node.key, _format.duration(ended_at - started_at))
        if singles > _MOST_LINES:
            self._say(state, _format.count(singles - _MOST_LINES, "more task run"), "")

    def task_run_changed(self, run: TaskRun) -> None:
        """See `Observer`."""
        state = run.state
        node = self._nodes.get((run.flow_run_id, run.key.node))
        if node is not None and node.kind is not NodeKind.MAP:
            node = None
        if node is not None and state.is_final:
            self._count_items(run.flow_run_id, node, state, 1)
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

    def _count_items(self, flow_run_id: str, node: GraphNode, state: State, number: int) -> None:
        before = self._done.get((flow_run_id, node.id), 0)
        done = self._done[flow_run_id, node.id] = before + number
        total = node.length or 0
        step = max(total, 1)
        if done == total or done * _STEPS // step != before * _STEPS // step:
            self._say(state, node.key, f"{done:,}/{total:,}", name=f"{done / step:.0%}")

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
