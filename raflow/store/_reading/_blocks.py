"""Reading blocks of task runs: which of them holds a key, without decoding the others."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import sqlalchemy as sa

from raflow import model
from raflow.store._rows import _tables

_KEPT: Final = 16
_table = _tables.task_run_blocks


class Piece(NamedTuple):
    """Neighbouring items of a node that stand in one block."""

    start: int
    """Map index of the first; -1 for a single call."""
    stop: int
    block: int
    """Number of the block."""
    position: int
    """Position in the block of the first."""


class _Entry(NamedTuple):
    node: int
    span: model.Span
    block: int
    position: int


class Blocks:
    """The blocks of a flow run; those read last stay decoded."""

    def __init__(self, connection: sa.Connection, run: int) -> None:
        """Read blocks of the flow run with this number, while the connection is open."""
        self._connection = connection
        self._run = run
        self._readers: OrderedDict[int, model.BlockReader] = OrderedDict()

    def spans(self, *conditions: sa.ColumnElement[bool]) -> Iterator[tuple[int, list[model.Span]]]:
        """Yield number and spans of the blocks that meet conditions, the newest first."""
        query = sa.select(_table.c.number, _table.c.spans).where(
            _table.c.flow_run == self._run, *conditions
        )
        for number, spans in self._connection.execute(query.order_by(_table.c.number.desc())):
            yield number, model.decode_spans(spans)

    def reader(self, number: int) -> model.BlockReader:
        """Return the block with this number."""
        reader = self._readers.pop(number, None)
        if reader is None:
            query = sa.select(_table.c.content).where(
                _table.c.flow_run == self._run, _table.c.number == number
            )
            content = self._connection.execute(query).scalar_one()
            reader = model.BlockReader(model.decode_block(content))
        self._readers[number] = reader
        if len(self._readers) > _KEPT:
            self._readers.popitem(last=False)
        return reader

    def readers(self) -> Iterator[model.BlockReader]:
        """Yield every block, in the order of numbers."""
        query = sa.select(_table.c.content).where(_table.c.flow_run == self._run)
        for content in self._connection.execute(query.order_by(_table.c.number)).scalars():
            yield model.BlockReader(model.decode_block(content))

    def find(self, key: model.TaskRunKey) -> tuple[model.BlockReader, int] | None:
        """Return the newest block that holds a task run, and its position there."""
        around = (*around_node(key.node), *_around_item(key.map_index))
        for number, spans in self.spans(*around):
            position = 0
            for span in spans:
                if key.node in span.node_ids and span.start <= key.map_index < span.stop:
                    before = span.node_ids.index(key.node) * (span.stop - span.start)
                    return self.reader(number), position + before + key.map_index - span.start
                position += span.size
        return None


def around_node(node: int) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the conditions of a block that may hold task runs of a node."""
    return _table.c.first_node <= node, _table.c.last_node >= node


def behind(node: int) -> sa.ColumnElement[bool]:
    """Return the condition of a block that may hold task runs of a node or later ones."""
    return _table.c.last_node >= node


def _around_item(item: int) -> tuple[sa.ColumnElement[bool], ...]:
    return _table.c.first_item <= item, _table.c.last_item >= item


def single_nodes(spans: Iterable[model.Span]) -> bytearray:
    """Return 1 at the id of each node whose one task run is in these spans, otherwise 0."""
    singles = [span for span in spans if span.start < 0]
    marks = bytearray(1 + max((span.node_ids[-1] for span in singles), default=-1))
    for span in singles:
        ids = span.node_ids
        marks[ids.start : ids[-1] + 1 : ids.step] = b"\1" * span.nodes
    return marks


class PieceIndex:
    """Tells which blocks hold a node's task runs; asked in the order of nodes."""

    def __init__(self, blocks: Iterable[tuple[int, list[model.Span]]]) -> None:
        """Read the spans of blocks."""
        self._entries: list[_Entry] = []
        self._open: list[_Entry] = []
        for number, spans in blocks:
            position = 0
            for span in spans:
                self._entries.append(_Entry(span.node, span, number, position))
                position += span.size
        self._entries.sort(key=lambda entry: entry.node, reverse=True)

    def pieces(self, node: int) -> list[Piece]:
        """Return the pieces of a node, in the order of items."""
        while self._entries and self._entries[-1].node <= node:
            self._open.append(self._entries.pop())
        self._open = [entry for entry in self._open if entry.span.node_ids[-1] >= node]
        pieces = []
        for _, span, block, position in self._open:
            if node in span.node_ids:
                before = span.node_ids.index(node) * (span.stop - span.start)
                pieces.append(Piece(span.start, span.stop, block, position + before))
        return sorted(pieces)
