"""What a running flow run looks like: counts per task, kept up to date by the runtime."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from raflow.model import (
    Chunk,
    FlowRun,
    GraphNode,
    NodeKind,
    StateName,
    StateType,
    TaskRun,
    TaskRunBlock,
    TaskRunKey,
)
from raflow.runtime import Observer

RowKey: TypeAlias = tuple[str, str]
"""Flow run id, and the key of a map or subflow, or the name of a task that is called singly."""


@dataclass(slots=True, kw_only=True)
class Row:
    """A map, a subflow, or all single calls of one task."""

    label: str
    """The key of the node; the name of the task if it is called more than once."""
    kind: NodeKind
    depth: int = 0
    """How many subflows it is inside."""
    calls: int = 0
    """How many calls it stands for; 0: what it stood for was dropped."""
    expected: int | None = 0
    """Calls there will be; None while the length of a map is not known."""
    counts: Counter[StateType] = field(default_factory=Counter)
    """Task runs by the type of their state."""
    sent: int = 0
    """Task runs handed to the backend so far; those that it gave back count again."""
    retries: int = 0
    """Attempts that failed and were, or will be, tried again."""
    waits: tuple[TaskRunKey, str] | None = None
    """A task run that waits, and for what."""
    started_at: float | None = None
    ended_at: float | None = None

    @property
    def done(self) -> int:
        """Task runs in a final state."""
        return sum(number for kind, number in self.counts.items() if kind.is_final)

    @property
    def submitted(self) -> int:
        """Of those that are PENDING: handed to the backend. Short tasks are never seen RUNNING."""
        return max(0, min(self.sent - self.done, self.counts[StateType.PENDING]))

    @property
    def is_done(self) -> bool:
        """Whether nothing of it is left to run, as far as is known."""
        return self.expected is not None and self.done >= self.expected

    @property
    def state(self) -> StateType:
        """The one state type to show for the row: the worst that ended, or what goes on."""
        if self.is_done:
            return next((kind for kind in _WORST_FIRST if self.counts[kind]), StateType.COMPLETED)
        if self.submitted:
            return StateType.RUNNING
        return next((kind for kind in _LIVELY_FIRST if self.counts[kind]), StateType.PENDING)


_WORST_FIRST = (
    StateType.CRASHED,
    StateType.FAILED,
    StateType.CANCELLED,
    StateType.COMPLETED,
    StateType.SKIPPED,
)
_LIVELY_FIRST = (
    StateType.RUNNING,
    StateType.CANCELLING,
    StateType.PAUSED,
    StateType.SCHEDULED,
    StateType.PENDING,
)


class Progress(Observer):
    """Counts what happens; may be read from another thread while it does."""

    def __init__(self) -> None:
        """Begin with nothing known."""
        self.lock = threading.RLock()
        self.flow_run: FlowRun | None = None
        self._rows: dict[RowKey, Row] = {}
        self._row_of: dict[tuple[str, int], RowKey] = {}
        self._lengths: dict[tuple[str, int], int | None] = {}
        self._told: dict[tuple[str, TaskRunKey], StateName] = {}
        """Task runs that have not completed, unless nothing was ever told of them."""
        self._recalled: dict[tuple[str, int], int] = {}
        """How many task runs of a call an earlier process has completed."""
        self._inside: dict[RowKey, list[str]] = {}
        self._depth: dict[str, int] = {}

    def recalled(
        self, run: FlowRun, nodes: Sequence[GraphNode], completed: Mapping[int, int]
    ) -> None:
        """Take what an earlier process of a run has done: its calls, and how many completed."""
        with self.lock:
            self.flow_run_changed(run)
            for node in nodes:
                self.node_added(run.id, node)
                row, done = self._row(run.id, node.id), completed.get(node.id, 0)
                if row is not None:
                    self._recalled[run.id, node.id] = done
                    row.counts[StateType.PENDING] -= done
                    row.counts[StateType.COMPLETED] += done
                    row.sent += done

    def flow_run_changed(self, run: FlowRun) -> None:
        """See `Observer`."""
        with self.lock:
            if self.flow_run is None or self.flow_run.id == run.id:
                self.flow_run = run
            if run.id in self._depth:
                return
            parent = self._parent_row(run)
            self._depth[run.id] = 0 if parent is None else self._rows[parent].depth + 1
            if parent is not None:
                self._inside.setdefault(parent, []).append(run.id)

    def node_added(self, flow_run_id: str, node: GraphNode) -> None:
        """See `Observer`."""
        with self.lock:
            name = node.name if node.kind is NodeKind.TASK else node.key
            key = (flow_run_id, name)
            row = self._rows.get(key)
            if row is None:
                depth = self._depth.get(flow_run_id, 0)
                row = self._rows[key] = Row(label=node.key, kind=node.kind, depth=depth)
            length = node.length if node.kind is NodeKind.MAP else 1
            before = self._lengths.get((flow_run_id, node.id))
            if (flow_run_id, node.id) not in self._lengths:
                row.calls += 1
                row.label = name if row.calls > 1 else node.key
            self._lengths[flow_run_id, node.id] = length
            row.counts[StateType.PENDING] += (length or 0) - (before or 0)
            self._row_of[flow_run_id, node.id] = key
            if length is None:
                row.expected = None
            else:
                row.expected = (row.expected or 0) + length - (before or 0)

    def node_dropped(self, flow_run_id: str, node: int) -> None:
        """See `Observer`."""
        with self.lock:
            row = self._row(flow_run_id, node)
            if row is None:
                return
            length = self._lengths.pop((flow_run_id, node), None)
            done = self._recalled.pop((flow_run_id, node), 0)
            row.counts[StateType.COMPLETED] -= done
            row.counts[StateType.PENDING] -= (length or 0) - done
            row.sent -= done
            row.expected = (row.expected or 0) - (length or 0)
            row.calls -= 1
            for child in self._inside.pop(self._row_of.pop((flow_run_id, node)), ()):
                self._depth.pop(child, None)

    def task_runs_submitted(self, flow_run_id: str, chunks: Sequence[Chunk]) -> None:
        """See `Observer`."""
        with self.lock:
            for chunk in chunks:
                row = self._row(flow_run_id, chunk.node)
                if row is not None:
                    row.sent += chunk.size

    def task_runs_completed(self, block: TaskRunBlock) -> None:
        """See `Observer`."""
        position = 0
        with self.lock:
            for chunk in block.chunks:
                row = self._row(block.flow_run_id, chunk.node)
                if row is not None:
                    row.counts[StateType.PENDING] -= chunk.size
                    row.counts[StateType.COMPLETED] += chunk.size
                    last = position + chunk.size - 1
                    _widen(row, block.started_at[position], block.ended_at[last])
                position += chunk.size

    def task_run_changed(self, run: TaskRun) -> None:
        """See `Observer`."""
        with self.lock:
            row = self._row(run.flow_run_id, run.key.node)
            if row is None:
                return
            key = (run.flow_run_id, run.key)
            before = self._told.pop(key, StateName.PENDING)
            row.counts[before.type] -= 1
            row.counts[run.state.type] += 1
            if run.state.type is not StateType.COMPLETED:
                self._told[key] = run.state.name
            if before.type.is_final and row.sent:
                row.sent -= 1  # it is tried again with its flow
            _take(row, run)

    def rows(self) -> list[Row]:
        """Return the rows in the order of calls, each subflow's own behind it."""
        with self.lock:
            root = self.flow_run.id if self.flow_run else ""
            return list(self._walk(root))

    def _row(self, flow_run_id: str, node: int) -> Row | None:
        return self._rows.get(self._row_of.get((flow_run_id, node), ("", "")))

    def _walk(self, flow_run_id: str) -> Iterator[Row]:
        for key, row in self._rows.items():
            if key[0] == flow_run_id and row.calls:
                yield row
                for child in self._inside.get(key, ()):
                    yield from self._walk(child)

    def _parent_row(self, run: FlowRun) -> RowKey | None:
        if run.parent_id is None or run.parent_node is None:
            return None
        return self._row_of.get((run.parent_id, run.parent_node))


def _widen(row: Row, started_at: float | None, ended_at: float | None) -> None:
    if started_at is not None:
        row.started_at = min(row.started_at or started_at, started_at)
    if ended_at is not None:
        row.ended_at = max(row.ended_at or ended_at, ended_at)


def _take(row: Row, run: TaskRun) -> None:
    _widen(row, run.started_at, run.ended_at)
    if run.state.name is StateName.AWAITING_RETRY:
        row.retries += 1
    if run.state.reason:
        row.waits = (run.key, run.state.reason)
    elif row.waits is not None and row.waits[0] == run.key:
        row.waits = None
