"""Values that the record has: they stand where else the values stand that a batch has left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple, TypeAlias

import orjson

from raflow.execute import Kept, Known, ValueRef, ValueSlice
from raflow.model import UNKNOWN_TRUTH, Plain, ResultInfo, TaskRunBlock

Source: TypeAlias = ValueRef | ValueSlice | Known | Kept
"""What can travel to a worker process."""


class Told(NamedTuple):
    """What is on record of the values of neighbouring task runs."""

    plain: Sequence[Plain]
    """Those that are plain, None for the others."""
    results: Mapping[int, ResultInfo]
    """The others, by position."""
    labels: Mapping[int, str]
    """By position: names that the task made."""


class KeptValues:
    """The values of a block on record, by position; a handle like that of a batch's values."""

    def __init__(self, block: TaskRunBlock) -> None:
        """Take a block; it is read when a value is needed."""
        self._block = block

    @cached_property
    def _plain(self) -> Sequence[Plain]:
        values: list[Plain] = orjson.loads(self._block.plain) if self._block.plain else []
        return values

    def lacks(self, start: int, stop: int) -> list[int]:
        """Return the positions of the values that were not kept."""
        known = self._block.results
        return [p for p in sorted(known) if start <= p < stop and not known[p].serializer]

    def source(self, position: int) -> Known | Kept:
        """Return a value as something that can travel."""
        known = self._block.results.get(position)
        return Known(self._plain[position]) if known is None else Kept(known)

    def truths(self, start: int, stop: int) -> bytes:
        """Return for each value whether it is true, as `engine.Answer` has it."""
        found = bytearray(map(bool, self._plain[start:stop]))
        found.extend(bytes(stop - start - len(found)))
        for position, known in self._block.results.items():
            if start <= position < stop:
                found[position - start] = _truth(known)
        return bytes(found)

    def length(self, position: int) -> int | None:
        """Return the `len` of a value, where that is known."""
        known = self._block.results.get(position)
        return None if known is None else known.length

    def told(self, start: int, stop: int) -> Told:
        """Return what is on record of values, to be recorded again."""
        block = self._block
        plain = self._plain[start:stop]
        return Told(
            [*plain, *[None] * (stop - start - len(plain))],
            {p - start: block.results[p] for p in block.results if start <= p < stop},
            {p - start: block.labels[p] for p in block.labels if start <= p < stop},
        )


class KeptValue:
    """One value on record; a handle like that of a value that is an object of its own."""

    def __init__(self, info: ResultInfo, label: str = "") -> None:
        """Take what is known about it, and the name of its task run if the task made one."""
        self._info = info
        self._label = label

    def lacks(self, start: int, stop: int) -> list[int]:
        """Return its position if it was not kept."""
        return [] if self._info.serializer else list(range(start, stop))

    def source(self, _: int) -> Kept:
        """Return the value as something that can travel."""
        return Kept(self._info)

    def truths(self, *_: int) -> bytes:
        """Return whether it is true, as `engine.Answer` has it."""
        return bytes([_truth(self._info)])

    def length(self, _: int) -> int | None:
        """Return its `len`, where that is known."""
        return self._info.length

    def told(self, *_: int) -> Told:
        """Return what is on record of it, to be recorded again."""
        return Told([None], {0: self._info}, {0: self._label} if self._label else {})


OnRecord: TypeAlias = KeptValues | KeptValue


def sources(found: ValueRef | ValueSlice | Known) -> Sequence[Source]:
    """Return values as something that can travel: those on record are read where they are used."""
    if isinstance(found, Known) or not isinstance(found.handle, KeptValues | KeptValue):
        return (found,)
    if isinstance(found, ValueRef):
        return (found.handle.source(found.position),)
    return [found.handle.source(position) for position in range(found.start, found.stop)]


def is_on_record(found: ValueRef | ValueSlice) -> bool:
    """Tell whether the record has a value, and not a backend."""
    return isinstance(found.handle, KeptValues | KeptValue)


def _truth(info: ResultInfo) -> int:
    return UNKNOWN_TRUTH if info.truth is None else int(info.truth)
