"""The tasks of a flow run, a row for each node of its graph; read from the record."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from rich.table import Table
from rich.text import Text

from raflow.cli import _console, _format
from raflow.model import (
    Attempt,
    FlowRun,
    GraphNode,
    NodeKind,
    StateName,
    StateType,
    TaskRun,
)
from raflow.store import Store

_READ_AT_MOST: Final = 50_000
_SHOWN: Final = 40
_FAILURES: Final = 20
_FAILED: Final = frozenset({StateType.FAILED, StateType.CRASHED})


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """A task call, a map or a subflow, and how it went."""

    node: GraphNode
    label: str
    """The label of its task run, or the key of a map."""
    counts: Mapping[StateType, int] = field(default_factory=dict)
    """Task runs by the type of their state."""
    state: StateName | None = None
    """The state of a single call."""
    attempts: int | None = None
    """None: there are too many task runs to add this and the following up."""
    started_at: float | None = None
    ended_at: float | None = None
    cpu_seconds: float | None = None
    peak_memory: int | None = None
    child_flow_run_id: str | None = None

    @property
    def duration(self) -> float | None:
        """Seconds from the start of the last attempt of the first run to the end of the last."""
        if self.started_at is None or self.ended_at is None:
            return None
        return self.ended_at - self.started_at


def task_rows(store: Store, run: FlowRun) -> list[TaskRow]:
    """Return a row for each node of the run's graph, in the order of calls."""
    nodes = store.graph(run.id).nodes
    counts = store.task_run_counts(run.id)
    if sum(number for by_type in counts.values() for number in by_type.values()) > _READ_AT_MOST:
        return [TaskRow(node=n, label=n.key, counts=counts.get(n.id, {})) for n in nodes]
    task_runs: dict[int, list[TaskRun]] = defaultdict(list)
    for task_run in store.task_runs(run.id):
        task_runs[task_run.key.node].append(task_run)
    attempts: dict[int, list[Attempt]] = defaultdict(list)
    for attempt in store.attempts(run.id):
        attempts[attempt.key.node].append(attempt)
    return [
        _row(node, counts.get(node.id, {}), task_runs[node.id], attempts[node.id]) for node in nodes
    ]


def item_rows(store: Store, run: FlowRun) -> list[TaskRow]:
    """Return a row for each task run, the items of maps too."""
    nodes = {node.id: node for node in store.graph(run.id).nodes}
    attempts: dict[tuple[int, int], list[Attempt]] = defaultdict(list)
    for attempt in store.attempts(run.id):
        attempts[attempt.key].append(attempt)
    return [
        _row(nodes[t.key.node], {t.state.type: 1}, [t], attempts[t.key], single=True)
        for t in store.task_runs(run.id)
        if t.key.node in nodes
    ]


def failures(store: Store, run: FlowRun) -> list[TaskRun]:
    """Return task runs that failed themselves, not because of another; at most twenty."""
    found = store.task_runs(run.id, state_types=_FAILED, limit=10 * _FAILURES)
    return [t for t in found if t.state.name is not StateName.UPSTREAM_FAILED][:_FAILURES]


def render(rows: Sequence[TaskRow], *, limit: int | None = _SHOWN) -> Table:
    """Return the rows as a table; of more than `limit`, those that failed are shown first."""
    shown = rows if limit is None else _most_telling(rows, limit)
    table = _console.table(
        *("Task", "State", "Attempts", "Started", "Duration", "CPU", "Peak RAM"),
        right=("Attempts", "Duration", "CPU", "Peak RAM"),
    )
    for row in shown:
        table.add_row(
            Text(row.label, overflow="ellipsis"),
            _state(row),
            "" if not row.attempts else f"{row.attempts:,}",
            _format.clock(row.started_at),
            _format.duration(row.duration),
            _format.duration(row.cpu_seconds),
            "" if not row.peak_memory else _format.size(row.peak_memory),
        )
    if len(shown) < len(rows):
        table.add_row(Text(f"… {len(rows) - len(shown):,} more", style="dim"))
    return table


def _row(
    node: GraphNode,
    counts: Mapping[StateType, int],
    task_runs: Sequence[TaskRun],
    attempts: Sequence[Attempt],
    *,
    single: bool = False,
) -> TaskRow:
    one = task_runs[0] if task_runs and (single or node.kind is not NodeKind.MAP) else None
    return TaskRow(
        node=node,
        label=one.label if one else node.key,
        counts=counts,
        state=one.state.name if one else None,
        attempts=sum(t.attempts for t in task_runs),
        started_at=min(_known(t.started_at for t in task_runs), default=None),
        ended_at=max(_known(t.ended_at for t in task_runs), default=None),
        cpu_seconds=sum(a.cpu_seconds for a in attempts) if attempts else None,
        peak_memory=max((a.peak_memory for a in attempts), default=None),
        child_flow_run_id=one.child_flow_run_id if one else None,
    )


def _known(times: Iterable[float | None]) -> list[float]:
    return [time for time in times if time is not None]


def _state(row: TaskRow) -> Text:
    if row.state is not None:
        return _console.state_text(row.state)
    total = sum(row.counts.values())
    if len(row.counts) == 1:
        kind = next(iter(row.counts))
        return Text.assemble(_console.badge(kind), f" {total:,} {kind.value.lower()}")
    return Text("  ").join(
        Text.assemble(_console.badge(kind), f" {number:,}") for kind, number in row.counts.items()
    )


def _most_telling(rows: Sequence[TaskRow], limit: int) -> Sequence[TaskRow]:
    if len(rows) <= limit:
        return rows
    ranked = sorted(
        range(len(rows)), key=lambda n: (not any(rows[n].counts.get(k) for k in _FAILED), n)
    )
    return [rows[n] for n in sorted(ranked[: limit - 1])]
