"""Taking futures out of arguments, and putting values in their places."""

from __future__ import annotations

import copy
import dataclasses
import functools
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from typing import Any, Final

from raflow import errors
from raflow.define._futures import AllowFailure, BaseFuture, Unmapped
from raflow.define._misuse import NotAValue
from raflow.define._requests import Dependency, FlowContext, Hole
from raflow.model import PLAIN_TYPES, EdgeKind

_Change = Callable[[Any], Any]

_STAND_INS: Final = (NotAValue, AllowFailure, Unmapped)
_KEEP: Final = object()
_PLAIN: Final = PLAIN_TYPES | {bytes}
"""What most arguments are, and nothing can be inside of."""
_CONTAINERS: Final = (list, tuple, set, frozenset)


class Lifter:
    """Takes the futures out of the arguments of one call and lists what the call depends on."""

    __slots__ = ("_context", "_edges", "_owner")

    def __init__(self, context: FlowContext, owner: str) -> None:
        """Begin a call.

        Args:
            context: Whose futures may be used.
            owner: What is called, for errors.
        """
        self._context = context
        self._owner = owner
        self._edges: dict[Dependency, int] = {}

    @property
    def dependencies(self) -> tuple[Dependency, ...]:
        """What the call depends on so far, in the order of `Hole.edge`."""
        return tuple(self._edges)

    def finds_future(self, value: Any) -> bool:
        """Return whether the value holds a future, without taking note of it."""
        probe = Lifter(self._context, self._owner)
        probe.lift(value, "")
        return bool(probe.dependencies)

    def lift(self, value: Any, parameter: str, *, target_item: int | None = None) -> Any:
        """Return the value with a `Hole` in place of each future inside.

        What holds no future is returned as it is, not copied.

        Args:
            value: An argument.
            parameter: The parameter it is given for.
            target_item: The item of a map that it belongs to. Default: no map, or all items.

        Raises:
            DefinitionError: A future belongs to another flow run.
        """
        if type(value) in _PLAIN:
            return value
        if isinstance(value, BaseFuture):
            return self.depend(value, EdgeKind.DATA, parameter, target_item=target_item)
        if not _holds(value, _STAND_INS):
            return value
        return self._lift(value, parameter, target_item, allow_failure=False)

    def lift_each(self, values: Sequence[Any], parameter: str) -> Sequence[Any]:
        """Lift the items of a map, in order."""
        if not may_hold(values):
            return values
        return [self.lift(value, parameter, target_item=i) for i, value in enumerate(values)]

    def depend(
        self,
        future: BaseFuture,
        kind: EdgeKind,
        parameter: str = "",
        *,
        target_item: int | None = None,
        allow_failure: bool = False,
    ) -> Hole:
        """Note that the call depends on a future; return what stands for its value."""
        if future._context is not self._context:
            raise errors.DefinitionError(
                f"{future._described} was passed to {self._owner}, but it belongs to another flow "
                "run. A future is known only in the flow that made the call; return its value "
                "from there instead."
            )
        edge = Dependency(future._node, kind, parameter, future._item, target_item, allow_failure)
        return Hole(self._edges.setdefault(edge, len(self._edges)))

    def _lift(
        self, value: Any, parameter: str, target_item: int | None, *, allow_failure: bool
    ) -> Any:
        def replaced(inner: Any) -> Any:
            if isinstance(inner, BaseFuture):
                return self.depend(
                    inner,
                    EdgeKind.DATA,
                    parameter,
                    target_item=target_item,
                    allow_failure=allow_failure,
                )
            if isinstance(inner, AllowFailure):
                return self._lift(inner.value, parameter, target_item, allow_failure=True)
            if isinstance(inner, Unmapped):
                return self._lift(inner.value, parameter, target_item, allow_failure=allow_failure)
            return _KEEP

        return _mended(value, replaced)


def fill(arguments: Mapping[str, Any], values: Mapping[int, Any]) -> Mapping[str, Any]:
    """Put values where the futures of a call were; the opposite of lifting.

    Args:
        arguments: By parameter name, with `Hole`s inside.
        values: What belongs in the holes, by `Hole.edge`.

    Returns:
        The arguments, with copies of the containers that had holes. Dataclasses and pydantic models
        are not validated again.
    """
    if not values:
        return arguments

    def replaced(inner: Any) -> Any:
        return values[inner.edge] if type(inner) is Hole else _KEEP

    return {
        name: _mended(value, replaced) if _holds(value, (Hole,)) else value
        for name, value in arguments.items()
    }


def _holds(value: Any, kinds: tuple[type, ...]) -> bool:
    """Return whether something of these kinds is inside, or is the value itself."""
    if _is_plain(value):
        return False
    if isinstance(value, kinds):
        return True
    inside = _inside(value)
    try:
        return may_hold(inside) and any(_holds(inner, kinds) for inner in inside)
    except RecursionError:  # a container that holds itself: `_mended` copes with it
        return True


def _inside(value: Any) -> Collection[Any]:
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, _CONTAINERS):
        return value
    if dataclasses.is_dataclass(value):
        return _fields(value).values()
    return [*value.__dict__.values(), *(value.__pydantic_extra__ or {}).values()]


def _mended(value: Any, replaced: _Change) -> Any:
    """Return a copy of nested containers in which some of the things inside are replaced.

    Args:
        value: The outermost container, or anything else.
        replaced: Returns what belongs in the place of a thing, or `_KEEP`.
    """
    around: set[int] = set()

    def change(inner: Any) -> Any:
        if _is_plain(inner):
            return inner
        new = replaced(inner)
        if new is not _KEEP:
            return new
        if id(inner) in around:  # a container that holds itself
            return inner
        around.add(id(inner))
        try:
            return _rebuilt(inner, change)
        finally:
            around.remove(id(inner))

    return change(value)


def _rebuilt(value: Any, change: _Change) -> Any:
    """Return a container with changed insides; the same object if nothing in it changes."""
    if isinstance(value, list):
        return _rebuilt_list(value, change)
    if isinstance(value, dict):
        return _rebuilt_dict(value, change)
    if isinstance(value, tuple):
        return _rebuilt_tuple(value, change)
    if isinstance(value, set | frozenset):
        return _rebuilt_set(value, change)
    if dataclasses.is_dataclass(value):
        return _rebuilt_dataclass(value, change)
    return _rebuilt_model(value, change)


def _is_plain(value: object) -> bool:
    return _is_leaf(type(value))  # type: ignore[arg-type]  # a class can be hashed


@functools.lru_cache(maxsize=4096)
def _is_leaf(cls: type) -> bool:
    """Return whether nothing can be inside objects of a class."""
    if issubclass(cls, list | dict | tuple | set | frozenset | NotAValue):
        return False
    # No model can exist before pydantic is imported, and importing it takes long.
    pydantic = sys.modules.get("pydantic")
    is_model = pydantic is not None and issubclass(cls, pydantic.BaseModel)
    return not (is_model or dataclasses.is_dataclass(cls))


def may_hold(values: Iterable[Any]) -> bool:
    """Return whether a future can be one of the values, or inside one; fast for millions of them.

    Args:
        values: Something that can be gone through twice.
    """
    if _PLAIN.issuperset(map(type, values)):
        return False
    return not all(map(_is_leaf, set(map(type, values))))


def _rebuilt_list(value: list[Any], change: _Change) -> list[Any]:
    if not may_hold(value):
        return value
    new = [change(item) for item in value]
    if all(a is b for a, b in zip(new, value, strict=True)):
        return value
    if type(value) is list:
        return new
    copied = copy.copy(value)
    copied[:] = new
    return copied


def _rebuilt_dict(value: dict[Any, Any], change: _Change) -> dict[Any, Any]:
    if not may_hold(value.values()):
        return value
    new = {key: change(item) for key, item in value.items()}
    if all(new[key] is item for key, item in value.items()):
        return value
    if type(value) is dict:
        return new
    copied = copy.copy(value)
    copied.update(new)
    return copied


def _rebuilt_tuple(value: tuple[Any, ...], change: _Change) -> tuple[Any, ...]:
    if not may_hold(value):
        return value
    new = [change(item) for item in value]
    if all(a is b for a, b in zip(new, value, strict=True)):
        return value
    return tuple(new) if type(value) is tuple else tuple.__new__(type(value), new)


def _rebuilt_set(value: Set[Any], change: _Change) -> Set[Any]:
    if not may_hold(value):
        return value
    old = list(value)
    new = [change(item) for item in old]
    if all(a is b for a, b in zip(new, old, strict=True)):
        return value
    return type(value)(new)  # type: ignore[call-arg]  # every set can be made from a list


def _rebuilt_dataclass(value: Any, change: _Change) -> Any:
    old = _fields(value)
    new = _rebuilt_dict(old, change)
    if new is old:
        return value
    copied = copy.copy(value)
    for name, inner in new.items():
        object.__setattr__(copied, name, inner)  # also where the class is frozen
    return copied


def _fields(value: Any) -> dict[str, Any]:
    names = (field.name for field in dataclasses.fields(value))
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _rebuilt_model(value: Any, change: _Change) -> Any:
    attributes, extra = value.__dict__, value.__pydantic_extra__ or {}
    new, new_extra = _rebuilt_dict(attributes, change), _rebuilt_dict(extra, change)
    if new is attributes and new_extra is extra:
        return value
    copied = value.model_copy()
    copied.__dict__.update(new)
    if new_extra is not extra:
        object.__setattr__(copied, "__pydantic_extra__", new_extra)
    return copied
