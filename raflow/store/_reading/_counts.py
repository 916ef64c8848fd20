"""Counting task runs by node and state, from rows and from what blocks say of themselves."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import sqlalchemy as sa

from raflow.model import StateName, StateType
from raflow.store._reading import _blocks, _graphs
from raflow.store._record import _writes
from raflow.store._rows import _tables

_table = _tables.task_runs
_Counts: TypeAlias = dict[int, Counter[StateType]]


def task_run_counts(connection: sa.Connection, flow_run_id: str) -> dict[int, dict[StateType, int]]:
    """Return how many task runs of each node are in which type of state."""
    run = _writes.flow_run_number(connection, flow_run_id)
    if run is None:
        return {}
    rows, singles, items = _of_rows(connection, run)
    completed = _of_blocks(connection, run, singles, items)
    expected = _graphs.items(connection, run)
    counts: dict[int, dict[StateType, int]] = {}
    for node in sorted({*rows, *completed, *expected}):
        by_type = counts[node] = dict(rows.get(node, ()))
        done = completed.get(node, 0)
        if done:
            by_type[StateType.COMPLETED] = by_type.get(StateType.COMPLETED, 0) + done
        its_items = expected.get(node, range(0))
        recorded = done + items[node] + (singles[node] if its_items.start < 0 else 0)
        if recorded < len(its_items):
            pending = len(its_items) - recorded
            by_type[StateType.PENDING] = by_type.get(StateType.PENDING, 0) + pending
    return counts


def recovered_counts(connection: sa.Connection, flow_run_id: str) -> dict[int, int]:
    """Return how many task runs of each node are Recovered: each of them has a row."""
    run = _writes.flow_run_number(connection, flow_run_id)
    query = sa.select(_table.c.node, sa.func.count()).group_by(_table.c.node)
    query = query.where(_table.c.flow_run == run, _table.c.state == StateName.RECOVERED.value)
    counts: dict[int, int] = {row[0]: row[1] for row in connection.execute(query)}
    return counts


def _of_rows(connection: sa.Connection, run: int) -> tuple[_Counts, Counter[int], Counter[int]]:
    """Return counts of rows by node: by type of state, of single calls, of items of maps."""
    is_item = _table.c.map_index >= 0
    columns = (_table.c.node, _table.c.state, is_item)
    query = sa.select(*columns, sa.func.count()).where(_table.c.flow_run == run).group_by(*columns)
    counts: _Counts = defaultdict(Counter)
    singles: Counter[int] = Counter()
    items: Counter[int] = Counter()
    for node, state, of_item, count in connection.execute(query):
        counts[node][StateName(state).type] += count
        (items if of_item else singles)[node] += count
    return counts, singles, items


def _of_blocks(
    connection: sa.Connection, run: int, singles: Mapping[int, int], items: Mapping[int, int]
) -> dict[int, int]:
    """Return how many task runs of each node stand in blocks only."""
    spans = list(_blocks.Blocks(connection, run).spans())
    found: dict[int, int] = {}
    overridden: set[int] = set()
    for span in (span for _, its_spans in spans for span in its_spans):
        each = span.stop - span.start
        for node in span.node_ids:
            found[node] = found.get(node, 0) + each
        with_rows = singles if span.start < 0 else items
        overridden.update(node for node in span.node_ids if node in with_rows)
    index = _blocks.PieceIndex(spans)
    for node in sorted(overridden):
        query = sa.select(_table.c.map_index).where(_table.c.flow_run == run, _table.c.node == node)
        found[node] -= _inside(index.pieces(node), connection.execute(query).scalars())
    return found


def _inside(pieces: Sequence[_blocks.Piece], items: Iterable[int]) -> int:
    """Return how many of these items are in one of the pieces."""
    starts = [piece.start for piece in pieces]
    stops = [piece.stop for piece in pieces]
    places = ((item, bisect_right(starts, item) - 1) for item in items)
    return sum(at >= 0 and item < stops[at] for item, at in places)
