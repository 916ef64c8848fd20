"""What is known about values that stand together in one JSON array."""

from __future__ import annotations

import hashlib
import sys
from typing import Final, TypeAlias

import orjson

from raflow.model._options import Serializer
from raflow.model._report import ResultInfo

PREVIEW_LIMIT: Final = 240
"""Longest preview of a value, in characters."""

Plain: TypeAlias = bool | int | float | str | None
"""A value of `PLAIN_TYPES`."""


def describe_plain(value: Plain) -> ResultInfo:
    """Return what a keeper of results says about a plain value that JSON gives back exactly."""
    data = orjson.dumps(value)
    cls = type(value)
    return ResultInfo(
        type=f"{cls.__module__}.{cls.__qualname__}",
        size=sys.getsizeof(value),
        preview=_preview(value),
        truth=bool(value),
        serializer=Serializer.JSON.value,
        inline=data,
        digest=hashlib.sha256(data).hexdigest(),
    )


def _preview(value: Plain) -> str:
    long = isinstance(value, str) and len(value) > PREVIEW_LIMIT
    text = repr(value[:PREVIEW_LIMIT]) + "…" if long else repr(value)  # type: ignore[index]  # a text
    return text if len(text) <= PREVIEW_LIMIT else text[: PREVIEW_LIMIT - 1] + "…"
