"""A job on its way: its function, and the arguments of one call after the other."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from raflow import define, errors
from raflow.execute._attempt import Site, Who
from raflow.execute._backend import CallSettings, EachOf, EachPart, InputSource, TaskFunction
from raflow.execute._failure import message_of
from raflow.execute._inputs import (
    LEAVES,
    Column,
    GoneError,
    Inputs,
    InputsLostError,
    Loader,
    NotThereError,
)
from raflow.execute._jobs import Items, Job, Singles
from raflow.model import PLAIN_TYPES

_log = logging.getLogger(__name__)


_PASSED_ON: Final = (NotThereError, InputsLostError, errors.Interruption, KeyboardInterrupt)
"""What may end the unpacking of arguments without being a fault in them."""


class NotWantedError(Exception):
    """The call's `run_if` returned a false value."""


class Work:
    """What the calls of a job have in common while they run."""

    __slots__ = (
        "_inputs",
        "_items",
        "_loader",
        "base",
        "function",
        "job",
        "settings",
        "site",
        "size",
    )

    def __init__(self, job: Job, base: int, loader: Loader, inputs: Inputs, site: Site) -> None:
        """Take a job whose first call has the position `base` in the batch."""
        self.job = job
        self.base = base
        self.size = job.size
        self.settings: CallSettings = job.settings
        self.site = site
        self.function: TaskFunction | None = None
        """There once it is prepared."""
        self._loader = loader
        self._inputs = inputs
        self._items: _ItemArguments | None = None

    def prepare(self) -> TaskFunction:
        """Load the function, and what the calls share.

        Raises:
            SerializationError: Something cannot be unpacked here.
            NotThereError: An input of all calls is missing.
            InputsLostError: An input of all calls is gone.
        """
        try:
            function = self._loader.function(self.job.function)
            if isinstance(self.job, Items):
                self._items = _ItemArguments(self.job, self._loader, self._inputs)
        except _PASSED_ON:
            raise
        except BaseException as error:
            raise self._not_unpacked(error, 0) from error
        self.function = function
        return function

    def rows(self, start: int) -> Iterator[Mapping[str, Any]]:
        """Return the arguments by name of the calls from an offset on.

        The iterator goes on after it has raised.
        """
        if self._items is None:
            return map(self._single, range(start, self.size))
        simple = self._items.simple_rows(start)
        return map(self._item, range(start, self.size)) if simple is None else simple

    def row(self, offset: int) -> Mapping[str, Any]:
        """Return the arguments by name of one call."""
        return self._single(offset) if self._items is None else self._item(offset)

    def who(self, offset: int) -> Who:
        """Say whose ending it is."""
        name = self.function.name if self.function else self.job.label(offset)
        timeout = self.settings.timeout_seconds
        return Who(name, self.function, timeout, self.site.pickling)

    def is_special(self) -> bool:
        """Tell whether there is more to a call than to pass arguments by name."""
        function = self.function
        assert function is not None
        hooks = function.run_if is not None or function.task_run_name is not None
        return hooks or function.form != _BY_NAME or self.settings.timeout_seconds is not None

    def ready(self, row: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the `(args, kwargs)` of a call.

        Raises:
            NotWantedError: The call is to be skipped.
        """
        function = self.function
        assert function is not None
        args, kwargs = function.form.apply(row)
        if function.run_if is not None and not function.run_if(*args, **kwargs):
            raise NotWantedError
        return args, kwargs

    def name(self, row: Mapping[str, Any]) -> str:
        """Return the name that the task gives to a run; empty if it gives none."""
        function = self.function
        assert function is not None
        if function.task_run_name is None:
            return ""
        try:
            return function.task_run_name(row)
        except Exception:
            _log.exception(
                "task_run_name of the task %r failed; the run keeps its default name", function.name
            )
            return ""

    def _single(self, offset: int) -> Mapping[str, Any]:
        job = self.job
        assert isinstance(job, Singles)
        index = job.first + offset
        payload = job.calls.arguments[index]
        try:
            row = payload if type(payload) is dict else self._loader.arguments(payload)
            holes = job.calls.inputs.get(index)
            if holes:
                return _fill(row, self._values(holes))
        except _PASSED_ON:
            raise
        except BaseException as error:
            raise self._not_unpacked(error, offset) from error
        return row

    def _values(self, holes: Mapping[int, InputSource]) -> dict[int, object]:
        """Return what belongs in the holes of a single call."""
        try:
            return {edge: self._inputs.value(source) for edge, source in holes.items()}
        except GoneError as error:
            lost = tuple(edge for edge, source in holes.items() if self._is_gone(source))
            raise InputsLostError(lost, str(error)) from error

    def _is_gone(self, source: InputSource) -> bool:
        try:
            self._inputs.value(source)
        except GoneError:
            return True
        except NotThereError:
            return False
        return False

    def _item(self, offset: int) -> Mapping[str, Any]:
        assert self._items is not None
        try:
            return self._items.row(offset)
        except _PASSED_ON:
            raise
        except BaseException as error:
            raise self._not_unpacked(error, offset) from error

    def _not_unpacked(self, error: BaseException, offset: int) -> errors.SerializationError:
        self.site.heed(error)
        shared = (
            ""
            if self._items or type(self.job) is not Items or self.size == 1
            else (f" of it, or of one of the {self.size - 1} others that were sent with it,")
        )
        return errors.SerializationError(
            f"Task {self.job.label(offset)!r}: its function or an argument{shared} could not be "
            f"unpacked on host {self.site.place.host!r}: {type(error).__name__}: "
            f"{message_of(error)}. If a "
            "module is missing there, install it on the cluster's nodes or send it with "
            "runtime_env."
        )


_BY_NAME = define.CallForm()


class _ItemArguments:
    """The arguments of the items of a chunk: what they share is made once."""

    def __init__(self, job: Items, loader: Loader, inputs: Inputs) -> None:
        self._inputs = inputs
        self._sources = job.inputs
        self._each: dict[int, Column] = {}
        for edge, source in job.inputs.items():
            if isinstance(source, EachOf | EachPart):
                with _edge(edge):
                    self._each[edge] = inputs.column(source, job.size)
        self._columns: dict[str, Sequence[Any]] = {}
        if job.items is not None:
            self._columns.update(loader.arguments(job.items))
        self._with_holes = {n for n, column in self._columns.items() if self._may_hold(column)}
        self._frozen: dict[str, tuple[int, Sequence[Any]]] = {}
        self._shared: dict[str, Any] = {}
        for name, value in loader.arguments(job.arguments).items():
            self._take(name, value)

    def simple_rows(self, start: int) -> Iterator[Mapping[str, Any]] | None:
        """Return the rows from an offset on, if nothing in them needs any care."""
        if self._with_holes or self._frozen:
            return None
        names = tuple(self._columns)
        shared = self._shared
        if not names:
            return itertools.repeat(shared)
        columns = [itertools.islice(column, start, None) for column in self._columns.values()]
        if shared:
            return map(lambda *row: {**shared, **dict(zip(names, row, strict=True))}, *columns)
        if len(names) > 1:
            return map(lambda *row: dict(zip(names, row, strict=True)), *columns)
        name = names[0]
        return ({name: value} for value in columns[0])

    def row(self, offset: int) -> Mapping[str, Any]:
        """Return the arguments of one item."""
        row = dict(self._shared)
        for name, column in self._columns.items():
            cell = column[offset]
            row[name] = self._filled(cell, offset) if name in self._with_holes else cell
        for name, (edge, entries) in self._frozen.items():
            with _edge(edge):
                row[name] = self._inputs.thaw(entries[offset])
        return row

    def _take(self, name: str, value: Any) -> None:
        """Decide about an argument that is alike for all items, as far as it is."""
        column = self._each.get(value.edge) if type(value) is define.Hole else None
        if column is None:
            self._shared[name] = self._filled(value, 0) if self._sources else value
        elif column.frozen and not PLAIN_TYPES.issuperset(map(type, column.items)):
            self._frozen[name] = (value.edge, column.items)
        else:
            self._columns[name] = column.items

    def _may_hold(self, column: Sequence[Any]) -> bool:
        return bool(self._sources) and not LEAVES.issuperset(map(type, column))

    def _filled(self, value: Any, offset: int) -> Any:
        values = _Values(self, offset)
        if type(value) is define.Hole:
            return values[value.edge]
        return define.fill({"value": value}, values)["value"]

    @property
    def edges(self) -> Collection[int]:
        """Holes that there may be."""
        return self._sources.keys()

    def value(self, edge: int, offset: int) -> object:
        """Return what belongs in a hole."""
        column = self._each.get(edge)
        with _edge(edge):
            if column is None:
                return self._inputs.value(self._sources[edge])
            item = column.items[offset]
            return self._inputs.thaw(item) if column.frozen else item


class _Values(Mapping[int, object]):
    """What belongs in the holes of one item, made when it is asked for."""

    def __init__(self, arguments: _ItemArguments, offset: int) -> None:
        self._arguments = arguments
        self._offset = offset

    def __getitem__(self, edge: int) -> object:
        return self._arguments.value(edge, self._offset)

    def __iter__(self) -> Iterator[int]:
        return iter(self._arguments.edges)

    def __len__(self) -> int:
        return len(self._arguments.edges)


@contextlib.contextmanager
def _edge(edge: int) -> Iterator[None]:
    """Say by which edge a value was to come that is gone."""
    try:
        yield
    except GoneError as error:
        raise InputsLostError((edge,), str(error)) from error


def _fill(row: Mapping[str, Any], values: Mapping[int, object]) -> Mapping[str, Any]:
    """Fill the holes of a single call; a future is most often an argument by itself."""
    filled = dict(row)
    direct = 0
    for name, value in row.items():
        if type(value) is define.Hole:
            filled[name] = values[value.edge]
            direct += 1
    return filled if direct == len(values) else define.fill(row, values)
