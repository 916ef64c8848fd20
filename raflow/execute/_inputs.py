"""What fills the holes of a call's arguments, once the values are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from raflow.execute._backend import InputSource, Known, ListOf, Part, ValueRef


def resolve(source: InputSource, value_at: Callable[[ValueRef], object]) -> object:
    """Return the value that a source stands for."""
    match source:
        case ValueRef():
            return value_at(source)
        case Part(value, index):
            return value_at(value)[index]  # type: ignore[index]  # the engine saw a sequence
        case Known(value):
            return value
        case ListOf(items):
            return [resolve(item, value_at) for item in items]


def value_refs(inputs: Mapping[int, InputSource]) -> Iterator[ValueRef]:
    """Yield every reference that the inputs hold, in order."""
    for source in inputs.values():
        match source:
            case ValueRef():
                yield source
            case Part(value, _):
                yield value
            case ListOf(items):
                yield from (item for item in items if isinstance(item, ValueRef))
            case Known():
                pass
