"""The calls of a flow run: what the body asked for, and the form in which it is sent out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from raflow.define import CallRequest
from raflow.execute import (
    Call,
    CallSettings,
    EachOf,
    EachPart,
    FunctionHandle,
    InBatch,
    InputSource,
    Known,
    ListOf,
    Packed,
    Session,
    ValueRef,
    ValueSlice,
)
from raflow.model import Chunk, Edge, EdgeKind, NodeKind, StateType, TaskRunKey
from raflow.runtime._items import Items
from raflow.runtime._outcomes import Outcomes, Piece, RunOutcome

_NO_INPUTS: Final[Mapping[int, InputSource]] = MappingProxyType({})
_FED: Final = frozenset({EdgeKind.DATA, EdgeKind.ITEM})


@dataclass(slots=True, eq=False)
class CallEntry:
    """A call of the body, kept until every run of it is final."""

    request: CallRequest
    """As the body made it."""
    key: str
    """Readable key of the node."""
    at: float
    """When it was made."""
    edges: tuple[Edge, ...]
    function: FunctionHandle | None = None
    """The task's function; None for a subflow."""
    settings: CallSettings | None = None
    """How it runs; None for a subflow."""
    arguments: Packed | None = None
    """All of a single call, what items share in a map."""
    items: Items | None = None
    """The items that the body gave to a map."""

    @property
    def is_map(self) -> bool:
        """Whether the call is mapped."""
        return self.request.kind is NodeKind.MAP

    def label(self, item: int) -> str:
        """Return the name of a run of this call, unless the task makes its own."""
        return self.key if item < 0 else f"{self.key}[{item}]"


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
                assert isinstance(value, ValueRef | Known)
                return EachPart(value, chunk.start)
            return value
        if edge.kind is EdgeKind.ITEM:
            pieces = self._outcomes.items(edge.source, chunk.start, chunk.stop)
            return EachOf(tuple(_value(piece, edge) for piece in pieces))
        if edge.source_item is not None:
            return self._single(TaskRunKey(edge.source, edge.source_item), edge)
        return ListOf(tuple(_value(piece, edge) for piece in self._outcomes.items(edge.source)))

    def _single(self, key: TaskRunKey, edge: Edge) -> ValueRef | Known | InBatch:
        found = self._outcomes.find(key)
        if found is None or (isinstance(found, RunOutcome) and not found.state.is_final):
            return InBatch(self._position(key.node))
        value = _value(found, edge)
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
        entry = entries[chunk.node]
        assert entry is not None, "a call that is to be sent is kept"
        assert entry.function is not None
        assert entry.settings is not None
        assert entry.arguments is not None
        items = None
        if entry.items is not None:
            columns = entry.items.slice(chunk.start, chunk.stop)
            items = session.pack_items(entry.request.target.name, columns)
        fed = inputs.of(entry, chunk) if entry.edges else _NO_INPUTS
        calls.append(
            Call(chunk, entry.function, entry.arguments, items, fed, entry.key, entry.settings)
        )
    return tuple(calls)


def _value(piece: Piece, edge: Edge) -> ValueRef | ValueSlice | Known:
    """Return a source's value; a source that has none gives its exception, if asked, or None."""
    if not isinstance(piece, RunOutcome):
        return piece
    if piece.value is not None and piece.state.type is StateType.COMPLETED:
        return piece.value
    if edge.allow_failure and piece.failed:
        return Known(piece.failure())
    return Known(None)
