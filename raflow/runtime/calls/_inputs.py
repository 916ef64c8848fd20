"""Calls as a backend gets them: with what fills the holes in their arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from raflow._util import maker
from raflow.execute import (
    Call,
    EachOf,
    EachPart,
    InBatch,
    InputSource,
    Kept,
    Known,
    ListOf,
    Session,
    ValueRef,
    ValueSlice,
)
from raflow.model import Chunk, Edge, EdgeKind, StateType, TaskRunKey
from raflow.runtime.calls._calls import CallEntry
from raflow.runtime.calls._kept import Source, sources
from raflow.runtime.calls._outcomes import Outcomes, Piece, RunOutcome

_NO_INPUTS: Final[Mapping[int, InputSource]] = MappingProxyType({})
_call: Final = maker(Call)
_FED: Final = frozenset({EdgeKind.DATA, EdgeKind.ITEM})


class Inputs:
    """Finds what fills the holes in the arguments of the calls of one batch."""

    def __init__(self, outcomes: Outcomes, chunks: Sequence[Chunk] = ()) -> None:
        """Begin a batch.

        Args:
            outcomes: What became of the calls of the run.
            chunks: What the batch will run, in order.
        """
        self._outcomes = outcomes
        self._chunks = chunks
        self._positions: dict[int, int] | None = None

    def of(self, entry: CallEntry, chunk: Chunk) -> Mapping[int, InputSource]:
        """Return the inputs of a chunk, by edge."""
        return {
            position: self._input(edge, chunk)
            for position, edge in enumerate(entry.edges)
            if edge.kind in _FED
            and (edge.target_item is None or chunk.start <= edge.target_item < chunk.stop)
        }

    def _input(self, edge: Edge, chunk: Chunk) -> InputSource:
        if not self._outcomes.is_map(edge.source):
            value = self._single(TaskRunKey(edge.source), edge)
            if edge.kind is EdgeKind.ITEM:
                assert isinstance(value, ValueRef | Known | Kept)
                return EachPart(value, chunk.start)
            return value
        if edge.kind is EdgeKind.ITEM:
            pieces = self._outcomes.items(edge.source, chunk.start, chunk.stop)
            return EachOf(_values(pieces, edge))
        if edge.source_item is not None:
            return self._single(TaskRunKey(edge.source, edge.source_item), edge)
        return ListOf(_values(self._outcomes.items(edge.source), edge))

    def _single(self, key: TaskRunKey, edge: Edge) -> ValueRef | Known | Kept | InBatch:
        found = self._outcomes.find(key)
        if found is None or (isinstance(found, RunOutcome) and not found.state.is_final):
            return InBatch(self._position(key.node))
        (value,) = _values((found,), edge)
        assert not isinstance(value, ValueSlice)
        return value

    def _position(self, node: int) -> int:
        """Return where in the batch a single call stands."""
        if self._positions is None:
            self._positions = {}
            position = 0
            for chunk in self._chunks:
                self._positions[chunk.node] = position
                position += chunk.size
        return self._positions[node]


def build_calls(
    chunks: Sequence[Chunk],
    entries: Sequence[CallEntry | None],
    outcomes: Outcomes,
    session: Session,
) -> tuple[Call, ...]:
    """Put together what a backend needs to run the chunks of a batch.

    Raises:
        UnserializableArgumentError: An argument of an item cannot travel.
    """
    inputs = Inputs(outcomes, chunks)
    calls: list[Call] = []
    for chunk in chunks:
        entry = entries[chunk[0]]
        assert entry is not None, "a call that is to be sent is kept"
        assert entry.function is not None, "and it is a task's"
        items = None
        if entry.items is not None:
            columns = entry.items.slice(chunk.start, chunk.stop)
            items = session.pack_items(entry.request.target.name, columns)
        fed = inputs.of(entry, chunk) if entry.edges else _NO_INPUTS
        calls.append(
            _call((chunk, entry.function, entry.arguments, items, fed, entry.key, entry.settings))
        )
    return tuple(calls)


def _values(pieces: Iterable[Piece], edge: Edge) -> tuple[Source, ...]:
    """Return the values of pieces, in order, as something that can travel."""
    return tuple([source for piece in pieces for source in sources(_value(piece, edge))])


def _value(piece: Piece, edge: Edge) -> ValueRef | ValueSlice | Known:
    """Return a source's value; a source that has none gives its exception, if asked, or None."""
    if not isinstance(piece, RunOutcome):
        return piece
    if piece.value is not None and piece.state.type is StateType.COMPLETED:
        return piece.value
    if edge.allow_failure and piece.failed:
        return Known(piece.failure())
    return Known(None)
