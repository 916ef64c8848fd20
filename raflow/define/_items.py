"""The items of a map: columns that are there, or that are read from iterators bit by bit."""

from __future__ import annotations

import contextvars
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from raflow import errors
from raflow.define._definition import Definition
from raflow.define._futures import BaseFuture
from raflow.define._lift import Lifter
from raflow.define._requests import Columns, FlowContext


class Cell(NamedTuple):
    """One of the things that `*rest` or `**options` take in a map."""

    label: str = ""
    """The column that it takes an item of; empty: it is the same for every item."""
    value: Any = None
    """What every item gets, without a column."""


class Group(NamedTuple):
    """What `*rest` or `**options` take in a map."""

    cells: tuple[Cell, ...]
    keys: tuple[str, ...] | None
    """Of `**options`; None for `*rest`."""

    @property
    def is_shared(self) -> bool:
        """Whether every item gets the same."""
        return not any(cell.label for cell in self.cells)

    def shared(self) -> Any:
        """Return what every item gets."""
        return self._row(cell.value for cell in self.cells)

    def column(self, columns: Mapping[str, Sequence[Any]], length: int) -> list[Any]:
        """Return what each item gets."""
        parts = (
            columns[cell.label] if cell.label else itertools.repeat(cell.value, length)
            for cell in self.cells
        )
        return [self._row(row) for row in zip(*parts, strict=True)]

    def _row(self, row: Iterable[Any]) -> Any:
        return tuple(row) if self.keys is None else dict(zip(self.keys, row, strict=True))


def by_parameter(
    columns: Mapping[str, Sequence[Any]], groups: Mapping[str, Group], length: int
) -> Columns:
    """Return the items, given the columns by the names that they have in the call.

    Args:
        columns: By parameter, and by what `Cell.label` tells.
        groups: By parameter.
        length: Of all columns.
    """
    inside = {cell.label for group in groups.values() for cell in group.cells}
    found = {label: column for label, column in columns.items() if label not in inside}
    found |= {name: group.column(columns, length) for name, group in groups.items()}
    return Columns(found, length)


class ItemStream:
    """Reads iterators as far as it is asked to; see `Stream`.

    They run in the context of the call: the flow that made it is the active one there.
    """

    def __init__(
        self,
        context: FlowContext,
        task: Definition,
        columns: Mapping[str, Sequence[Any]],
        iterators: Mapping[str, Iterator[Any]],
        groups: Mapping[str, Group],
    ) -> None:
        """Take what is zipped, by the names that it has in the call.

        Args:
            context: The flow that made the call.
            task: What is mapped, for errors.
            columns: Arguments whose items are there.
            iterators: Arguments whose items are to come.
            groups: What `*rest` and `**options` take; see `by_parameter`.
        """
        self._task = task
        self._columns = columns
        self._iterators = iterators
        self._groups = groups
        self._lifter = _NoFutures(context, task.owner)
        self._taken = 0
        self._around = contextvars.copy_context()

    def take(self, count: int) -> Columns:
        """Return the next items; see `Stream.take`."""
        return self._around.run(self._take, count)

    def _take(self, count: int) -> Columns:
        start, stop = self._taken, self._taken + count
        parts = {label: column[start:stop] for label, column in self._columns.items()}
        for label, iterator in self._iterators.items():
            items = list(itertools.islice(iterator, count))
            parts[label] = self._lifter.lift_each(items, label)
        lengths = {label: len(part) for label, part in parts.items()}
        length = min(lengths.values())
        if length < count:
            if len(set(lengths.values())) > 1:
                raise self._mismatch(lengths, count)
            # They may hold much, and the request is kept for as long as its items run.
            self._iterators = dict.fromkeys(self._iterators, iter(()))
        self._taken += length
        return by_parameter(parts, self._groups, length)

    def _mismatch(self, read: Mapping[str, int], count: int) -> errors.MappingLengthMismatchError:
        lengths = {label: self._taken + found for label, found in read.items()}
        lengths |= {label: len(column) for label, column in self._columns.items()}
        open_ended = {label for label in self._iterators if read[label] == count}
        return mismatch(self._task, lengths, open_ended)


class _NoFutures(Lifter):
    """Lifts items that must not depend on anything."""

    __slots__ = ()

    def depend(self, future: BaseFuture, *_: Any, **__: Any) -> NoReturn:
        raise errors.DefinitionError(
            f"{future._described} is, or is inside, an item of an iterator that {self._owner} is "
            "mapped over. An iterator is read while the flow runs, but what a call depends on must "
            "be known when it is made. Map over a list: `.map(list(items))`, or `[...]` in place "
            "of `(...)`."
        )


def mismatch(
    task: Definition, lengths: Mapping[str, int], open_ended: Iterable[str] = ()
) -> errors.MappingLengthMismatchError:
    """Return the error that says that the arguments of a map are not equally long.

    Args:
        task: What is mapped.
        lengths: By the names that the arguments have in the call.
        open_ended: Those that have more items than that; how many is not known.
    """
    told = ", ".join(
        f"{label}: {'at least ' if label in open_ended else ''}{length}"
        for label, length in lengths.items()
    )
    return errors.MappingLengthMismatchError(
        f"{task.owner}: the arguments of one map must be equally long, but their lengths are "
        f"{told}. Wrap what every item should get whole in `unmapped(...)`.",
        lengths=dict(lengths),
    )
