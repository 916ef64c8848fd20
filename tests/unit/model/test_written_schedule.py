"""Schedules as people write them: what they stand for, and what is told where they are wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raflow import errors
from raflow.model import ScheduleSpec, schedule_specs
from raflow.model.schedule import (
    CatchUp,
    Cron,
    Dst,
    Interval,
    Once,
    Overlap,
    Policy,
    RRule,
    Schedule,
    WrittenSchedule,
    describe,
    fill_slot,
    parse_duration,
    show_duration,
    zone,
)

PARIS = "Europe/Paris"
WEEKLY = "DTSTART:20260105T090000 RRULE:FREQ=WEEKLY"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5", 1.5),
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("1d", 86400),
        ("250ms", 0.25),
        (" 2w ", 1209600),
        ("1h 5s", 3605),
    ],
)
def test_a_stretch_of_time(text: str, seconds: float) -> None:
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "soon", "1x", "h", "1h-5m", "5m1", "1e999d", "nan", "9" * 40])
def test_what_is_no_stretch_of_time(text: str) -> None:
    with pytest.raises(errors.ScheduleError, match="is no stretch of time"):
        parse_duration(text)


@given(st.integers(0, 10**9))
def test_a_stretch_of_time_reads_as_it_is_shown(seconds: int) -> None:
    length = timedelta(seconds=seconds)
    assert parse_duration(show_duration(length)) == length


@pytest.mark.parametrize(
    ("given", "rule", "words"),
    [
        ({"cron": "0 2 * * *"}, Cron("0 2 * * *"), "0 2 * * *"),
        (
            {"cron": "5 0 2 * * *", "seconds": True, "dst": "skip", "timezone": PARIS},
            Cron("5 0 2 * * *", timezone=PARIS, dst=Dst.SKIP, seconds=True),
            "5 0 2 * * *",
        ),
        ({"interval": "90m"}, Interval(timedelta(minutes=90)), "every 1h30m"),
        ({"rrule": WEEKLY, "timezone": PARIS}, RRule(WEEKLY, PARIS), WEEKLY),
        (
            {"at": "2026-01-31T09:00", "timezone": PARIS},
            Once(datetime(2026, 1, 31, 9), PARIS),
            "once at 2026-01-31 09:00:00",
        ),
    ],
)
def test_a_rule(given: dict[str, Any], rule: object, words: str) -> None:
    schedule = WrittenSchedule(**given).schedule()
    assert schedule == Schedule(rule=rule)  # type: ignore[arg-type]
    assert describe(schedule.rule) == words


def test_what_holds_beside_the_rule() -> None:
    written = WrittenSchedule(
        cron="0 2 * * *",
        timezone=PARIS,
        start="2026-01-01",
        end="2026-02-01T00:00Z",
        jitter="5m",
        overlap="cancel-other",
        catch_up="latest",
        window="2h",
        at_most=7,
    )
    schedule = written.schedule()
    assert schedule.start == datetime(2026, 1, 1, tzinfo=zone(PARIS))
    assert schedule.end == datetime(2026, 2, 1, tzinfo=UTC)
    assert schedule.jitter == timedelta(minutes=5)
    assert written.policy() == Policy(
        overlap=Overlap.CANCEL_OTHER,
        catch_up=CatchUp.LATEST,
        window=timedelta(hours=2),
        at_most=7,
    )
    assert WrittenSchedule(cron="@daily").policy() == Policy()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "this one has none of them"),
        ({"cron": "@daily", "at": "2026-01-01"}, "this one has cron and at"),
        ({"cron": "61 * * * *"}, "'61' is no minute"),
        ({"cron": "0 0 31 2 *"}, "never matches"),
        ({"cron": "@daily", "timezone": "CET"}, "'CET' is no time zone"),
        ({"cron": "@daily", "dst": "maybe"}, "dst: 'maybe' is not one of once, every, skip"),
        ({"interval": "0.5s"}, "at least one second"),
        ({"interval": "1d", "seconds": True}, "Only a cron expression"),
        ({"at": "tomorrow"}, "at: 'tomorrow' is no time"),
        ({"cron": "@daily", "end": "never"}, "end: 'never' is no time"),
        ({"rrule": "FREQ=DAILY"}, "is no recurrence rule"),
    ],
)
def test_what_is_wrong_is_told(given: dict[str, Any], told: str) -> None:
    with pytest.raises(errors.ScheduleError) as error:
        WrittenSchedule(**given).schedule()
    assert told in str(error.value)


def test_a_policy_that_is_wrong_is_told() -> None:
    with pytest.raises(errors.ScheduleError, match="overlap: 'twice' is not one of skip, buffer"):
        WrittenSchedule(overlap="twice").policy()


def test_schedules_without_a_name_get_that_of_their_rule() -> None:
    daily, own = Cron("@daily"), ScheduleSpec(name="cron-2", schedule=Schedule(rule=Cron("@daily")))
    found = schedule_specs([daily, own, Schedule(rule=daily), Interval(timedelta(hours=1)), daily])
    assert [spec.name for spec in found] == ["cron", "cron-2", "cron-3", "interval", "cron-4"]
    assert found[1] is own


@pytest.mark.parametrize("names", [("main", "main"), ("Main",), ("",), ("a/b",)])
def test_names_that_are_none(names: tuple[str, ...]) -> None:
    rule = Schedule(rule=Cron("@daily"))
    with pytest.raises(errors.ScheduleError, match=r"two schedules|no name|Two schedules"):
        schedule_specs(ScheduleSpec(name=name, schedule=rule) for name in names)


def test_parameters_tell_the_slot() -> None:
    slot = datetime(2026, 3, 28, 23, 30, tzinfo=UTC)
    given = {"day": "{slot:%Y-%m-%d}", "n": 1, "more": ["at {slot}", {"x": "{slots}"}], "{slot}": 0}
    assert fill_slot(given, slot, PARIS) == {
        "day": "2026-03-29",
        "n": 1,
        "more": ["at 2026-03-29T00:30:00+01:00", {"x": "{slots}"}],
        "{slot}": 0,
    }
