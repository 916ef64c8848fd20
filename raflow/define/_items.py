"""The items of a map: columns that are there, or that are read from iterators bit by bit."""

from __future__ import annotations

import contextvars
import itertools
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, NoReturn

from raflow import errors
from raflow.define._definition import Definition
from raflow.define._futures import BaseFuture
from raflow.define._lift import Lifter
from raflow.define._requests import Columns, FlowContext

_Row = Sequence[Any]

_PATIENCE_SECONDS: Final = 0.05
"""How long items that have come wait for more to come."""
_END: Final = object()


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

    They run in the context of the call: the flow that made it is the active one there. They run on
    a thread beside whoever takes: an iterator may wait for anything, even for what becomes of the
    items that it gave, so these must go on meanwhile.
    """

    def __init__(
        self,
        context: FlowContext,
        task: Definition,
        columns: Mapping[str, Sequence[Any]],
        iterators: Mapping[str, Iterator[Any]],
        groups: Mapping[str, Group],
        order: Iterable[str],
    ) -> None:
        """Take what is zipped, by the names that it has in the call.

        Args:
            context: The flow that made the call.
            task: What is mapped, for errors.
            columns: Arguments whose items are there.
            iterators: Arguments whose items are to come.
            groups: What `*rest` and `**options` take; see `by_parameter`.
            order: Of all these arguments in the call, for errors.
        """
        self._columns = columns
        self._labels = tuple(iterators)
        self._groups = groups
        lifter = _NoFutures(context, task.owner)
        self._rows = _zipped(task, columns, iterators, tuple(order), lifter)
        self._taken = 0
        self._around = contextvars.copy_context()
        self._reader = threading.Thread()
        self._read: list[_Row] = []
        self._ended = False
        self._error: BaseException | None = None

    def take(self, count: int) -> Columns:
        """Return the next items; see `Stream.take`."""
        rows = self._next_rows(count)
        if not rows and self._error is not None:
            error, self._error = self._error, None
            raise error
        start, self._taken = self._taken, self._taken + len(rows)
        columns = {label: column[start : self._taken] for label, column in self._columns.items()}
        for position, label in enumerate(self._labels):
            columns[label] = [row[position] for row in rows]
        return by_parameter(columns, self._groups, len(rows))

    def _next_rows(self, count: int) -> Sequence[_Row]:
        """Wait until there are rows, and a little longer for all of them."""
        while True:
            if not (self._ended or self._reader.is_alive()):
                self._reader = threading.Thread(
                    target=self._around.run,
                    args=(self._read_rows, count),
                    name="raflow-iterator",
                    daemon=True,
                )
                self._reader.start()
            self._reader.join(_PATIENCE_SECONDS)
            ended = self._ended  # before the rows: none comes after it
            rows = self._read[:count]
            del self._read[: len(rows)]
            if rows or ended:
                return rows

    def _read_rows(self, count: int) -> None:
        try:
            for _ in range(count):
                row = next(self._rows, None)
                if row is None:
                    self._ended = True
                    return
                self._read.append(row)
        except BaseException as error:
            self._error = error
            self._ended = True


def _zipped(
    task: Definition,
    columns: Mapping[str, Sequence[Any]],
    iterators: Mapping[str, Iterator[Any]],
    order: Iterable[str],
    lifter: Lifter,
) -> Iterator[_Row]:
    """Go through iterators side by side, beside columns; see `ItemStream`.

    Raises:
        MappingLengthMismatchError: One of them ends early, or goes on for too long.
    """
    length = min(map(len, columns.values()), default=None)
    labels = tuple(iterators)
    rows = itertools.zip_longest(*iterators.values(), fillvalue=_END)
    end = (_END,) * len(labels)
    for count, row in enumerate(itertools.chain(rows, [end])):
        if count == length or id(_END) in map(id, row):
            break
        yield [*map(lifter.lift, row, labels)]
    longer = {label for label, item in zip(labels, row, strict=True) if item is not _END}
    if not longer and length in {None, count}:
        return
    lengths = {label: count + (label in longer) for label in iterators}
    lengths |= {label: len(column) for label, column in columns.items()}
    raise mismatch(task, {label: lengths[label] for label in order}, longer)


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
