"""The rules by which a schedule can go: cron, interval, recurrence, once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Final, Literal, Protocol, TypeAlias

from raflow import errors
from raflow.model.schedule._cron import parse_cron
from raflow.model.schedule._recurrence import Recurrence
from raflow.model.schedule._zones import Dst, Matcher, next_instant, wall, zone

_DAY_SECONDS: Final = 86_400.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class _ByClock(Protocol):
    """A rule that goes by what clocks show."""

    @property
    def timezone(self) -> str: ...
    @property
    def dst(self) -> Dst: ...
    @property
    def elapsing(self) -> bool: ...
    def matcher(self) -> Matcher: ...


@dataclass(frozen=True, slots=True)
class Cron:
    """Starts at the times that a cron expression matches.

    ```python
    Cron("30 2 * * mon-fri", timezone="Europe/Paris")
    ```

    Where the rules of other crons differ, those of Debian's hold; `parse_cron` has them.
    """

    expression: str
    """Minute, hour, day of the month, month, day of the week; or `@daily` and its like."""
    timezone: str = "UTC"
    """The clocks that it goes by: a name of the IANA."""
    dst: Dst = Dst.ONCE
    """What becomes of times that clocks skip or show twice."""
    seconds: bool = False
    """Whether a sixth field, for seconds, comes first."""
    kind: Literal["cron"] = "cron"

    def __post_init__(self) -> None:
        parse_cron(self.expression, seconds=self.seconds)
        zone(self.timezone)
        if self.next_after(_EPOCH) is None:
            raise errors.ScheduleError(
                f"Cron expression {self.expression!r} never matches: no month of it has such a day."
            )

    @property
    def elapsing(self) -> bool:
        """Whether it goes on by real time when clocks are changed."""
        return parse_cron(self.expression, seconds=self.seconds).elapsing

    def matcher(self) -> Matcher:
        """Return what finds its wall-clock times."""
        return parse_cron(self.expression, seconds=self.seconds).first_from

    def next_after(self, instant: datetime) -> datetime | None:
        """Return its first instant after another, both in UTC."""
        return _by_clock(self, instant)


@dataclass(frozen=True, slots=True)
class Interval:
    """Starts every so often.

    ```python
    Interval(timedelta(minutes=10))
    Interval(timedelta(days=1), anchor=datetime(2026, 1, 1, 9), timezone="Asia/Tokyo")
    ```

    Whole days keep the time of day when clocks are changed; any other interval is real time.
    """

    every: timedelta
    """At least a second."""
    anchor: datetime | None = None
    """An instant from which it counts, in both directions; without a zone it is in `timezone`.
    Default: midnight of 1 January 1970 there."""
    timezone: str = "UTC"
    """The clocks that whole days go by."""
    kind: Literal["interval"] = "interval"
    dst: ClassVar[Dst] = Dst.ONCE

    def __post_init__(self) -> None:
        zone(self.timezone)
        if self.every < timedelta(seconds=1):
            raise errors.ScheduleError(
                f"An interval is at least one second long, not {self.every.total_seconds():g}."
            )

    @property
    def elapsing(self) -> bool:
        """Whether it is real time that counts."""
        return bool(self.every.total_seconds() % _DAY_SECONDS)

    def matcher(self) -> Matcher:
        """Return what finds its wall-clock times, if it goes by whole days."""
        tz = zone(self.timezone)
        anchor = self.anchor or datetime(1970, 1, 1)
        start = wall(tz, anchor) if anchor.tzinfo else anchor

        def first_from(at: datetime) -> datetime | None:
            return _plus(start, self.every, -((start - at) // self.every))

        return first_from

    def next_after(self, instant: datetime) -> datetime | None:
        """Return its first instant after another, both in UTC."""
        if not self.elapsing:
            return _by_clock(self, instant)
        tz = zone(self.timezone)
        anchor = self.anchor or datetime(1970, 1, 1, tzinfo=tz)
        start = (anchor if anchor.tzinfo else anchor.replace(tzinfo=tz)).astimezone(UTC)
        return _plus(start, self.every, (instant - start) // self.every + 1)


@dataclass(frozen=True, slots=True)
class RRule:
    """Starts by a recurrence rule of calendars (RFC 5545).

    ```python
    RRule("DTSTART:20260105T090000 RRULE:FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,TH", "Europe/Paris")
    ```

    `Recurrence` says what may be written.
    """

    rule: str
    """`DTSTART`, one `RRULE`, at will `RDATE` and `EXDATE`, in lines or with spaces between."""
    timezone: str = "UTC"
    """The clocks that it goes by."""
    kind: Literal["rrule"] = "rrule"
    dst: ClassVar[Dst] = Dst.ONCE
    elapsing: ClassVar[bool] = False

    def __post_init__(self) -> None:
        zone(self.timezone)
        _recurrence(self.rule)

    def matcher(self) -> Matcher:
        """Return what finds its wall-clock times."""
        return _recurrence(self.rule).first_from

    def next_after(self, instant: datetime) -> datetime | None:
        """Return its first instant after another, both in UTC."""
        return _by_clock(self, instant)


@dataclass(frozen=True, slots=True)
class Once:
    """Starts once, at an instant."""

    at: datetime
    """Without a zone it is in `timezone`."""
    timezone: str = "UTC"
    kind: Literal["once"] = "once"

    def __post_init__(self) -> None:
        zone(self.timezone)

    def next_after(self, instant: datetime) -> datetime | None:
        """Return its instant in UTC, if that is after another."""
        at = self.at if self.at.tzinfo else self.at.replace(tzinfo=zone(self.timezone))
        return at.astimezone(UTC) if at > instant else None


Rule: TypeAlias = Cron | Interval | RRule | Once


# Many schedules have the same rule, and come at the same instants.
@functools.lru_cache(maxsize=1024)
def _by_clock(rule: _ByClock, instant: datetime) -> datetime | None:
    return next_instant(
        rule.matcher(),
        zone(rule.timezone),
        instant,
        catches_up=catches_up(rule),
        once=counts_once(rule),
    )


def catches_up(rule: _ByClock) -> bool:
    """Whether a time that clocks skip counts for the instant of the change."""
    return not rule.elapsing and rule.dst is not Dst.SKIP


def counts_once(rule: _ByClock) -> bool:
    """Whether of a time that clocks show twice only the first counts."""
    return not rule.elapsing and rule.dst is not Dst.EVERY


def _plus(start: datetime, every: timedelta, times: int) -> datetime | None:
    try:
        return start + every * times
    except OverflowError:
        return None


_recurrence: Callable[[str], Recurrence] = functools.lru_cache(maxsize=4096)(Recurrence.parse)
