"""Schedules as people write them in files and on command lines."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, TypeVar

from raflow import errors
from raflow.model.schedule._due import Policy
from raflow.model.schedule._rules import Cron, Interval, Once, RRule, Rule
from raflow.model.schedule._schedule import Schedule
from raflow.model.schedule._zones import Dst, zone

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_Choice = TypeVar("_Choice", bound=StrEnum)


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenSchedule:
    """A schedule as texts; one of the first four is given, and what is empty is the default."""

    cron: str = ""
    interval: str = ""
    """A stretch of time: `90s`, `10m`, `1h30m`, `1d`."""
    rrule: str = ""
    at: str = ""
    """A time: `2026-01-31 09:00`, with a zone at its end or in `timezone`."""
    timezone: str = "UTC"
    dst: str = ""
    """What becomes of times that clocks skip or show twice, for cron: see `Dst`."""
    seconds: bool = False
    """Whether a field for seconds comes first in the cron expression."""
    start: str = ""
    """A time before which it has no slots."""
    end: str = ""
    """A time after which it has none."""
    jitter: str = ""
    """A stretch of time."""
    overlap: str = ""
    catch_up: str = ""
    window: str = ""
    """A stretch of time."""
    at_most: int | None = None

    def schedule(self) -> Schedule:
        """Return when it has slots.

        Raises:
            ScheduleError: Says what is written wrongly, and how it is written.
        """
        return Schedule(
            rule=self._rule(),
            start=self._bound("start", self.start),
            end=self._bound("end", self.end),
            jitter=parse_duration(self.jitter) if self.jitter else timedelta(0),
        )

    def policy(self) -> Policy:
        """Return what it does where it does not go by plan.

        Raises:
            ScheduleError: Says what is written wrongly, and how it is written.
        """
        default = Policy()
        return Policy(
            overlap=_choice("overlap", self.overlap, default.overlap),
            catch_up=_choice("catch_up", self.catch_up, default.catch_up),
            window=parse_duration(self.window) if self.window else default.window,
            at_most=default.at_most if self.at_most is None else self.at_most,
        )

    def _rule(self) -> Rule:
        written = [name for name in ("cron", "interval", "rrule", "at") if getattr(self, name)]
        if len(written) != 1:
            found = " and ".join(written) or "none of them"
            raise errors.ScheduleError(
                f"A schedule has one of cron, interval, rrule and at; this one has {found}."
            )
        if not self.cron and (self.dst or self.seconds):
            raise errors.ScheduleError("Only a cron expression takes dst and seconds.")
        if self.cron:
            dst = _choice("dst", self.dst, Dst.ONCE)
            return Cron(self.cron, timezone=self.timezone, dst=dst, seconds=self.seconds)
        if self.interval:
            return Interval(parse_duration(self.interval), timezone=self.timezone)
        if self.rrule:
            return RRule(self.rrule, timezone=self.timezone)
        return Once(_time("at", self.at), timezone=self.timezone)

    def _bound(self, name: str, text: str) -> datetime | None:
        if not text:
            return None
        at = _time(name, text)
        return at if at.tzinfo else at.replace(tzinfo=zone(self.timezone))


def parse_duration(text: str) -> timedelta:
    """Read a stretch of time: `90s`, `10m`, `1h30m`, `1d`; a number alone is seconds.

    Raises:
        ScheduleError: It is none.
    """
    plain = text.strip().replace(" ", "")
    parts = _PART.findall(plain)
    try:
        if parts and "".join(number + unit for number, unit in parts) == plain:
            return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))
        return timedelta(seconds=float(plain))
    except (ValueError, OverflowError):
        raise errors.ScheduleError(
            f"{text!r} is no stretch of time. Write it with its units, such as 90s, 10m, 1h30m "
            "or 1d."
        ) from None


def show_duration(length: timedelta) -> str:
    """Return a stretch of time as `parse_duration` reads it: `1h30m`."""
    left, shown = length.total_seconds(), ""
    for unit in ("d", "h", "m"):
        whole, left = divmod(left, _UNITS[unit])
        shown += f"{whole:.0f}{unit}" if whole else ""
    return f"{shown}{left:g}s" if left or not shown else shown


def describe(rule: Rule) -> str:
    """Return a rule in one line, without its zone: `30 2 * * *`, `every 10m`."""
    match rule:
        case Cron():
            return rule.expression
        case Interval():
            return f"every {show_duration(rule.every)}"
        case RRule():
            return " ".join(rule.rule.split())
        case Once():
            return f"once at {rule.at:%Y-%m-%d %H:%M:%S}"


def _time(name: str, text: str) -> datetime:
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        raise errors.ScheduleError(
            f"{name}: {text!r} is no time. Write it as 2026-01-31T09:00, with a zone such as Z or "
            "+02:00 at its end or in the time zone of the schedule."
        ) from None


def _choice(name: str, text: str, default: _Choice) -> _Choice:
    if not text:
        return default
    kind = type(default)
    try:
        return kind(text.strip().replace("-", "_"))
    except ValueError:
        known = ", ".join(kind)
        raise errors.ScheduleError(f"{name}: {text!r} is not one of {known}.") from None
