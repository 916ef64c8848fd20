"""Cron expressions: what may be written, and which wall-clock times match."""

from __future__ import annotations

import calendar
import functools
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time
from typing import Final, NamedTuple

from raflow import errors

HORIZON_YEARS: Final = 28
"""What does not match within so many years never does: the calendar repeats after them, but for the
years that are no leap years although four divides them."""

_LONGEST: Final = 256
_SHORTHANDS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_MONTHS: Final = {name.lower(): n for n, name in enumerate(calendar.month_abbr) if name}
_WEEKDAYS: Final = {
    name: n for n, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))
}
_LAST: Final = 0
"""Stands for the last such weekday of a month, where 1 to 5 stand for the first to fifth."""
_PART = re.compile(r"(\*|\w+)(?:-(\w+))?(?:/(\d+))?")
_NTH = re.compile(r"(\w+)#([1-5])")
_LAST_WEEKDAY = re.compile(r"l([0-7]|[a-z]{3})")


class _Field(NamedTuple):
    """One of the places of an expression."""

    name: str
    low: int
    high: int
    names: Mapping[str, int] = {}

    def read(self, text: str) -> tuple[int, ...]:
        """Return the numbers that a list of parts stands for, sorted."""
        return tuple(sorted({n for part in text.split(",") for n in self._part(part)}))

    def _part(self, part: str) -> range:
        found = _PART.fullmatch(part)
        if found is None:
            raise self.wrong(part, "It takes numbers, lists 1,2, ranges 1-5 and steps */15.")
        first, last, step = found.groups()
        low = self.low if first == "*" else self.number(first)
        high = self.high if first == "*" or step else low
        high = high if last is None else self.number(last)
        if first == "*" and last is not None:
            raise self.wrong(part, "A range goes from one number to another.")
        if low > high:
            raise self.wrong(part, f"Its end is before its start: write {first}-{self.high},...")
        if step is not None and not 0 < int(step) <= self.high:
            raise self.wrong(part, f"A step is a number from 1 to {self.high}.")
        return range(low, high + 1, int(step or 1))

    def number(self, text: str) -> int:
        """Return the number that a word stands for."""
        number = self.names.get(text, -1)
        if number < 0 and text.isascii() and text.isdecimal() and len(text) <= 2:
            number = int(text)
        if not self.low <= number <= self.high:
            also = f" or names ({', '.join(self.names)})" if self.names else ""
            raise self.wrong(text, f"It takes {self.low} to {self.high}{also}.")
        return number

    def wrong(self, part: str, rule: str) -> errors.ScheduleError:
        return errors.ScheduleError(f"{part!r} is no {self.name} of a cron expression. {rule}")


_SECOND: Final = _Field("second", 0, 59)
_MINUTE: Final = _Field("minute", 0, 59)
_HOUR: Final = _Field("hour", 0, 23)
_DAY: Final = _Field("day of the month", 1, 31)
_MONTH: Final = _Field("month", 1, 12, _MONTHS)
_WEEKDAY: Final = _Field("day of the week", 0, 7, _WEEKDAYS)


class CronTimes(NamedTuple):
    """The wall-clock times that an expression matches."""

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    """Days of the month."""
    on_last_day: bool
    """Whether the last day of a month is one of them, whichever it is."""
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    """0 is Sunday."""
    nth: frozenset[tuple[int, int]]
    """Days like the third Friday: (5, 3); the last one: (5, 0)."""
    both: bool
    """Whether both days must match, rather than one of them."""
    elapsing: bool
    """Whether it is of the kind "every so many minutes", which goes on by real time when clocks are
    changed, and not of the kind "at that time"."""

    def first_from(self, wall: datetime) -> datetime | None:
        """Return the first match that is not before a wall-clock time; None: there is none."""
        for month in self._months_from(wall):
            for day in self.days_of(month.year, month.month):
                on = date(month.year, month.month, day)
                if on < wall.date():
                    continue
                at = self._time_from(wall.time() if on == wall.date() else time())
                if at is not None:
                    return datetime.combine(on, at)
        return None

    def _months_from(self, wall: datetime) -> Iterator[date]:
        last = min(wall.year + HORIZON_YEARS, date.max.year)
        for year in range(wall.year, last + 1):
            for month in self.months:
                if (year, month) >= (wall.year, wall.month):
                    yield date(year, month, 1)

    def days_of(self, year: int, month: int) -> Sequence[int]:
        """Return the days of a month that match, in order."""
        return _days_of(self, year, month)

    def _time_from(self, at: time) -> time | None:
        """Return the first time of a day that is not before another."""
        hours, minutes, seconds = self.hours, self.minutes, self.seconds
        for hour in hours[bisect_left(hours, at.hour) :]:
            if hour > at.hour:
                return time(hour, minutes[0], seconds[0])
            for minute in minutes[bisect_left(minutes, at.minute) :]:
                if minute > at.minute:
                    return time(hour, minute, seconds[0])
                later = seconds[bisect_left(seconds, at.second) :]
                if later:
                    return time(hour, minute, later[0])
        return None


@functools.lru_cache(maxsize=4096)
def _days_of(times: CronTimes, year: int, month: int) -> Sequence[int]:
    first, length = calendar.monthrange(year, month)
    found = []
    for day in range(1, length + 1):
        weekday = (first + day) % 7
        by_day = day in times.days or (times.on_last_day and day == length)
        place = {(weekday, (day - 1) // 7 + 1)}
        if day + 7 > length:
            place.add((weekday, _LAST))
        by_weekday = weekday in times.weekdays or not times.nth.isdisjoint(place)
        if (by_day and by_weekday) if times.both else (by_day or by_weekday):
            found.append(day)
    return found


@functools.lru_cache(maxsize=4096)
def parse_cron(expression: str, *, seconds: bool = False) -> CronTimes:
    """Read a cron expression.

    Minute, hour, day of the month, month, day of the week (0 and 7 are Sunday), as in Debian's
    cron: lists, ranges, steps (`5/20` begins at 5), English names of three letters, `@daily` and
    its like. Also `L` (the last day of the month), `fri#3` (the third Friday), `Lfri` (the last).
    Days must match both if one of their fields begins with `*`, otherwise one of them is enough.

    Args:
        expression: Five fields; at most 256 characters.
        seconds: Whether a sixth field, for seconds, comes first.

    Raises:
        ScheduleError: Names the part that is wrong, the rule and the remedy.
    """
    if len(expression) > _LONGEST:
        raise errors.ScheduleError(
            f"A cron expression has at most {_LONGEST} characters; this one has {len(expression)}."
        )
    words = expression.strip().lower().split()
    if len(words) == 1 and words[0] in _SHORTHANDS:
        words = _SHORTHANDS[words[0]].split()
        words = ["0", *words] if seconds else words
    if len(words) != 5 + seconds:
        raise _wrong_count(expression, len(words), seconds=seconds)
    second, minute, hour, day, month, weekday = words if seconds else ("0", *words)
    days, on_last_day = _read_days(day)
    weekdays, nth = _read_weekdays(weekday)
    return CronTimes(
        seconds=_SECOND.read(second),
        minutes=_MINUTE.read(minute),
        hours=_HOUR.read(hour),
        days=days,
        on_last_day=on_last_day,
        months=_MONTH.read(month),
        weekdays=weekdays,
        nth=nth,
        both=day.startswith("*") or weekday.startswith("*"),
        elapsing=minute.startswith("*") or hour.startswith("*"),
    )


def _wrong_count(expression: str, count: int, *, seconds: bool) -> errors.ScheduleError:
    if count == 1 and expression.strip().startswith("@"):
        known = ", ".join(_SHORTHANDS)
        return errors.ScheduleError(f"{expression!r} is not known. There are {known}.")
    needed = "six fields, seconds first" if seconds else "five fields"
    hint = " For one with seconds say seconds=True." if count == 6 and not seconds else ""
    return errors.ScheduleError(
        f"Cron expression {expression!r} has {count} field(s) and needs {needed}: minute, hour, "
        f"day of the month, month, day of the week.{hint}"
    )


def _read_days(text: str) -> tuple[tuple[int, ...], bool]:
    parts = text.split(",")
    numbers = [part for part in parts if part != "l"]
    return _DAY.read(",".join(numbers)) if numbers else (), "l" in parts


def _read_weekdays(text: str) -> tuple[tuple[int, ...], frozenset[tuple[int, int]]]:
    plain, nth = [], set()
    for part in text.split(","):
        if found := _NTH.fullmatch(part):
            nth.add((_WEEKDAY.number(found[1]) % 7, int(found[2])))
        elif found := _LAST_WEEKDAY.fullmatch(part):
            nth.add((_WEEKDAY.number(found[1]) % 7, _LAST))
        else:
            plain.append(part)
    numbers = _WEEKDAY.read(",".join(plain)) if plain else ()
    return tuple(sorted({number % 7 for number in numbers})), frozenset(nth)
