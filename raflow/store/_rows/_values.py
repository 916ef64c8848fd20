"""Parts that rows of several tables share: texts, numbers, JSON, states, errors, results, keys."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import orjson

from raflow import model

Row: TypeAlias = tuple[object, ...]
"""The values of a row, in the order of the columns of its table."""

_FLOW_KEY: Final = model.TaskRunKey(-1, -1)
_NO_ERROR: Final = (None,) * 4
_NO_RESULT: Final = (None,) * 9
_NO_CAUSE: Final = (None,) * 4


def text(value: str) -> str:
    r"""Return text that both databases can hold.

    PostgreSQL takes no NUL, and neither takes halves of surrogate pairs, which `os.fsdecode` makes;
    they become `\x00` and `\udc80`, written out.
    """
    if value.isascii():
        return value.replace("\0", "\\x00") if "\0" in value else value
    return value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def seconds(value: float) -> float:
    """Return a number that both databases can hold: SQLite takes NaN for NULL."""
    return float(value) if math.isfinite(value) else 0.0


def maybe_seconds(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def to_json(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        # Integers beyond 64 bits and halves of surrogate pairs, which orjson refuses.
        return json.dumps(value, default=str)


def from_json(value: str) -> Any:
    # Not orjson, which turns integers beyond 64 bits into floats.
    return json.loads(value)


def state(state: model.State) -> Row:
    return state.name.value, seconds(state.at), text(state.message), text(state.reason)


def read_state(name: str, at: float, message: str, reason: str) -> model.State:
    return model.State(name=model.StateName(name), at=at, message=message, reason=reason)


def error(error: model.ErrorInfo | None) -> Row:
    if error is None:
        return _NO_ERROR
    return text(error.type), text(error.message), text(error.traceback), error.pickled


def read_error(row: Sequence[Any]) -> model.ErrorInfo | None:
    kind, message, traceback, pickled = row
    if kind is None:
        return None
    return model.ErrorInfo(type=kind, message=message, traceback=traceback, pickled=pickled)


def cause(cause: model.Cause | None) -> Row:
    if cause is None:
        return _NO_CAUSE
    facts = {
        "host": text(cause.host),
        "pid": cause.pid,
        "node_id": text(cause.node_id),
        "peak_memory": cause.peak_memory,
        "facts": dict(cause.facts),
    }
    return text(cause.kind), cause.signal, cause.exit_code, to_json(facts)


def read_cause(row: Sequence[Any]) -> model.Cause | None:
    kind, signal, exit_code, facts = row
    if kind is None:
        return None
    return model.Cause(kind=kind, signal=signal, exit_code=exit_code, **from_json(facts))


def result(result: model.ResultInfo | None) -> Row:
    if result is None:
        return _NO_RESULT
    return (
        text(result.type),
        result.size,
        text(result.preview),
        result.length,
        result.truth,
        result.serializer,
        result.inline,
        text(result.url),
        result.digest,
    )


def read_result(row: Sequence[Any]) -> model.ResultInfo | None:
    """Return the result that nine columns of a run describe; None if it has none."""
    kind, size, preview, length, truth, serializer, inline, url, digest = row
    if kind is None:
        return None
    return model.ResultInfo(
        type=kind,
        size=size,
        preview=preview,
        length=length,
        truth=truth,
        serializer=serializer,
        inline=inline,
        url=url,
        digest=digest,
    )


def key(key: model.TaskRunKey | None) -> model.TaskRunKey:
    return _FLOW_KEY if key is None else key


def read_key(node: int, map_index: int) -> model.TaskRunKey | None:
    return None if node < 0 else model.TaskRunKey(node, map_index)
