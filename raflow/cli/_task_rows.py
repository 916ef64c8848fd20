"""The tasks of a flow run, a row for each node of its graph; read from the record."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

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
_NOTES: Final = 10
_SPECIAL: Final = frozenset({StateName.CACHED, StateName.RECOVERED})
_FAILED: Final = frozenset({StateType.FAILED, StateType.CRASHED})


class MemoryUse(NamedTuple):
    """How much memory an attempt asked for, and how much its process has used."""

    attempt: int
    asked: int
    """Bytes; 0: it asked for none."""
    peak: int
    """Bytes; 0: that is not known."""


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
    asked_memory: int = 0
    """The most that an attempt asked for; 0: none did."""
    memory: Sequence[MemoryUse] | None = None
    """By attempt. Of a map: of the item that asked for the most, if it asked for more than at
    first."""
    child_flow_run_id: str | None = None
    message: str = ""
    """Of the state of a single call: what happened."""
    reason: str = ""
    """What it waits for, or what one item of a map does."""
    special: Mapping[StateName, int] = field(default_factory=dict)
    """How many task runs completed otherwise than by running once. If there are too many to add
    everything up, only those that recovered are counted."""

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
        recovered = store.recovered_counts(run.id)
        return [
            TaskRow(
                node=n,
                label=n.key,
                counts=counts.get(n.id, {}),
                special={StateName.RECOVERED: recovered[n.id]} if n.id in recovered else {},
            )
            for n in nodes
        ]
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
        less=("Peak RAM", "CPU", "Started", "Attempts"),
    )
    for row in shown:
        table.add_row(
            Text(row.label, overflow="ellipsis"),
            _state(row),
            "" if not row.attempts else f"{row.attempts:,}",
            _format.clock(row.started_at),
            _format.duration(row.duration),
            _format.duration(row.cpu_seconds),
            _peak(row),
        )
    if len(shown) < len(rows):
        table.add_row(Text(f"… {len(rows) - len(shown):,} more", style="dim"))
    return table


def _peak(row: TaskRow) -> str:
    if not row.peak_memory:
        return ""
    asked = f" of {_format.size(row.asked_memory)}" if row.asked_memory else ""
    return f"{_format.size(row.peak_memory)}{asked}"


def memory_uses(node: GraphNode, attempts: Iterable[Attempt]) -> list[MemoryUse]:
    """Return what the attempts of a task run asked for, and used."""
    hint = node.resources.memory if node.resources else 0
    return [MemoryUse(a.number, a.memory or hint, a.peak_memory) for a in attempts]


def memory_words(uses: Sequence[MemoryUse]) -> str:
    """Return that in words if there was more than one attempt, and one asked for memory."""
    if len(uses) < 2 or not any(use.asked for use in uses):
        return ""
    return "; ".join(
        f"attempt {use.attempt} asked for {_format.size(use.asked) if use.asked else 'none'}"
        + (f", peak {_format.size(use.peak)}" if use.peak else "")
        for use in uses
    )


def _memory(
    node: GraphNode, attempts: Sequence[Attempt], *, single: bool
) -> Sequence[MemoryUse] | None:
    if single:
        return memory_uses(node, attempts)
    grown = max(attempts, key=lambda attempt: attempt.memory, default=None)
    if grown is None or not grown.memory:
        return None
    return memory_uses(node, [a for a in attempts if a.key == grown.key])


def _note(row: TaskRow) -> str:
    """Return what is worth saying of a row beyond its state and its figures."""
    whose = "one of its items: " if row.state is None else ""
    words = memory_words(row.memory or ())
    return "\n".join(filter(None, (_state_note(row), words and whose + words)))


def _state_note(row: TaskRow) -> str:
    if row.state is None:
        kinds = ", ".join(f"{n:,} {name.value.lower()}" for name, n in row.special.items())
        return "; ".join(filter(None, (kinds, row.reason)))
    return row.reason or (row.message if row.state in _SPECIAL else "")


def notes(rows: Sequence[TaskRow]) -> list[tuple[str, str]]:
    """Return what else there is to say of rows: why a task waits, where a value is from."""
    found = [(row.label, note) for row in rows if (note := _note(row))]
    more = len(found) - _NOTES
    return found[:_NOTES] + ([("…", f"and {more:,} more")] if more > 0 else [])


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
        asked_memory=max((use.asked for use in memory_uses(node, attempts)), default=0),
        memory=_memory(node, attempts, single=one is not None),
        child_flow_run_id=one.child_flow_run_id if one else None,
        message=one.state.message if one else "",
        reason=next((t.state.reason for t in task_runs if t.state.reason), ""),
        special=Counter(t.state.name for t in task_runs if t.state.name in _SPECIAL),
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
