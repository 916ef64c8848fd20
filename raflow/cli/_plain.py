"""The progress of a run where there is no terminal: a line for what is worth one."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

from raflow.cli import _console, _format
from raflow.cli._log_lines import log_text, unseen
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
    TaskRunKey,
)
from raflow.runtime import Observer

_STEPS: Final = 10
_MOST_LINES: Final = 20
"""How many single calls that ended together get a line each."""
_SILENT: Final = frozenset({StateType.PENDING, StateType.RUNNING})


class PlainProgress(Observer):
    """Prints state changes and log lines; a map gets a line for each tenth of its items."""

    def __init__(self, console: Console, *, passed_on: Collection[str] = ()) -> None:
        """Print to this console.

        Args:
            console: Where to.
            passed_on: Sources of lines of the body that come there anyway.
        """
        self._console = console
        self._passed_on = passed_on
        self._nodes: dict[tuple[str, int], GraphNode] = {}
        self._done: dict[tuple[str, int], int] = {}
        self._failed: set[tuple[str, TaskRunKey]] = set()
        """Items of maps that ended otherwise than well, and may be tried again with the flow."""
        self._reused: dict[str, int] = {}
        """By where they come from: task runs that were reused since the last line."""

    def recalled(
        self, run: FlowRun, nodes: Sequence[GraphNode], completed: Mapping[int, int]
    ) -> None:
        """Take what an earlier process of a run has done: its calls, and how many completed."""
        for node in nodes:
            self._nodes[run.id, node.id] = node
            self._done[run.id, node.id] = completed.get(node.id, 0)

    def flow_run_changed(self, run: FlowRun) -> None:
        """See `Observer`."""
        if run.state.type is not StateType.PENDING:
            more = "; ".join(filter(None, (run.state.message, run.state.reason)))
            self._say(run.state, f"{run.flow} {run.name}", more)

    def node_added(self, flow_run_id: str, node: GraphNode) -> None:
        """See `Observer`."""
        self._nodes[flow_run_id, node.id] = node

    def node_dropped(self, flow_run_id: str, node: int) -> None:
        """See `Observer`."""
        self._done.pop((flow_run_id, node), None)

    def task_runs_completed(self, block: TaskRunBlock) -> None:
        """See `Observer`."""
        if block.origin:
            self._count_reused(block)
            return
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
        if node is not None:
            self._count_item(run, node)
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
        for line in unseen(lines, label, self._passed_on):
            self._console.print(log_text(line, label), soft_wrap=True)

    def _count_item(self, run: TaskRun, node: GraphNode) -> None:
        item = run.flow_run_id, run.key
        if item in self._failed and not run.state.is_final:
            self._failed.discard(item)
            self._done[run.flow_run_id, node.id] -= 1
        elif run.state.is_final:
            if run.state.type is not StateType.COMPLETED:
                self._failed.add(item)
            self._count_items(run.flow_run_id, node, run.state, 1)

    def _count_reused(self, block: TaskRunBlock) -> None:
        self._reused[block.origin] = self._reused.get(block.origin, 0) + block.size
        for chunk in block.chunks:
            key = block.flow_run_id, chunk.node
            self._done[key] = self._done.get(key, 0) + chunk.size

    def _say_reused(self) -> None:
        reused, self._reused = self._reused, {}
        for origin, number in reused.items():
            state = State(name=StateName.CACHED, at=time.time())
            self._say(state, _format.count(number, "task run"), origin)

    def _count_items(self, flow_run_id: str, node: GraphNode, state: State, number: int) -> None:
        before = self._done.get((flow_run_id, node.id), 0)
        done = self._done[flow_run_id, node.id] = before + number
        total = node.length or 0
        step = max(total, 1)
        if done == total or done * _STEPS // step != before * _STEPS // step:
            self._say(state, node.key, f"{done:,}/{total:,}", name=f"{done / step:.0%}")

    def _say(self, state: State, what: str, more: str, *, name: str = "") -> None:
        if self._reused:
            self._say_reused()
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
