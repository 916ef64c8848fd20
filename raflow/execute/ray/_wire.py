"""What travels with a batch, as small as it can be."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from raflow.execute._attempt import Work
from raflow.execute._backend import (
    BatchSpec,
    Call,
    InputSource,
    Known,
    ListOf,
    Packed,
    Part,
    ValueRef,
)
from raflow.execute.ray._payload import Frozen, freeze


class Lifted(NamedTuple):
    """Stands for an object of Ray's, which travels as an argument of its own."""

    place: int


class Shelf(NamedTuple):
    """Stands for an object of Ray's that a process fetches only if it does not know it yet."""

    place: int


Carried: TypeAlias = bytes | Shelf
"""Something that processes keep: itself, or where to get it."""


class WireCall(NamedTuple):
    """A call, with references in place of objects."""

    work: Work
    function: str
    arguments: tuple[Frozen | Lifted, ...]
    inputs: Mapping[int, InputSource]
    """`ValueRef.handle` is the index of a lifted object, `Known.value` is frozen."""


class WireBatch(NamedTuple):
    """A batch, as its process gets it."""

    session: int
    batch: int
    environment_key: str
    environment: Carried
    functions: Mapping[str, Carried]
    calls: tuple[WireCall, ...]
    has_shelf: bool
    """Whether the last of the lifted objects is a list of ObjectRefs, which Ray leaves alone."""


class Packer:
    """Collects the objects of one batch."""

    def __init__(self) -> None:
        self._lifted: dict[Any, int] = {}
        self._shelf: dict[Any, int] = {}

    def pack(
        self, session: int, batch: BatchSpec, environment: tuple[str, object]
    ) -> tuple[object, ...]:
        """Return the arguments of `run_batch`; `environment` is its key and its payload."""
        functions = {call.function.key: self._carry(call.function.payload) for call in batch.calls}
        wire = WireBatch(
            session,
            batch.id,
            environment[0],
            self._carry(environment[1]),
            functions,
            tuple(self._call(call) for call in batch.calls),
            bool(self._shelf),
        )
        shelf = [list(self._shelf)] if self._shelf else []
        return (pickle.dumps(wire, protocol=5), *self._lifted, *shelf)

    def _call(self, call: Call) -> WireCall:
        return WireCall(
            Work.of(call),
            call.function.key,
            tuple(self._argument(packed) for packed in call.arguments),
            {hole: self._source(source) for hole, source in call.inputs.items()},
        )

    def _argument(self, packed: Packed) -> Frozen | Lifted:
        payload = packed.payload
        return payload if isinstance(payload, bytes) else Lifted(self._lift(payload))

    def _source(self, source: InputSource) -> InputSource:
        match source:
            case ValueRef(handle, position):
                return ValueRef(self._lift(handle), position)
            case Part(ValueRef(handle, position), index):
                return Part(ValueRef(self._lift(handle), position), index)
            case ListOf(items):
                return ListOf(tuple(self._item(item) for item in items))
            case Known(value):
                return Known(freeze(value))

    def _item(self, item: ValueRef | Known) -> ValueRef | Known:
        if isinstance(item, Known):
            return Known(freeze(item.value))
        return ValueRef(self._lift(item.handle), item.position)

    def _lift(self, handle: object) -> int:
        return self._lifted.setdefault(handle, len(self._lifted))

    def _carry(self, payload: object) -> Carried:
        if isinstance(payload, bytes):
            return payload
        return Shelf(self._shelf.setdefault(payload, len(self._shelf)))
