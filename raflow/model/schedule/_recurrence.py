"""Recurrence rules of calendars (RFC 5545), read and iterated by dateutil."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final, cast

from dateutil.rrule import rrule, rrulestr

from raflow import errors
from raflow.model.schedule._cron import HORIZON_YEARS

_LONGEST: Final = 1024
_MOST: Final = 10_000
_CYCLE_YEARS: Final = 400
_LINE = re.compile(r"\s+(?=(?:DTSTART|RRULE|RDATE|EXDATE)[:;])")
_PERIODS: Final = {
    "WEEKLY": timedelta(weeks=1),
    "DAILY": timedelta(days=1),
    "HOURLY": timedelta(hours=1),
    "MINUTELY": timedelta(minutes=1),
}
_COARSE_ONLY: Final = ("BYMONTH", "BYMONTHDAY", "BYYEARDAY", "BYWEEKNO", "BYSETPOS")
"""What would make a rule by the hour or the minute walk for months to find its next time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrence:
    """The wall-clock times of a recurrence rule.

    `DTSTART` is needed: times count from there. `FREQ` is `YEARLY` down to `MINUTELY`; rules by the
    hour or the minute take `BYDAY`, `BYHOUR` and `BYMINUTE` only. `COUNT` goes up to 10,000, and
    there is no `BYEASTER`. All times are those of the schedule's own zone, so none has a `Z` or a
    `TZID`, `UNTIL` included.
    """

    rule: rrule
    start: datetime
    until: datetime | None
    step: timedelta | None
    """By how much its start can be moved without changing what comes later; None: not at all."""
    more: tuple[datetime, ...]
    """Further times, sorted."""
    never: frozenset[datetime]
    """Times that do not count."""

    @classmethod
    def parse(cls, text: str) -> Recurrence:
        """Read a rule.

        Raises:
            ScheduleError: Names what is wrong, the rule and the remedy.
        """
        lines = _lines(text)
        start = _times(text, lines["DTSTART"])[0]
        parts = dict(part.partition("=")[::2] for part in lines["RRULE"][0].upper().split(";"))
        problem = _problem(parts)
        if problem:
            raise _wrong(text, problem)
        try:
            period = _PERIODS.get(parts["FREQ"]) if "COUNT" not in parts else None
            found = cls(
                rule=cast("rrule", rrulestr(f"RRULE:{lines['RRULE'][0]}", dtstart=start)),
                start=start,
                until=_until(text, parts["UNTIL"]) if "UNTIL" in parts else None,
                step=period and period * int(parts.get("INTERVAL", "1")),
                more=tuple(sorted(_times(text, lines["RDATE"]))),
                never=frozenset(_times(text, lines["EXDATE"])),
            )
            first = found.first_from(start)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise _wrong(text, f"{type(error).__name__}: {error}") from error
        if first is None:
            raise _wrong(text, "it never matches")
        return found

    def first_from(self, wall: datetime) -> datetime | None:
        """Return the first match that is not before a wall-clock time; None: there is none."""
        extra = next((at for at in self.more if at >= wall and at not in self.never), None)
        times = [at for at in (self._of_rule(wall), extra) if at is not None]
        return min(times) if times else None

    def _of_rule(self, wall: datetime) -> datetime | None:
        wall = max(wall, self.start)
        if wall.year + HORIZON_YEARS > date.max.year:
            return None
        # dateutil looks for a match up to the year 9999, which takes seconds where there is none.
        # The calendar repeats every 400 years: far ahead there is less to look through.
        ahead = (date.max.year - HORIZON_YEARS - wall.year) // _CYCLE_YEARS * _CYCLE_YEARS
        rule = self._near(wall, ahead)
        found = rule.after(_later(wall, ahead), inc=True)
        while found is not None and _later(found, -ahead) in self.never:
            found = rule.after(found)
        return None if found is None else _later(found, -ahead)

    def _near(self, wall: datetime, ahead: int) -> rrule:
        """Return the rule moved ahead by some years; it begins near a wall-clock time, if it can.

        dateutil walks from the start of a rule to what is asked for.
        """
        start, until = self.start, self.until
        if self.step is not None:
            start += self.step * max(0, (wall - start) // self.step - 1)
        if until is not None:
            until = _later(until, ahead) if until.year + ahead <= date.max.year else None
        return self.rule.replace(dtstart=_later(start, ahead), until=until)


def _later(at: datetime, years: int) -> datetime:
    return at.replace(year=at.year + years)


def _lines(text: str) -> Mapping[str, list[str]]:
    if len(text) > _LONGEST:
        raise _wrong(text, f"it is longer than {_LONGEST} characters")
    lines: dict[str, list[str]] = {"DTSTART": [], "RRULE": [], "RDATE": [], "EXDATE": []}
    for line in _LINE.split(text.strip()):
        name, colon, value = line.strip().partition(":")
        if not colon or name not in lines:
            raise _wrong(text, f"{name!r} is not one of {', '.join(lines)} with a ':' behind")
        lines[name].append(value)
    if len(lines["DTSTART"]) != 1 or len(lines["RRULE"]) != 1:
        raise _wrong(text, "it needs one DTSTART:YYYYMMDDTHHMMSS and one RRULE:FREQ=...")
    return lines


def _problem(parts: Mapping[str, str]) -> str:
    """Return what is wrong with a rule that dateutil would take; empty: nothing."""
    frequency, count = parts.get("FREQ", ""), parts.get("COUNT", "0")
    if frequency == "SECONDLY":
        return "FREQ=SECONDLY is too fine; use an interval"
    if "BYEASTER" in parts:
        return "Easter is not among the rules of calendars; list its days as RDATE"
    found = [name for name in _COARSE_ONLY if name in parts]
    if frequency in {"HOURLY", "MINUTELY"} and found:
        return f"FREQ={frequency} takes no {found[0]}; use FREQ=DAILY with BYHOUR"
    if count.isdecimal() and int(count) > _MOST:
        return f"COUNT goes up to {_MOST}; use UNTIL"
    if not parts.get("INTERVAL", "1").isdecimal() or int(parts.get("INTERVAL", "1")) < 1:
        return "INTERVAL is 1 or more"
    return ""


def _until(text: str, value: str) -> datetime:
    """Return the last time that may match; a day alone counts as a whole."""
    return _times(text, [value if "T" in value else f"{value}T235959"])[0]


def _times(text: str, values: list[str]) -> list[datetime]:
    found = []
    for value in ",".join(values).split(",") if values else ():
        try:
            found.append(datetime.strptime(value, "%Y%m%dT%H%M%S"))
        except ValueError:
            hint = "; all times are those of the schedule's zone" if value.endswith("Z") else ""
            why = f"{value!r} is no time such as 20260131T093000{hint}"
            raise _wrong(text, why) from None
    return found


def _wrong(text: str, why: str) -> errors.ScheduleError:
    return errors.ScheduleError(f"{text[:80]!r} is no recurrence rule: {why}.")
