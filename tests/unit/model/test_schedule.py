"""Schedules against a judge that scans all minutes, and against other crons where they agree."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from raflow import errors
from raflow.model.schedule import (
    Cron,
    Dst,
    Interval,
    Once,
    RRule,
    Rule,
    Schedule,
    explain,
    parse_cron,
)

MINUTE = timedelta(minutes=1)
ZONES = [
    "America/New_York",
    "Europe/Paris",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
    "America/Santiago",
    "Asia/Beirut",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Pacific/Apia",
    "America/Nuuk",
    "Antarctica/Troll",
    "Asia/Kathmandu",
    "Europe/Dublin",
    "UTC",
]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def after(rule: Rule, start: datetime, count: int) -> list[str]:
    found: list[str] = []
    now: datetime | None = start
    while now is not None and len(found) < count:
        now = rule.next_after(now)
        found.append("none" if now is None else f"{now:%Y-%m-%d %H:%M}")
    return found


# The judge ----------------------------------------------------------------------------------------


def matcher(expression: str) -> Callable[[datetime], bool]:
    """Tell whether wall-clock times match, in the plainest way: what cron's manual says."""
    minute, hour, day, month, weekday = expression.split()
    minutes, hours, days = numbers(minute, 0, 59), numbers(hour, 0, 23), numbers(day, 1, 31)
    months, weekdays = numbers(month, 1, 12), {n % 7 for n in numbers(weekday, 0, 7)}
    star = day.startswith("*") or weekday.startswith("*")

    def matches(wall: datetime) -> bool:
        by_day, by_weekday = wall.day in days, wall.isoweekday() % 7 in weekdays
        on = by_day and by_weekday if star else by_day or by_weekday
        return on and wall.minute in minutes and wall.hour in hours and wall.month in months

    return matches


def numbers(field: str, low: int, high: int) -> set[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        begin = low if first == "*" else int(first)
        end = int(last) if dash else high if first == "*" or step else begin
        found |= {n for n in range(begin, end + 1) if (n - begin) % int(step or 1) == 0}
    return found


def judged(expression: str, zone: str, dst: Dst, start: datetime, end: datetime) -> list[datetime]:
    """Scan the minutes after `start`, up to `end`."""
    tz, matches = ZoneInfo(zone), matcher(expression)
    found: list[datetime] = []
    minute, hour = expression.split()[:2]
    elapsing = minute.startswith("*") or hour.startswith("*")
    now = start
    while now < end:
        before, now = now.astimezone(tz), now + MINUTE
        shown = now.astimezone(tz)
        wall = shown.replace(tzinfo=None)
        fires = matches(wall)
        if not elapsing and dst is not Dst.EVERY:
            fires = fires and not shown.fold
        missed = before.replace(tzinfo=None) + MINUTE
        while not elapsing and dst is not Dst.SKIP and missed < wall:
            fires = fires or matches(missed)
            missed += MINUTE
        if fires:
            found.append(now)
    return found


def changes(zone: str) -> list[datetime]:
    """Return the days of 2010 to 2030 before which and after which clocks differ."""
    tz = ZoneInfo(zone)
    found: list[datetime] = []
    for number in range(20 * 366):
        day = datetime(2010, 1, 1, tzinfo=UTC) + timedelta(days=number)
        if day.astimezone(tz).utcoffset() != (day + timedelta(days=1)).astimezone(tz).utcoffset():
            found.append(day)
    return found or [datetime(2026, 2, 27, tzinfo=UTC)]


CHANGES = {zone: changes(zone) for zone in ZONES}


def fields(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    part = st.one_of(
        number.map(str),
        span,
        st.tuples(span, st.integers(1, high)).map(lambda s: f"{s[0]}/{s[1]}"),
        st.tuples(number, st.integers(1, high)).map(lambda s: f"{s[0]}/{s[1]}"),
        st.integers(1, high).map(lambda step: f"*/{step}"),
    )
    return st.one_of(st.just("*"), st.lists(part, min_size=1, max_size=3).map(",".join))


EXPRESSIONS = st.tuples(
    fields(0, 59), fields(0, 23), fields(1, 31), st.just("*"), fields(0, 7)
).map(" ".join)
# The others take 5-5 for "from 5 around to 5", which is all, and let 5/2 of weekdays end elsewhere.
WITH_PLAIN_WEEKDAYS = st.tuples(
    EXPRESSIONS, st.sampled_from(["*", "1-5", "0", "6,0", "2-6/2"])
).map(lambda pair: re.sub(r"\b(\d+)-\1(/\d+)?\b", r"\1", " ".join([*pair[0].split()[:4], pair[1]])))
HOURS_OF_CHANGE = st.tuples(
    fields(0, 59), st.sampled_from(["0", "1", "2", "3", "0-3", "23", "*", "*/2"])
).map(lambda pair: f"{pair[0]} {pair[1]} * * *")


@given(st.data())
@settings(max_examples=100)
def test_cron_is_what_a_scan_of_all_minutes_finds(data: st.DataObject) -> None:
    zone = data.draw(st.sampled_from(ZONES))
    expression = data.draw(st.one_of(HOURS_OF_CHANGE, EXPRESSIONS))
    dst = data.draw(st.sampled_from(Dst))
    day = data.draw(st.sampled_from(CHANGES[zone]))
    start = day - timedelta(hours=data.draw(st.integers(1, 24)))
    end = day + timedelta(days=1, hours=12)
    rule = Schedule(rule=Cron(expression, zone, dst))
    found = list(rule.slots(start, end))
    assert found == judged(expression, zone, dst, start, end)
    middle = start + (end - start) * data.draw(st.floats(0, 1))
    assert list(rule.slots(middle, end)) == [slot for slot in found if slot > middle]


@given(EXPRESSIONS, st.datetimes(datetime(2000, 1, 1), datetime(2099, 1, 1)))
def test_four_hundred_years_later_everything_is_the_same(expression: str, start: datetime) -> None:
    rule, now = Cron(expression), start.replace(tzinfo=UTC)
    later = now + timedelta(days=146_097)
    found = [rule.next_after(now), rule.next_after(later)]
    assert found[0]
    assert found[1] == found[0] + timedelta(days=146_097)


@given(WITH_PLAIN_WEEKDAYS, st.datetimes(datetime(2000, 1, 1), datetime(2060, 1, 1)))
def test_in_utc_it_is_what_cronsim_says(expression: str, start: datetime) -> None:
    start = start.replace(microsecond=0)
    theirs = list(itertools.islice(CronSim(expression, start), 5))
    ours = after(Cron(expression), start.replace(tzinfo=UTC), 5)
    assert ours == [f"{found:%Y-%m-%d %H:%M}" for found in theirs]


@given(WITH_PLAIN_WEEKDAYS, st.datetimes(datetime(2000, 1, 1), datetime(2060, 1, 1)))
def test_in_utc_it_is_what_croniter_says(expression: str, start: datetime) -> None:
    theirs = croniter(expression, start.replace(second=0, microsecond=0), implement_cron_bug=True)
    ours = after(Cron(expression), start.replace(second=0, microsecond=0, tzinfo=UTC), 5)
    assert ours == [f"{theirs.get_next(datetime):%Y-%m-%d %H:%M}" for _ in range(5)]


# What is written in the documentation -------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "start", "expected"),
    [
        (
            Cron("30 2 * * *", "America/New_York"),
            "2026-03-07T12:00",
            ["2026-03-08 07:00", "2026-03-09 06:30"],
        ),
        (
            Cron("30 2 * * *", "America/New_York", Dst.SKIP),
            "2026-03-07T12:00",
            ["2026-03-09 06:30", "2026-03-10 06:30"],
        ),
        (
            Cron("30 1 * * *", "America/New_York"),
            "2026-10-31T12:00",
            ["2026-11-01 05:30", "2026-11-02 06:30"],
        ),
        (
            Cron("30 1 * * *", "America/New_York", Dst.EVERY),
            "2026-10-31T12:00",
            ["2026-11-01 05:30", "2026-11-01 06:30"],
        ),
        (
            Cron("*/30 1 * * *", "America/New_York"),
            "2026-11-01T05:00",
            ["2026-11-01 05:30", "2026-11-01 06:00", "2026-11-01 06:30", "2026-11-02 06:00"],
        ),
        (Cron("0 0 29 2 *"), "2096-03-01T00:00", ["2104-02-29 00:00"]),
        (Cron("0 9 L * *"), "2026-01-31T09:00", ["2026-02-28 09:00", "2026-03-31 09:00"]),
        (Cron("0 9 * * fri#3"), "2026-11-21T00:00", ["2026-12-18 09:00", "2027-01-15 09:00"]),
        (Cron("0 9 * * Lfri"), "2026-11-21T00:00", ["2026-11-27 09:00", "2026-12-25 09:00"]),
        (Cron("0 9 * * L5,mon"), "2026-11-21T00:00", ["2026-11-23 09:00", "2026-11-27 09:00"]),
        (Cron("@weekly"), "2026-11-21T00:00", ["2026-11-22 00:00"]),
        (
            Interval(timedelta(days=1), datetime(2026, 1, 1, 2, 30), "Europe/Paris"),
            "2026-03-28T01:30",
            ["2026-03-29 01:00", "2026-03-30 00:30"],
        ),
        (
            Interval(timedelta(hours=36), at("2026-01-01T00:00"), "Europe/Paris"),
            "2026-03-28T01:30",
            ["2026-03-29 00:00", "2026-03-30 12:00"],
        ),
        (
            Interval(timedelta(days=7), at("2026-06-01T00:00")),
            "2026-01-03T00:00",
            ["2026-01-05 00:00"],
        ),
        (
            RRule(
                "DTSTART:20200106T090000\nRRULE:FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,TH", "Asia/Tokyo"
            ),
            "2026-03-28T00:00",
            ["2026-04-06 00:00", "2026-04-09 00:00", "2026-04-20 00:00"],
        ),
        (
            RRule(
                "DTSTART:20260101T090000 RRULE:FREQ=DAILY;UNTIL=20260104 EXDATE:20260102T090000 "
                "RDATE:20260110T120000"
            ),
            "2026-01-01T09:00",
            ["2026-01-03 09:00", "2026-01-04 09:00", "2026-01-10 12:00", "none"],
        ),
        (
            RRule("DTSTART:20260101T090000 RRULE:FREQ=MONTHLY;BYDAY=-1FR;COUNT=2"),
            "2020-01-01T00:00",
            ["2026-01-30 09:00", "2026-02-27 09:00", "none"],
        ),
        (Once(datetime(2026, 5, 1, 8), "Asia/Tokyo"), "2026-04-30T22:00", ["2026-04-30 23:00"]),
        (Once(at("2026-05-01T08:00")), "2026-05-01T08:00", ["none"]),
    ],
)
def test_slots(rule: Rule, start: str, expected: list[str]) -> None:
    assert after(rule, at(start), len(expected)) == expected


def test_with_seconds_they_come_first() -> None:
    rule = Cron("*/20 30 2 * * *", seconds=True)
    found = list(Schedule(rule=rule).slots(at("2026-01-01T02:30:00"), at("2026-01-02T02:30:00")))
    assert [f"{slot:%d %H:%M:%S}" for slot in found] == [
        "01 02:30:20",
        "01 02:30:40",
        "02 02:30:00",
    ]


NEW_YORK = "America/New_York"
SKIPPED = (
    "02:30 does not exist on 2026-03-08 in America/New_York: clocks go from 02:00 to 03:00, when "
    "it starts instead."
)
NO_SUCH_DAY = (
    "12:00 does not exist on 2011-12-30 in Pacific/Apia: clocks go from 00:00 to 00:00 of "
    "2011-12-31, when it starts instead."
)
TWICE = "01:30 comes twice on 2026-11-01 in America/New_York; this is the "


@pytest.mark.parametrize(
    ("rule", "slot", "words"),
    [
        (Cron("30 2 * * *", NEW_YORK), "2026-03-08T07:00", SKIPPED),
        (Cron("0 12 * * *", "Pacific/Apia"), "2011-12-30T10:00", NO_SUCH_DAY),
        (
            Cron("30 1 * * *", NEW_YORK),
            "2026-11-01T05:30",
            f"{TWICE}first, the only one that counts.",
        ),
        (Cron("*/30 * * * *", NEW_YORK), "2026-11-01T06:30", f"{TWICE}second."),
        (Cron("30 1 * * *", NEW_YORK), "2026-11-02T06:30", ""),
        (Once(at("2026-11-01T05:30"), NEW_YORK), "2026-11-01T05:30", ""),
    ],
)
def test_changes_of_the_clocks_are_told_in_words(rule: Rule, slot: str, words: str) -> None:
    assert rule.next_after(at(slot) - MINUTE) == at(slot)
    assert explain(rule, at(slot)) == words


@pytest.mark.parametrize(
    ("expression", "rule"),
    [
        ("* * * *", "has 4 field(s) and needs five"),
        ("0 30 2 * * *", "For one with seconds say seconds=True."),
        ("0 0 1 1 * 2026 2026", "has 7 field(s)"),
        ("", "has 0 field(s)"),
        ("60 * * * *", "It takes 0 to 59."),
        ("* * 0 * *", "It takes 1 to 31."),
        ("* * * 13 *", "or names (jan, feb"),
        ("* * * * 8", "It takes 0 to 7"),
        ("R * * * *", "It takes 0 to 59."),
        ("H * * * *", "It takes 0 to 59."),
        ("* * ? * *", "It takes numbers, lists"),
        ("* * LW * *", "It takes 1 to 31."),
        ("* * * * fri-mon", "Its end is before its start"),
        ("*/0 * * * *", "A step is a number from 1 to 59."),
        ("*-5 * * * *", "A range goes from one number"),
        ("1,,2 * * * *", "It takes numbers, lists"),
        ("@reboot", "There are @hourly"),
        ("0 0 31 2 *", "never matches"),
        ("0 0 30 feb *", "never matches"),
        ("٣ * * * *", "It takes 0 to 59."),
        ("*" * 60_000, "at most 256 characters"),
    ],
)
def test_wrong_expressions_are_refused_at_once(expression: str, rule: str) -> None:
    with pytest.raises(errors.ScheduleError) as refused:
        Cron(expression)
    assert rule in str(refused.value)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("RRULE:FREQ=DAILY", "it needs one DTSTART"),
        ("DTSTART:20260101T090000", "it needs one DTSTART"),
        ("DTSTART:20260101T090000Z RRULE:FREQ=DAILY", "all times are those of the schedule's zone"),
        ("DTSTART;TZID=Europe/Paris:20260101T090000 RRULE:FREQ=DAILY", "is not one of DTSTART"),
        ("DTSTART:20260101T090000 RRULE:FREQ=SECONDLY", "use an interval"),
        ("DTSTART:20260101T090000 RRULE:FREQ=MINUTELY;BYMONTH=2", "takes no BYMONTH"),
        ("DTSTART:20260101T090000 RRULE:FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30", "it never matches"),
        ("DTSTART:20260101T090000 RRULE:FREQ=DAILY;COUNT=10001", "COUNT goes up to 10000"),
        ("DTSTART:20260101T090000 RRULE:FREQ=DAILY;INTERVAL=0", "INTERVAL is 1 or more"),
        ("DTSTART:20260101T090000 RRULE:FREQ=YEARLY;BYEASTER=0", "list its days as RDATE"),
        ("DTSTART:20260101T090000 RRULE:FREQ=DAILY;FOO=1", "FOO"),
        ("DTSTART:20260101T090000 RRULE:FREQ=SOMETIMES", "SOMETIMES"),
        ("DTSTART:20260101T090000 RRULE:" + "X" * 2000, "longer than 1024"),
    ],
)
def test_wrong_recurrences_are_refused_at_once(text: str, rule: str) -> None:
    with pytest.raises(errors.ScheduleError) as refused:
        RRule(text)
    assert rule in str(refused.value)


@pytest.mark.parametrize("zone", ["EST", "EST5EDT", "Europe/Pariss", "../../etc/passwd", "", "+02"])
def test_a_time_zone_is_one_of_the_iana(zone: str) -> None:
    with pytest.raises(errors.ScheduleError, match="is no time zone"):
        Cron("* * * * *", zone)


def test_a_wrong_interval_and_a_wrong_schedule_are_refused() -> None:
    with pytest.raises(errors.ScheduleError, match="at least one second"):
        Interval(timedelta(milliseconds=10))
    rule = Interval(timedelta(hours=1))
    with pytest.raises(errors.ScheduleError, match="has no time zone"):
        Schedule(rule=rule, start=datetime(2026, 1, 1))
    with pytest.raises(errors.ScheduleError, match="after its start"):
        Schedule(rule=rule, start=at("2026-01-02T00:00"), end=at("2026-01-01T00:00"))
    with pytest.raises(errors.ScheduleError, match="zero or more"):
        Schedule(rule=rule, jitter=-MINUTE)


# Schedules ----------------------------------------------------------------------------------------


def test_start_and_end_are_themselves_slots() -> None:
    schedule = Schedule(
        rule=Cron("0 * * * *"), start=at("2026-01-01T02:00"), end=at("2026-01-01T04:00")
    )
    found = list(schedule.slots(at("2025-01-01T00:00"), at("2027-01-01T00:00")))
    assert [slot.hour for slot in found] == [2, 3, 4]


@given(st.text(max_size=10), st.floats(1, 10_000))
def test_jitter_is_the_same_every_time_and_stays_before_the_next_slot(
    name: str, seconds: float
) -> None:
    schedule = Schedule(rule=Cron("0 * * * *"), jitter=timedelta(seconds=seconds))
    slots = list(schedule.slots(at("2026-01-01T00:00"), at("2026-01-02T00:00")))
    begins = [schedule.begins_at(name, slot) for slot in slots]
    assert begins == [schedule.begins_at(name, slot) for slot in slots]
    assert begins == sorted(begins)
    late = [begin - slot for begin, slot in zip(begins, slots, strict=True)]
    assert all(timedelta(0) <= by < min(schedule.jitter, timedelta(hours=1)) for by in late)
    assert len(set(late)) > len(late) // 2


SLOW_IN_OTHERS = [
    "0 0 29 2 *",
    "59 23 31 12 7",
    "0 0 29 2 1#5",
    ",".join(map(str, range(60))) + " 0,1,2,3,4,5,6,7,8,9,10,11,12 * * *",
]


@pytest.mark.parametrize("expression", SLOW_IN_OTHERS)
def test_looking_ahead_costs_little(expression: str) -> None:
    rule, now = Cron(expression, "America/New_York"), at("2026-01-01T00:00")
    begun = time.process_time()
    for _ in range(10):
        found = rule.next_after(now)
        if found is None:
            break
        now = found
    assert time.process_time() - begun < 1


def test_what_an_expression_stands_for_is_read_once() -> None:
    assert parse_cron("1-5 * * * *") is parse_cron("1-5 * * * *")
    assert parse_cron("1-5 * * * *") == parse_cron("1,2,3,4,5 * * * *")
