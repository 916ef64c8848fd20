"""What all forms of the wire share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Generic, TypeVar

import pydantic
from pydantic import BaseModel, ConfigDict, Field

_LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
T = TypeVar("T")

Limit = Annotated[int, Field(ge=1, le=200)]
"""How many things a page holds."""


class Out(BaseModel):
    """What the server answers."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="null")


class In(BaseModel):
    """What the server takes: nothing that it would ignore."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Page(Out, Generic[T]):
    """A part of a list."""

    items: list[T]
    next_cursor: str | None = None
    """What to ask the next page with; null: this is the last one."""


class Problem(Out):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    """For people: what happened, to which thing, and what to do."""
    code: str
    """For programs; it stays the same."""
    instance: str
    """The id of the request, as in `X-Request-Id` and in the log of the server."""
    errors: list[dict[str, Any]] | None = None
    closest: list[str] | None = None
    retry_after: int | None = None


def moment(seconds: float) -> datetime:
    """Return a time as the wire has it."""
    return datetime.fromtimestamp(min(max(seconds, 0.0), _LATEST), UTC)


def maybe_moment(seconds: float | None) -> datetime | None:
    """Return a time as the wire has it, if there is one."""
    return None if seconds is None or not math.isfinite(seconds) else moment(seconds)


def plain(value: Any) -> Any:
    """Return JSON that every client can read: no halves of surrogate pairs, no NaN."""
    if isinstance(value, str):
        return value if value.isascii() else text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {text(str(name)): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value


def text(value: str) -> str:
    """Return a text without halves of surrogate pairs."""
    return value.encode("utf-8", "backslashreplace").decode()


Text = Annotated[str, pydantic.AfterValidator(text)]
