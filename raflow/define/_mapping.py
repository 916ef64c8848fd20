"""One task over a sequence: what each item gets, and what all of them share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from inspect import Parameter
from typing import TYPE_CHECKING, Any, overload

from raflow import errors
from raflow.define._calls import Awaited, Condition, add_conditions
from raflow.define._futures import AllowFailure, MapFuture, TaskFuture, Unmapped
from raflow.define._lift import Lifter
from raflow.define._requests import CallRequest, FlowContext
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
    length = inputs.length()
    runnable = add_conditions(inputs.lifter, target.owner, wait_for, run_if)
    line = user_line()
    node, key = context.call(
        CallRequest(
            kind=NodeKind.MAP,
            target=target,  # type: ignore[arg-type]  # a Task
            options=options,
            arguments=inputs.shared,
            dependencies=inputs.lifter.dependencies,
            items=None if length is None else Rows(inputs.columns, length),
            item_arguments=inputs.holes,
            runnable=runnable,
            line=line,
        )
    )
    return MapFuture(context, node, key, target.name, line, length)


class Rows(Sequence[Mapping[str, Any]]):
    """The items of a map as dicts that are made when they are asked for."""

    __slots__ = ("_columns", "_length")

    def __init__(self, columns: Mapping[str, Sequence[Any]], length: int) -> None:
        """Take equally long columns, by parameter name."""
        self._columns = columns
        self._length = length

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Mapping[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> Rows: ...

    def __getitem__(self, index: int | slice) -> Mapping[str, Any] | Rows:
        positions = range(self._length)[index]
        if isinstance(positions, range):
            columns = {name: column[index] for name, column in self._columns.items()}
            return Rows(columns, len(positions))
        return {name: column[positions] for name, column in self._columns.items()}


class _Inputs:
    """The arguments of a mapped call, sorted into what is shared and what each item gets."""

    def __init__(self, lifter: Lifter, target: Definition) -> None:
        self.lifter = lifter
        self.shared: dict[str, Any] = {}
        self.columns: dict[str, Sequence[Any]] = {}
        self.holes: dict[str, Any] = {}
        self._target = target
        self._lengths: dict[str, int] = {}

    def add(self, name: str, value: Any) -> None:
        kind = self._target.signature.parameters[name].kind
        if kind is Parameter.VAR_POSITIONAL:
            keyed = {f"{name}[{i}]": inner for i, inner in enumerate(value)}
            self._add_group(name, keyed, lambda cells: tuple(cells.values()))
        elif kind is Parameter.VAR_KEYWORD:
            self._add_group(name, value, dict)
        else:
            self._add_one(name, value)

    def length(self) -> int | None:
        """Return the number of items; None if only values to come can tell.

        Raises:
            DefinitionError: No argument has items.
            MappingLengthMismatchError: They have different numbers of items.
        """
        if not self._lengths and not self.holes:
            raise errors.DefinitionError(
                f"{self._target.owner}: `.map()` needs at least one argument with items, such as a "
                f"list, a range or a future of a list, but got only values that all items share: "
                f"{', '.join(self.shared) or 'none'}. Call the task itself to run it once."
            )
        if len(set(self._lengths.values())) > 1:
            told = ", ".join(f"{name}: {length}" for name, length in self._lengths.items())
            raise errors.MappingLengthMismatchError(
                f"{self._target.owner}: the arguments of one map must be equally long, but their "
                f"lengths are {told}. Wrap what every item should get whole in `unmapped(...)`.",
                lengths=dict(self._lengths),
            )
        return next(iter(self._lengths.values()), None)

    def _add_one(self, name: str, value: Any) -> None:
        inner, allow_failure = _bare(value)
        if isinstance(inner, TaskFuture | MapFuture):
            self.holes[name] = self.lifter.depend(
                inner, EdgeKind.ITEM, name, allow_failure=allow_failure
            )
            if isinstance(inner, MapFuture) and inner.known_length is not None:
                self._lengths[name] = inner.known_length
        elif has_items(inner):
            column = self._column(name, inner, allow_failure=allow_failure)
            self.columns[name] = column
            self._lengths[name] = len(column)
        else:
            self.shared[name] = self.lifter.lift(value, name)

    def _column(self, name: str, values: Iterable[Any], *, allow_failure: bool) -> Sequence[Any]:
        if isinstance(values, range):
            return values
        column = list(values)
        if allow_failure:
            column = [AllowFailure(value) for value in column]
        return self.lifter.lift_each(column, name)

    def _add_group(self, name: str, group: Mapping[str, Any], join: Any) -> None:
        """Add what `*rest` or `**options` take: each of them may have items of its own."""
        cells: dict[str, Any] = {}
        for key, value in group.items():
            inner, allow_failure = _bare(value)
            if isinstance(inner, MapFuture):
                inner = list(inner)
            if isinstance(inner, TaskFuture):
                raise errors.DefinitionError(
                    f"{self._target.owner}: {key} cannot be mapped over a future of a list. Give "
                    "it a parameter of its own in the task's signature."
                )
            if has_items(inner):
                cells[key] = self._column(name, inner, allow_failure=allow_failure)
                self._lengths[key] = len(cells[key])
            else:
                cells[key] = _Same(self.lifter.lift(value, name))
        if any(not isinstance(cell, _Same) for cell in cells.values()):
            length = self.length() or 0
            self.columns[name] = [
                join({key: cell[i] for key, cell in cells.items()}) for i in range(length)
            ]
        else:
            self.shared[name] = join({key: cell[0] for key, cell in cells.items()})


class _Same:
    """The same value at every position."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __getitem__(self, index: int) -> Any:
        return self._value


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
