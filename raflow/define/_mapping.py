"""One task over a sequence: what each item gets, and what all of them share."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Mapping, Sequence, Sized
from inspect import Parameter
from typing import TYPE_CHECKING, Any, NamedTuple

from raflow import errors
from raflow.define._calls import Awaited, Condition, add_conditions
from raflow.define._futures import AllowFailure, BaseFuture, MapFuture, TaskFuture, Unmapped
from raflow.define._items import Cell, Group, ItemStream, by_parameter, mismatch
from raflow.define._lift import Lifter, may_hold
from raflow.define._requests import CallRequest, Columns, Dependency, FlowContext, Stream
from raflow.define._where import user_line
from raflow.model import EdgeKind, NodeKind, TaskOptions

if TYPE_CHECKING:
    from raflow.define._definition import Definition


def mapped_call(
    context: FlowContext,
    target: Definition,
    options: TaskOptions,
    arguments: Mapping[str, Any],
    *,
    wait_for: Awaited = None,
    run_if: Condition = None,
) -> MapFuture[Any]:
    """Make one call of a task per item.

    Raises:
        DefinitionError: No argument has items.
        MappingLengthMismatchError: They have different numbers of items.
    """
    inputs = _Inputs(Lifter(context, target.owner), target)
    for name, value in arguments.items():
        inputs.add(name, value)
    items = inputs.items(context)
    runnable = add_conditions(inputs.lifter, target.owner, wait_for, run_if)
    line = user_line(2)
    node, key = context.call(
        CallRequest(
            kind=NodeKind.MAP,
            target=target,
            options=options,
            arguments=inputs.shared,
            dependencies=inputs.lifter.dependencies,
            items=items,
            item_arguments=inputs.holes,
            runnable=runnable,
            line=line,
        )
    )
    length = len(items) if isinstance(items, Columns) else None
    return MapFuture(context, node, key, target.name, line, length)


class _Inputs:
    """The arguments of a mapped call, sorted into what is shared and what each item gets."""

    def __init__(self, lifter: Lifter, target: Definition) -> None:
        self.lifter = lifter
        self.shared: dict[str, Any] = {}
        self.holes: dict[str, Any] = {}
        self._target = target
        self._columns: dict[str, Sequence[Any]] = {}
        self._iterators: dict[str, _Given] = {}
        self._groups: dict[str, Group] = {}
        self._lengths: dict[str, int | None] = {}
        """In the order of the call; None for iterators."""

    def add(self, name: str, value: Any) -> None:
        kind = self._target.signature.parameters[name].kind
        if kind is Parameter.VAR_POSITIONAL:
            cells = (self._cell(name, f"{name}[{i}]", inner) for i, inner in enumerate(value))
            self._add_group(name, Group(tuple(cells), None))
        elif kind is Parameter.VAR_KEYWORD:
            cells = (self._cell(name, f"{name}[{key!r}]", inner) for key, inner in value.items())
            self._add_group(name, Group(tuple(cells), tuple(value)))
        else:
            self._add_one(name, value)

    def items(self, context: FlowContext) -> Columns | Stream | None:
        """Return what the body gave for each item; None if only values to come can tell.

        Raises:
            DefinitionError: No argument has items.
            MappingLengthMismatchError: They have different numbers of items.
        """
        if not (self._columns or self._iterators or self.holes):
            raise errors.DefinitionError(
                f"{self._target.owner}: `.map()` needs at least one argument with items, such as a "
                f"list, a range or a future of a list, but got only values that all items share: "
                f"{', '.join(self.shared) or 'none'}. Call the task itself to run it once."
            )
        if any(map(_is_of_items, self.lifter.dependencies)):
            for label, given in self._iterators.items():
                self._add_column(label, given)
            self._iterators.clear()
        lengths = {label: n for label, n in self._lengths.items() if n is not None}
        if len(set(lengths.values())) > 1:
            raise mismatch(self._target, lengths)
        if self._iterators:
            iterators = {label: iter(given.values) for label, given in self._iterators.items()}
            return ItemStream(
                context, self._target, self._columns, iterators, self._groups, self._lengths
            )
        length = next(iter(lengths.values()), None)
        return None if length is None else by_parameter(self._columns, self._groups, length)

    def _add_one(self, name: str, value: Any) -> None:
        inner, allow_failure = _bare(value)
        if isinstance(inner, BaseFuture):
            self.holes[name] = self.lifter.depend(
                inner, EdgeKind.ITEM, name, allow_failure=allow_failure
            )
            if isinstance(inner, MapFuture) and inner.known_length is not None:
                self._lengths[name] = inner.known_length
        elif has_items(inner):
            self._add_items(name, _Given(name, inner, allow_failure))
        else:
            self.shared[name] = self.lifter.lift(value, name)

    def _add_group(self, name: str, group: Group) -> None:
        if group.is_shared:
            self.shared[name] = group.shared()
        else:
            self._groups[name] = group

    def _cell(self, name: str, label: str, value: Any) -> Cell:
        inner, allow_failure = _bare(value)
        if isinstance(inner, MapFuture):
            inner = list(inner)
        if isinstance(inner, TaskFuture):
            raise errors.DefinitionError(
                f"{self._target.owner}: {label} cannot be mapped over a future of a list. Give "
                "it a parameter of its own in the task's signature."
            )
        if not has_items(inner):
            return Cell(value=self.lifter.lift(value, name))
        self._add_items(label, _Given(name, inner, allow_failure))
        return Cell(label)

    def _add_items(self, label: str, given: _Given) -> None:
        if isinstance(given.values, Sized):
            self._add_column(label, given)
            return
        iterator = iter(given.values)
        first = list(itertools.islice(iterator, 1))
        given = given._replace(values=itertools.chain(first, iterator))
        if self.lifter.finds_future(first):
            # `load.map(extract(r) for r in regions)`: what a call depends on is settled now.
            self._add_column(label, given)
        else:
            self._lengths[label] = None
            self._iterators[label] = given

    def _add_column(self, label: str, given: _Given) -> None:
        column = _numbers(given.values)
        if column is None:
            column = given.values if type(given.values) is tuple else list(given.values)
            if given.allow_failure and may_hold(column):
                column = [AllowFailure(value) for value in column]
            column = self.lifter.lift_each(column, given.parameter)
        self._columns[label] = column
        self._lengths[label] = len(column)


class _Given(NamedTuple):
    """An argument that has items."""

    parameter: str
    values: Iterable[Any]
    allow_failure: bool


def _numbers(values: Iterable[Any]) -> Sequence[Any] | None:
    """Return a range or a copy of an array of numbers; None for what may hold futures."""
    if isinstance(values, range):
        return values
    numpy = sys.modules.get("numpy")
    if numpy is not None and type(values) is numpy.ndarray:
        array: Any = values
        if array.ndim == 1 and not array.dtype.hasobject:
            return array.copy()  # type: ignore[no-any-return]  # a sequence in all but name
    return None


def _is_of_items(dependency: Dependency) -> bool:
    """Return whether single items wait for something: then all items must be known at the call."""
    return dependency.kind is EdgeKind.ITEM or dependency.target_item is not None


def _bare(value: Any) -> tuple[Any, bool]:
    return (value.value, True) if isinstance(value, AllowFailure) else (value, False)


def has_items(value: Any) -> bool:
    """Return whether a map goes through the value item by item.

    Texts, bytes, mappings, named tuples, models and tables are single values, although Python could
    go through them.
    """
    if isinstance(value, str | bytes | bytearray | memoryview | Mapping | Unmapped):
        return False
    if hasattr(value, "_fields") or hasattr(value, "columns"):
        return False
    if hasattr(type(value), "__pydantic_validator__"):
        return False
    return isinstance(value, Iterable) and getattr(value, "ndim", 1) > 0
