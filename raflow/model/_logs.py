"""Log lines and their compressed form, which worker, recorder, store and CLI share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import orjson
import zstandard

from raflow.model._compressed import decompress

_LEVEL: Final = 3


class LogLine(NamedTuple):
    """One line that a task or a flow's body wrote."""

    at: float
    """Seconds since the Unix epoch."""
    level: int
    """As `logging` numbers them; stdout counts as INFO (20), stderr as WARNING (30)."""
    source: str
    """`stdout`, `stderr`, or the name of the logger."""
    text: str
    """Without the line end."""


def encode_log(lines: Sequence[LogLine]) -> bytes:
    """Compress lines into a segment; no lines give no bytes."""
    if not lines:
        return b""
    raw = orjson.dumps([tuple(line) for line in lines])
    return zstandard.ZstdCompressor(level=_LEVEL).compress(raw)


def decode_log(segment: bytes) -> list[LogLine]:
    """Return the lines of a segment that `encode_log` made.

    Raises:
        BatchError: It is damaged, or too large to be one.
    """
    if not segment:
        return []
    return [LogLine(*fields) for fields in orjson.loads(decompress(segment, "a log segment"))]
