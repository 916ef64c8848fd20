"""The values that fill the holes in the arguments of a batch's calls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from raflow import errors
from raflow.execute._backend import (
    EachOf,
    EachPart,
    InBatch,
    InputSource,
    Kept,
    Known,
    ListOf,
    Part,
    ResultKeeper,
    TaskFunction,
    ValueRef,
    ValueSlice,
)
from raflow.execute._failure import message_of
from raflow.model import PLAIN_TYPES, ResultInfo

LEAVES: Final = PLAIN_TYPES | {bytes}
"""Types of values that hold nothing and never change: giving them out twice is harmless."""


class Loader(Protocol):
    """Turns what travelled with a batch into objects."""

    def function(self, handle: Any) -> TaskFunction:
        """Return the function of a job."""

    def arguments(self, payload: Any) -> Mapping[str, Any]:
        """Return the arguments, or columns of arguments, of a job."""

    def object(self, handle: Any) -> Any:
        """Return what a handle stands for: a list of entries, or (position -1) one entry."""


class NotThereError(Exception):
    """An input is the value of an earlier call of the batch, and that call did not complete."""


class GoneError(Exception):
    """A kept value cannot be read."""


class InputsLostError(Exception):
    """Inputs of a call are gone."""

    def __init__(self, edges: tuple[int, ...], message: str) -> None:
        super().__init__(message)
        self.edges = edges


class Column(NamedTuple):
    """What an input gives to each call of a chunk."""

    items: Sequence[Any]
    frozen: bool
    """Whether they are entries, which must be thawed, or already values."""


class Inputs:
    """Makes values of input sources; a list used by many calls of a batch is made once."""

    def __init__(
        self,
        loader: Loader,
        thaw: Callable[[Any], object],
        in_batch: Callable[[int], object],
        read: Callable[[ResultInfo], object],
    ) -> None:
        """Begin a batch.

        Args:
            loader: Knows what handles stand for.
            thaw: Makes a new value of an entry.
            in_batch: Returns the value of an earlier call of the batch, or raises `NotThereError`.
            read: Reads a value that was kept.
        """
        self._loader = loader
        self._thaw = thaw
        self._in_batch = in_batch
        self._read = read
        self._sequences: dict[ValueRef | Kept, Any] = {}
        self._given: defaultdict[ValueRef | Kept, set[int]] = defaultdict(set)

    def value(self, source: InputSource) -> object:
        """Return the value that a source stands for, for one call or for all of a chunk.

        Raises:
            NotThereError: It is the value of a call that did not complete.
            GoneError: It was kept, and cannot be read.
        """
        match source:
            case ValueRef() | Kept():
                return self.thaw(self._entry(source))
            case InBatch(position):
                return self._in_batch(position)
            case Part(ref, item):
                return self._items(ref, range(item, item + 1))[0]
            case Known(value):
                return self.thaw(value)
            case ListOf(items):
                return [self.thaw(entry) for entry in self._entries(items)]
        raise AssertionError(f"{type(source).__name__} is another value for each call")

    def column(self, source: EachOf | EachPart, size: int) -> Column:
        """Return what a source gives to each call of a chunk of this size."""
        if isinstance(source, EachOf):
            return Column(self._entries(source.items), frozen=True)
        wanted = range(source.start, source.start + size)
        if isinstance(source.value, Known):
            return Column(_take(self.thaw(source.value.value), wanted), frozen=False)
        return Column(self._items(source.value, wanted), frozen=False)

    def thaw(self, entry: object) -> object:
        """Return the value of an entry.

        Raises:
            GoneError: It was kept, and cannot be read.
        """
        if type(entry) in PLAIN_TYPES:
            return entry
        return self._read_kept(entry.info) if type(entry) is Kept else self._thaw(entry)

    def _read_kept(self, info: ResultInfo) -> object:
        try:
            return self._read(info)
        except Exception as error:
            raise GoneError(f"{type(error).__name__}: {message_of(error)}") from error

    def _entry(self, ref: ValueRef | Kept) -> object:
        if isinstance(ref, Kept):
            return ref
        found = self._loader.object(ref.handle)
        return found if ref.position < 0 else found[ref.position]

    def _entries(self, items: tuple[ValueRef | ValueSlice | Known | Kept, ...]) -> list[object]:
        entries: list[object] = []
        for item in items:
            match item:
                case ValueSlice(handle, start, stop):
                    entries += self._loader.object(handle)[start:stop]
                case ValueRef() | Kept():
                    entries.append(self._entry(item))
                case Known(value):
                    entries.append(value)
        return entries

    def _items(self, ref: ValueRef | Kept, wanted: range) -> Sequence[Any]:
        """Return items of a list; those that can change are given out only once."""
        given = self._given[ref]
        if ref not in self._sequences or not given.isdisjoint(wanted):
            self._sequences[ref] = self.thaw(self._entry(ref))
            given.clear()
        items = _take(self._sequences[ref], wanted)
        if not LEAVES.issuperset(map(type, items)):
            given.update(wanted)
        return items


def read_kept(kept: Kept, keeper: ResultKeeper) -> object:
    """Read a value in the driver.

    Raises:
        BackendError: It cannot be read.
    """
    try:
        return keeper.read(kept.info)
    except Exception as error:
        raise unreadable(error) from error


def unreadable(error: Exception) -> errors.BackendError:
    """Say in the driver that a kept value is gone."""
    return errors.BackendError(f"A value that was kept cannot be read: {message_of(error)}")


def _take(sequence: Any, wanted: range) -> Sequence[Any]:
    if isinstance(sequence, list | tuple):
        return sequence[wanted.start : wanted.stop]
    return [sequence[item] for item in wanted]
