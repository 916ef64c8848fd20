"""Reading task runs: rows, and blocks of those that simply completed, as if all were rows.

A row of a key counts before a block, and a node of the graph with neither is PENDING. Blocks are
recorded after their nodes; one whose node is not there yet is not shown.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from typing import Any, Final, TypeAlias

import sqlalchemy as sa

from raflow import model
from raflow.model import StateType, TaskRunKey
from raflow.store._reading import _blocks, _graphs, _queries
from raflow.store._record import _writes
from raflow.store._rows import _rows, _tables

_table = _tables.task_runs
_key_columns = (_table.c.node, _table.c.map_index)
_PAGE: Final = 1000
_FIRST: Final = TaskRunKey(-1, -1)
_Fill: TypeAlias = Callable[[int, int], Iterator[model.TaskRun]]
"""Gives the task runs from one map index to another, of which there are no rows."""


def task_runs(
    connection: sa.Connection,
    flow_run_id: str,
    *,
    state_types: Collection[StateType] | None,
    node: int | None,
    limit: int | None,
    after: TaskRunKey | None,
) -> list[model.TaskRun]:
    """Return task runs in the order of keys; see `Store.task_runs`."""
    types = frozenset(StateType if state_types is None else state_types)
    begin = after or _FIRST
    if node is not None and begin.node < node:
        begin = TaskRunKey(node, -2)
    if not types & {StateType.COMPLETED, StateType.PENDING}:
        return _rows_only(connection, flow_run_id, types, node, limit, after)
    run = _writes.flow_run_number(connection, flow_run_id)
    if run is None or (node is not None and begin.node > node):
        return []
    page = _PAGE if limit is None else min(limit, _PAGE)
    rows = _Rows(connection, run, begin, node, page)
    walk = _Walk(connection, flow_run_id, run, rows, types)
    return list(islice(walk.task_runs(begin, node), limit))


def _rows_only(
    connection: sa.Connection,
    flow_run_id: str,
    types: Collection[StateType],
    node: int | None,
    limit: int | None,
    after: TaskRunKey | None,
) -> list[model.TaskRun]:
    """Return task runs in states that only rows tell: mostly a few of very many."""
    wanted = sa.select(*_key_columns).where(
        _queries.of(_table, flow_run_id), _table.c.state.in_(_queries.state_names(types))
    )
    if node is not None:
        wanted = wanted.where(_table.c.node == node)
    if after is not None:
        wanted = wanted.where(sa.tuple_(*_key_columns) > tuple(after))
    # The sums keep SQLite from reading every row in the order of the primary key, so that it takes
    # the index on states.
    wanted = wanted.order_by(*(column + 0 for column in _key_columns)).limit(limit)
    query = sa.select(_table).where(
        _queries.of(_table, flow_run_id), sa.tuple_(*_key_columns).in_(wanted)
    )
    rows = connection.execute(query.order_by(*_key_columns))
    return [_rows.read_task_run(flow_run_id, row) for row in rows]


class _Rows:
    """The rows of a flow run in the order of keys, read in pages as they are needed."""

    def __init__(
        self, connection: sa.Connection, run: int, after: TaskRunKey, node: int | None, page: int
    ) -> None:
        self._connection = connection
        self._query = sa.select(_table).where(_table.c.flow_run == run).order_by(*_key_columns)
        self._query = self._query.limit(page)
        if node is not None:
            self._query = self._query.where(_table.c.node == node)
        self._after = after
        self._page = page
        self._rows = self._read()
        self._next = next(self._rows, None)

    @property
    def next_node(self) -> int | None:
        """Node of the next row; None if there is none."""
        return None if self._next is None else int(self._next.node)

    def take(self, node: int, stop: int | None) -> Iterator[sa.Row[Any]]:
        """Yield the next rows of a node, up to a map index."""
        while (row := self._next) is not None and row.node == node:
            if stop is not None and row.map_index >= stop:
                return
            self._next = next(self._rows, None)
            yield row

    def _read(self) -> Iterator[sa.Row[Any]]:
        while True:
            behind = sa.tuple_(*_key_columns) > tuple(self._after)
            rows = self._connection.execute(self._query.where(behind)).all()
            yield from rows
            if len(rows) < self._page:
                return
            self._after = TaskRunKey(rows[-1].node, rows[-1].map_index)


class _Walk:
    """Goes through the task runs of a flow run, and gives those in states of some types."""

    def __init__(
        self,
        connection: sa.Connection,
        flow_run_id: str,
        run: int,
        rows: _Rows,
        types: Collection[StateType],
    ) -> None:
        self._connection = connection
        self._flow_run_id = flow_run_id
        self._run = run
        self._rows = rows
        self._names = frozenset(_queries.state_names(types))
        self._types = types
        self._blocks = _blocks.Blocks(connection, run)

    def task_runs(self, after: TaskRunKey, only: int | None) -> Iterator[model.TaskRun]:
        """Yield task runs behind a key, of one node or of all."""
        around = _blocks.behind(after.node) if only is None else sa.and_(*_blocks.around_node(only))
        spans = list(self._blocks.spans(around))
        index = _blocks.PieceIndex(spans)
        nodes = _graphs.nodes(
            self._connection,
            self._run,
            first=max(after.node, 0),
            last=only,
            skip=self._skip(span for _, its_spans in spans for span in its_spans),
        )
        for node in nodes:
            yield from self._without_node(node.id)
            begin = after.map_index + 1 if node.id == after.node else -1
            yield from self._of_node(node, begin, index.pieces(node.id))
        yield from self._without_node(None)

    def _skip(self, spans: Iterable[model.Span]) -> Callable[[int, int], bool]:
        """Return what tells of which nodes there is nothing to give but rows."""
        if StateType.COMPLETED in self._types:
            return lambda _first, _last: False
        done = _blocks.single_nodes(spans)
        return lambda first, last: last < len(done) and done.find(0, first, last + 1) < 0

    def _without_node(self, before: int | None) -> Iterator[model.TaskRun]:
        """Yield the rows of nodes that the graph lacks, up to a node."""
        while (node := self._rows.next_node) is not None and (before is None or node < before):
            yield from self._read(self._rows.take(node, None))

    def _of_node(
        self, node: model.GraphNode, begin: int, pieces: Iterable[_blocks.Piece]
    ) -> Iterator[model.TaskRun]:
        expected = model.items_of(node.kind, node.length)
        open_ended = node.kind is model.NodeKind.MAP and node.length is None
        if open_ended and (pieces or self._rows.next_node == node.id):
            expected = range(0)
        pending = self._pending(node, expected)
        for piece in pieces:
            yield from self._stretch(node.id, begin, piece.start, pending)
            begin = max(begin, piece.start)
            yield from self._stretch(node.id, begin, piece.stop, self._completed(node, piece))
            begin = max(begin, piece.stop)
        yield from self._stretch(node.id, begin, max(begin, expected.stop), pending)
        yield from self._read(self._rows.take(node.id, None))

    def _stretch(self, node: int, start: int, stop: int, fill: _Fill) -> Iterator[model.TaskRun]:
        """Yield the rows of a node between two map indices, and what fills the gaps."""
        for row in self._rows.take(node, stop):
            yield from fill(start, row.map_index)
            yield from self._read((row,))
            start = row.map_index + 1
        yield from fill(start, stop)

    def _read(self, rows: Iterable[sa.Row[Any]]) -> Iterator[model.TaskRun]:
        wanted = (row for row in rows if row.state in self._names)
        return (_rows.read_task_run(self._flow_run_id, row) for row in wanted)

    def _pending(self, node: model.GraphNode, expected: range) -> _Fill:
        def fill(start: int, stop: int) -> Iterator[model.TaskRun]:
            for item in range(max(start, expected.start), min(stop, expected.stop)):
                yield model.pending_run(self._flow_run_id, node, item)

        return fill if StateType.PENDING in self._types else _nothing

    def _completed(self, node: model.GraphNode, piece: _blocks.Piece) -> _Fill:
        def fill(start: int, stop: int) -> Iterator[model.TaskRun]:
            if start >= stop:
                return
            reader = self._blocks.reader(piece.block)
            for item in range(start, stop):
                position = piece.position + item - piece.start
                yield reader.task_run(position, TaskRunKey(node.id, item), node)

        return fill if StateType.COMPLETED in self._types else _nothing


def _nothing(_start: int, _stop: int) -> Iterator[model.TaskRun]:
    return iter(())
