"""What fills the holes of a call's arguments, once the values are there."""

from __future__ import annotations

from collections.abc import Callable

from raflow.execute._backend import InputSource, Known, ListOf, Part, ValueRef


def resolve(
    source: InputSource,
    value_at: Callable[[ValueRef], object],
    known: Callable[[Known], object] = lambda known: known.value,
) -> object:
    """Return the value that a source stands for.

    Args:
        source: What stands in the place of a future.
        value_at: Returns the value of a reference.
        known: Returns the value of what the driver had.
    """
    match source:
        case ValueRef():
            return value_at(source)
        case Part(value, index):
            return value_at(value)[index]  # type: ignore[index]  # the engine saw a sequence
        case Known():
            return known(source)
        case ListOf(items):
            return [resolve(item, value_at, known) for item in items]
