"""Times as a person writes them: `--in 90s`, `--at 2026-01-31T02:30`."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta
from typing import Final

from raflow import errors

_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def begins_at(at: str | None, after: str | None) -> float | None:
    """Return when a run is to begin, in seconds since the epoch; None: now.

    Args:
        at: What `--at` says: a time of day, or a date and time; local unless it has a zone.
        after: What `--in` says: `90s`, `1h 30m`.

    Raises:
        ParameterError: One cannot be read, or both are given.
    """
    if at is not None and after is not None:
        raise errors.ParameterError("--at and --in both say when the run begins. Give one.")
    if at is not None:
        return _moment(at)
    return None if after is None else time.time() + _seconds(after)


def _seconds(text: str) -> float:
    parts = _SPAN.findall(text)
    if not parts or _SPAN.sub("", text).strip():
        raise errors.ParameterError(
            f"--in {text!r} is no length of time. Write 90s, 15m, 2h, 1d, or '1h 30m'."
        )
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def _moment(text: str) -> float:
    now = datetime.now().astimezone()
    of_day = re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", text)
    try:
        if of_day is None:
            return datetime.fromisoformat(text).astimezone().timestamp()
        today = datetime.fromisoformat(f"{now:%Y-%m-%d}T{text.rjust(5, '0')}").astimezone()
        # Of a time that has passed, tomorrow's is meant.
        return (today if today > now else today + timedelta(days=1)).timestamp()
    except ValueError as error:
        raise errors.ParameterError(
            f"--at {text!r} is no time. Write 02:30, 2026-01-31T02:30, or with a zone "
            "2026-01-31T02:30+01:00."
        ) from error
