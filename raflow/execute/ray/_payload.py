"""How values, arguments and functions are written to travel between Ray's processes.

Everything goes through Ray's own copy of cloudpickle. It remembers the classes that it sends by
value, and another copy would make a second class of each: `isinstance` and `except` would then fail
where a value comes back.
"""

from __future__ import annotations

import importlib
import io
import pickle
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any, Final, TypeAlias

import ray.cloudpickle as ray_pickle

from raflow import define
from raflow.execute._failure import Pickling

Frozen: TypeAlias = bytes | tuple[bytes, list[pickle.PickleBuffer]]
"""A pickled value; large arrays stay beside it, so that readers share their memory."""

INLINE_BYTES: Final = 100 * 1024
"""Larger payloads become objects of Ray's; Ray itself sends no larger ones with a call."""

loads: Final[Callable[..., Any]] = ray_pickle.loads
"""Unpickles; only what a driver and its own worker processes wrote."""

_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes})


def freeze(value: object) -> Frozen:
    """Pickle a value where it leaves a task.

    Raises:
        Exception: Whatever pickling it raises.
    """
    if type(value) in _PLAIN:
        return pickle.dumps(value, protocol=5)
    buffers: list[pickle.PickleBuffer] = []
    data: bytes = ray_pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return (data, buffers) if buffers else data


def thaw(frozen: Frozen) -> Any:
    """Return a frozen value; arrays are read-only views of Ray's memory."""
    if isinstance(frozen, bytes):
        return loads(frozen)
    data, buffers = frozen
    return loads(data, buffers=buffers)


def freeze_result(value: object, last: bool) -> Frozen:
    """Pickle what a task returned, where other tasks may still run before it leaves the process.

    Args:
        value: What it returned.
        last: Nothing else will run: large arrays need not be copied.

    Raises:
        Exception: Whatever pickling it raises.
    """
    frozen = freeze(value)
    if isinstance(frozen, bytes):
        return frozen
    if size_of(frozen) <= INLINE_BYTES:
        return bytes(ray_pickle.dumps(value, protocol=5))
    return frozen if last else (frozen[0], [_fixed(buffer) for buffer in frozen[1]])


def thaw_here(frozen: Frozen) -> Any:
    """Return the value of an entry; arrays are read-only, wherever the entry comes from."""
    if isinstance(frozen, bytes):
        return loads(frozen)
    data, buffers = frozen
    return loads(data, buffers=[_read_only(buffer) for buffer in buffers])


def _fixed(buffer: pickle.PickleBuffer) -> pickle.PickleBuffer:
    raw = buffer.raw()
    return buffer if raw.readonly else pickle.PickleBuffer(bytes(raw))


def _read_only(buffer: Any) -> Any:
    raw = buffer.raw() if isinstance(buffer, pickle.PickleBuffer) else memoryview(buffer)
    return raw.toreadonly()


def size_of(frozen: Frozen) -> int:
    """Return how many bytes a frozen value takes."""
    if isinstance(frozen, bytes):
        return len(frozen)
    return len(frozen[0]) + sum(buffer.raw().nbytes for buffer in frozen[1])


def freeze_copy(value: object) -> Frozen:
    """Freeze a value that may change afterwards; what is large must be copied by the caller."""
    frozen = freeze(value)
    if isinstance(frozen, tuple) and size_of(frozen) <= INLINE_BYTES:
        return bytes(ray_pickle.dumps(value, protocol=5))
    return frozen


def dump_code(code: object) -> bytes:
    """Pickle a function of the user's, and what it refers to.

    Raises:
        Exception: Whatever pickling it raises.
    """
    file = io.BytesIO()
    pickler: Any = _CodePickler
    pickler(file, protocol=5).dump(code)
    return file.getvalue()


PICKLING: Final = Pickling(ray_pickle.dumps, loads)


class _CodePickler(ray_pickle.CloudPickler):
    """Sends a decorated function by the name of what the decorator made of it.

    cloudpickle looks a function up by its name, finds the Task instead, and would copy the function
    with all globals that it uses, locks and connections included.
    """

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is FunctionType:
            home = _home_of(obj)
            if home is not None:
                return _undecorated, home
        return super().reducer_override(obj)  # type: ignore[no-untyped-call]  # Ray's has no types


def _home_of(fn: FunctionType) -> tuple[str, str] | None:
    module = sys.modules.get(fn.__module__)
    if module is None or fn.__module__ in {"__main__", *ray_pickle.list_registry_pickle_by_value()}:
        return None
    found: object = module
    for part in fn.__qualname__.split("."):
        found = getattr(found, part, None)
    if isinstance(found, define.Definition) and found.fn is fn:
        return fn.__module__, fn.__qualname__
    return None


def _undecorated(module: str, qualname: str) -> Any:
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found.fn
