"""Brings values to the driver that the flow's body asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import ray

from raflow import errors
from raflow.execute._backend import Kept, Known, ListOf, Part, ResultKeeper, ValueRef, ValueSlice
from raflow.execute._inputs import read_kept
from raflow.execute.ray._losses import classify
from raflow.execute.ray._payload import thaw
from raflow.execute.ray._wire import Mailed
from raflow.model import PLAIN_TYPES

_PROBE_SECONDS: Final = 2.0
_LONGEST_WAIT: Final = 60.0
_AT_ONCE: Final = 256
"""So many objects are asked for together: their values exist twice until they are unpickled."""


def fetch_value(
    source: ValueRef | Part | Known | Kept | ListOf,
    keeper: ResultKeeper,
    check_alive: Callable[[str], None],
) -> object:
    """Return the value that a source stands for; arrays are read-only views of Ray's memory.

    Args:
        source: What is wanted.
        keeper: Reads what was kept.
        check_alive: Raises if Ray is gone; given what could not be done then.

    Raises:
        BackendError: The value is gone, or a kept one cannot be read.
    """
    match source:
        case Known(value):
            return value
        case Kept():
            return read_kept(source, keeper)
        case Part(Kept() as kept, item):
            whole: Any = read_kept(kept, keeper)
            return whole[item]
        case ValueRef(handle, position):
            return _entry(_get([handle], check_alive)[handle], position)
        case Part(ValueRef(handle, position), item):
            sequence: Any = _entry(_get([handle], check_alive)[handle], position)
            return sequence[item]
        case ListOf(items):
            return list(_listed(items, keeper, check_alive))
    raise AssertionError(f"{source!r} cannot be fetched")


def _listed(
    items: tuple[ValueRef | ValueSlice | Known | Kept, ...],
    keeper: ResultKeeper,
    check_alive: Callable[[str], None],
) -> Iterator[object]:
    objects: Mapping[Any, Any] = {}
    for index, item in enumerate(items):
        if isinstance(item, Known):
            yield item.value
            continue
        if isinstance(item, Kept):
            yield read_kept(item, keeper)
            continue
        if item.handle not in objects:
            objects = _get(_next_handles(items, index), check_alive)
        found = objects[item.handle]
        if isinstance(item, ValueRef):
            yield _entry(found, item.position)
        else:
            for entry in found[item.start : item.stop]:
                yield entry if type(entry) in PLAIN_TYPES else thaw(entry)


def _next_handles(items: tuple[ValueRef | ValueSlice | Known | Kept, ...], index: int) -> list[Any]:
    """Return the handles that the next items need, each once."""
    handles: dict[Any, None] = {}
    for position in range(index, len(items)):
        item = items[position]
        if isinstance(item, ValueRef | ValueSlice):
            handles[item.handle] = None
            if len(handles) >= _AT_ONCE:
                break
    return list(handles)


def _entry(found: Any, position: int) -> object:
    entry = found if position < 0 else found[position]
    return entry if type(entry) in PLAIN_TYPES else thaw(entry)


def _get(handles: list[Any], check_alive: Callable[[str], None]) -> Mapping[Any, Any]:
    """Return the objects of handles; Ray itself would wait for ever if it is gone."""
    found = {handle: handle.entries for handle in handles if isinstance(handle, Mailed)}
    asked = [handle for handle in handles if handle not in found]
    if not asked:
        return found
    patience = _PROBE_SECONDS
    while True:
        check_alive("A value cannot be fetched")
        try:
            return found | dict(zip(asked, ray.get(asked, timeout=patience), strict=True))
        except ray.exceptions.GetTimeoutError:
            # A transfer that takes longer may begin anew each time.
            patience = min(2 * patience, _LONGEST_WAIT)
        except ray.exceptions.RayError as error:
            check_alive("A value cannot be fetched")
            raise errors.BackendError(f"A value is gone: {classify(error).message}.") from error
