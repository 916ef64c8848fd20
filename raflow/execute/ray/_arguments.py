"""Takes the arguments of calls where the flow's body makes them."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import ray

from raflow import define, errors
from raflow._util import maker
from raflow.execute._backend import Packed
from raflow.execute._failure import message_of
from raflow.execute.ray._payload import INLINE_BYTES, freeze, freeze_copy
from raflow.model import PLAIN_TYPES

_FIXED: Final = (PLAIN_TYPES - {str}) | {define.Hole}
"""Cannot change, and are never large."""
_TEXT: Final = frozenset({str, bytes})
_SMALL: Final = 1024
"""Texts up to this length travel as they are."""
_COLUMN_TYPES: Final = PLAIN_TYPES | {bytes, define.Hole}
_packed: Final = maker(Packed)


def pack_arguments(
    task: str, arguments: Mapping[str, Any], check_alive: Callable[[str], None]
) -> Packed:
    """Take the arguments of a call as they are now.

    Args:
        task: Name of the task, for errors.
        arguments: By parameter name.
        check_alive: Raises if Ray is gone; given what could not be done then.

    Returns:
        The arguments themselves if all are small and cannot change; they are pickled with their
        batch. Else a pickle, which is an object of Ray's if it is large.

    Raises:
        UnserializableArgumentError: An argument cannot travel; names task and parameter.
    """
    for value in arguments.values():
        kind = type(value)
        if kind not in _FIXED and (kind not in _TEXT or len(value) > _SMALL):
            break
    else:
        return _packed((arguments,))
    try:
        frozen = freeze_copy(dict(arguments))
    except errors.RaflowError:
        raise  # a future where raflow cannot reach it says so itself
    except Exception as error:
        raise _unserializable(task, arguments, error) from error
    return _stored(task, frozen, check_alive)


def pack_items(
    task: str, columns: Mapping[str, Sequence[Any]], check_alive: Callable[[str], None]
) -> Packed:
    """Take the items of a chunk as they are now: one pickle of all columns.

    Args:
        task: Name of the task, for errors.
        columns: By parameter name; see `Session.pack_items`.
        check_alive: Raises if Ray is gone; given what could not be done then.

    Raises:
        UnserializableArgumentError: An argument cannot travel; names task and parameter.
    """
    if all(map(_is_plain, columns.values())):
        return _stored(task, pickle.dumps(dict(columns), protocol=5), check_alive)
    try:
        frozen = freeze_copy(dict(columns))
    except errors.RaflowError:
        raise
    except Exception as error:
        raise _unserializable_item(task, columns, error) from error
    return _stored(task, frozen, check_alive)


def _stored(task: str, frozen: object, check_alive: Callable[[str], None]) -> Packed:
    if isinstance(frozen, bytes) and len(frozen) <= INLINE_BYTES:
        return Packed(frozen)
    check_alive(f"Task {task!r}: its arguments cannot be stored")
    return Packed(ray.put(frozen))


def _is_plain(column: Sequence[Any]) -> bool:
    kind = type(column)
    if kind is range:
        return True
    return (kind is list or kind is tuple) and _COLUMN_TYPES.issuperset(map(type, column))


def _unserializable_item(
    task: str, columns: Mapping[str, Sequence[Any]], error: Exception
) -> errors.UnserializableArgumentError:
    for parameter, column in columns.items():
        for value in column:
            try:
                freeze(value)
            except Exception as reason:
                return _about(task, parameter, value, reason)
    return _about_all(task, error)


def _unserializable(
    task: str, arguments: Mapping[str, Any], error: Exception
) -> errors.UnserializableArgumentError:
    for parameter, value in arguments.items():
        try:
            freeze(value)
        except Exception as reason:
            return _about(task, parameter, value, reason)
    return _about_all(task, error)


def _about(
    task: str, parameter: str, value: object, reason: Exception
) -> errors.UnserializableArgumentError:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return errors.UnserializableArgumentError(
        f"Task {task!r}: the argument {parameter!r} is or holds a {kind}, which cannot be "
        f"sent to another process: {message_of(reason)}. Pass plain data, or what is "
        "needed to make the object inside the task (a path, a URL, parameters).",
        task=task,
        parameter=parameter,
        type=kind,
    )


def _about_all(task: str, error: Exception) -> errors.UnserializableArgumentError:
    return errors.UnserializableArgumentError(
        f"Task {task!r}: its arguments cannot be sent to another process: {message_of(error)}.",
        task=task,
    )
