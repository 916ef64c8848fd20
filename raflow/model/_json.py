"""JSON of what user code may have named: any text becomes some JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson


def to_json(content: object) -> bytes:
    """Return JSON; halves of surrogate pairs, which it cannot hold, are written out."""
    try:
        return orjson.dumps(content)
    except TypeError:
        return orjson.dumps(_without_halves(content))


def _without_halves(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_without_halves(key): _without_halves(item) for key, item in value.items()}
    if isinstance(value, Iterable):
        return [_without_halves(item) for item in value]
    return value
