"""Dataclasses as JSON, and back: what the service and its clients say besides records."""

from __future__ import annotations

import base64
import dataclasses
import functools
import json
from collections.abc import Hashable, Iterable, Mapping
from enum import Enum
from typing import Any, Final, TypeVar, cast

import orjson

from raflow.model._origin import RunOrigin

T = TypeVar("T")

_LARGEST: Final = 2**63


def dump_json(value: object) -> bytes:
    """Return JSON of dataclasses, and of whatever they hold; bytes stand in base64."""
    try:
        return orjson.dumps(value, default=_plain)
    except TypeError:
        # Integers beyond 64 bits, or halves of surrogate pairs, which no JSON can hold.
        return json.dumps(_written_out(value)).encode()


def load_json(kind: type[T], data: bytes, *, strict: bool = False) -> T:
    """Return what `dump_json` wrote.

    Args:
        kind: What it is; also `list[X]`.
        data: The JSON.
        strict: Whether it comes from a stranger: unknown fields and numbers that no database holds
            are refused. Default: no, so that a newer version may send more.

    Raises:
        ValueError: It is something else.
    """
    found = _adapter(cast("Hashable", kind), strict).validate_json(data)
    if found is None:
        raise ValueError("There is nothing, where something should be.")
    if strict:
        _check_numbers(found)
    return cast("T", found)


@functools.lru_cache(maxsize=256)
def _adapter(kind: Any, strict: bool) -> Any:
    # Imported only here: a run that nobody records elsewhere has no use for it.
    import pydantic  # noqa: PLC0415

    config = pydantic.ConfigDict(
        val_json_bytes="base64",
        extra="forbid" if strict else "ignore",
        allow_inf_nan=not strict,
    )
    # As an option, because pydantic takes no configuration for what is a dataclass itself.
    adapter = pydantic.TypeAdapter(kind | None, config=config)
    # What records name in type-checking blocks only, as few of them ever hold it.
    adapter.rebuild(_types_namespace={"RunOrigin": RunOrigin})
    return adapter


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _written_out(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: _written_out(getattr(value, field.name)) for field in fields}
    if isinstance(value, Mapping):
        return {str(_written_out(key)): _written_out(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Iterable) and not isinstance(value, bytes):
        return [_written_out(item) for item in value]
    return _plain(value)


def _check_numbers(value: object) -> None:
    if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        raise ValueError(f"{value!r:.40} is no integer of 64 bits.")
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _check_numbers(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for item in value.values():
            _check_numbers(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_numbers(item)
