"""Identifiers."""

from __future__ import annotations

import secrets
import time
import uuid
from typing import Final

_SHORT: Final = 12


def short_id(run_id: str) -> str:
    """Return the end of an id, which is random: enough for people and for the command line."""
    return run_id[-_SHORT:]


def new_id() -> str:
    """Return a new UUID of version 7 (RFC 9562): unique, and sorted by the time it was made.

    Python has `uuid.uuid7` from 3.14 on.
    """
    milliseconds = time.time_ns() // 1_000_000
    high = (milliseconds << 16) | (0x7 << 12) | secrets.randbits(12)
    low = (0b10 << 62) | secrets.randbits(62)
    return str(uuid.UUID(int=(high << 64) | low))
