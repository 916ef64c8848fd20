"""From wall-clock times to instants, across the changes of clocks."""

from __future__ import annotations

import enum
import functools
import importlib
import zoneinfo
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from raflow import errors

SECOND: Final = timedelta(seconds=1)
_DAY: Final = timedelta(days=1)
_ZERO: Final = timedelta(0)

Matcher: TypeAlias = Callable[[datetime], datetime | None]
"""Returns the first wall-clock time that matches and is not before another; None: there is none."""


class Dst(enum.StrEnum):
    """What becomes of a time of day that clocks skip, or show twice, on the day of a change.

    Expressions like `*/15 * * * *`, with `*` in the minute or the hour, go by real time whatever
    this says: every 15 minutes.
    """

    ONCE = "once"
    """Skipped: at the first instant afterwards. Twice: the first time. As Debian's cron does."""
    EVERY = "every"
    """Skipped: at the first instant afterwards. Twice: both times."""
    SKIP = "skip"
    """Skipped: not on this day. Twice: the first time. As systemd does."""


class Change(NamedTuple):
    """A change of the clocks."""

    at: datetime
    before: datetime
    """What clocks would show without it."""
    after: datetime
    """What they show."""


@functools.cache
def zone(name: str) -> zoneinfo.ZoneInfo:
    """Return a time zone.

    Args:
        name: As the IANA has it, like `Europe/Paris`, or `UTC`. Abbreviations are refused, as they
            do not tell when clocks change.

    Raises:
        ScheduleError: There is none of this name.
    """
    try:
        if name == "UTC" or "/" in name:
            return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        pass
    known = [found for found in zoneinfo.available_timezones() if "/" in found]
    near = errors.closest(name, known)
    raise errors.ScheduleError(
        f"{name!r} is no time zone. Give a name of the IANA, such as 'Europe/Paris', or 'UTC'."
        + (f" Near it are {', '.join(map(repr, near))}." if near else "")
    )


@functools.cache
def zones_version() -> str:
    """Return which edition of the time zones is in use, such as `2025b`; empty: it does not say."""
    for folder in zoneinfo.TZPATH:
        try:
            with Path(folder, "tzdata.zi").open(encoding="utf-8") as file:
                return file.readline().removeprefix("# version").strip()
        except OSError:
            continue
    try:
        return str(importlib.import_module("tzdata").IANA_VERSION)
    except ImportError:
        return ""


def shift(tz: zoneinfo.ZoneInfo, at: datetime) -> timedelta:
    """Return by how much the clocks of a zone differ from UTC at an instant."""
    return at.astimezone(tz).utcoffset() or _ZERO


def wall(tz: zoneinfo.ZoneInfo, at: datetime) -> datetime:
    """Return what clocks show at an instant, without a zone."""
    return at.astimezone(tz).replace(tzinfo=None, fold=0)


def next_change(tz: zoneinfo.ZoneInfo, start: datetime, end: datetime) -> Change | None:
    """Return the first change of the clocks after `start` and not after `end`."""
    before, low = shift(tz, start), start
    while low < end:
        high = min(low + _DAY, end)
        if shift(tz, high) != before:
            while high - low > SECOND:
                middle = low + (high - low) // 2
                middle = middle.replace(microsecond=0)
                low, high = (middle, high) if shift(tz, middle) == before else (low, middle)
            plain = high.replace(tzinfo=None)
            return Change(high, plain + before, plain + shift(tz, high))
        low = high
    return None


def next_instant(
    matches: Matcher, tz: zoneinfo.ZoneInfo, after: datetime, *, catches_up: bool, once: bool
) -> datetime | None:
    """Return the first instant after another at which clocks show a time that matches.

    Args:
        matches: The wall-clock times.
        tz: Where the clocks are.
        after: In UTC.
        catches_up: Whether times that a change of the clocks skips count for its instant.
        once: Whether a time that clocks show twice counts only at the first.

    Returns:
        An instant in UTC; None if there is none.
    """
    now = after.replace(microsecond=0) + SECOND
    while True:
        offset = shift(tz, now)
        found = matches(now.replace(tzinfo=None) + offset)
        if found is None:
            return None
        instant = (found - offset).replace(tzinfo=UTC)
        change = next_change(tz, now, instant)
        if change is None:
            if not (once and instant.astimezone(tz).fold):
                return instant
            now = instant + SECOND
            continue
        if catches_up and skipped(matches, change):
            return change.at
        now = change.at


def skipped(matches: Matcher, change: Change) -> datetime | None:
    """Return the first time that matches and that a change skips; None: there is none."""
    found = matches(change.before)
    return found if found is not None and found < change.after else None
