"""What is to be done about slots that have come."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raflow import errors
from raflow.model.schedule import (
    Action,
    CatchUp,
    Cron,
    Interval,
    Overlap,
    Policy,
    Schedule,
    due,
    due_on_time,
)

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
HOURLY = Schedule(rule=Cron("0 * * * *"))
BUSY = "1 run(s) of the schedule are not over"


def plans(policy: Policy, *, back: timedelta, active: int = 0, waiting: int = 0) -> list[str]:
    found = due(HOURLY, policy, cursor=NOON - back, now=NOON, active=active, waiting=waiting)
    return [f"{plan.slot:%H} {plan.action}" for plan in found.plans]


def test_a_slot_that_comes_starts_its_run() -> None:
    found = due(HOURLY, Policy(), cursor=NOON - MINUTE, now=NOON, active=0)
    assert [(plan.slot, plan.action, plan.reason) for plan in found.plans] == [
        (NOON, Action.START, "")
    ]
    assert (found.cursor, found.next_at, found.missed) == (NOON, NOON + HOUR, None)


def test_nothing_comes_twice_when_a_clock_is_set_back() -> None:
    found = due(HOURLY, Policy(), cursor=NOON, now=NOON - 2 * HOUR, active=0)
    assert (found.plans, found.cursor, found.next_at) == ((), NOON, NOON + HOUR)


@pytest.mark.parametrize(
    ("overlap", "active", "waiting", "expected"),
    [
        (Overlap.SKIP, 0, 0, ["10 start", "11 skip", "12 skip"]),
        (Overlap.SKIP, 1, 0, ["10 skip", "11 skip", "12 skip"]),
        (Overlap.BUFFER_ONE, 0, 0, ["10 start", "11 wait", "12 skip"]),
        (Overlap.BUFFER_ONE, 1, 1, ["10 skip", "11 skip", "12 skip"]),
        (Overlap.BUFFER_ALL, 0, 0, ["10 start", "11 wait", "12 wait"]),
        (Overlap.BUFFER_ALL, 1, 2, ["10 wait", "11 skip", "12 skip"]),
        (Overlap.CANCEL_OTHER, 1, 0, ["10 skip", "11 skip", "12 replace"]),
        (Overlap.ALLOW_ALL, 7, 0, ["10 start", "11 start", "12 start"]),
    ],
)
def test_overlap(overlap: Overlap, active: int, waiting: int, expected: list[str]) -> None:
    policy = Policy(overlap=overlap, window=5 * HOUR, at_most=3)
    assert plans(policy, back=3 * HOUR, active=active, waiting=waiting) == expected


def test_why_a_slot_is_skipped_is_told() -> None:
    found = due(HOURLY, Policy(), cursor=NOON - MINUTE, now=NOON, active=1)
    assert [plan.reason for plan in found.plans] == [BUSY]
    one = Policy(overlap=Overlap.BUFFER_ONE)
    found = due(HOURLY, one, cursor=NOON - MINUTE, now=NOON, active=1, waiting=1)
    assert [plan.reason for plan in found.plans] == [f"{BUSY}, and 1 wait for them"]


@pytest.mark.parametrize(
    ("catch_up", "window", "expected", "missed"),
    [
        (CatchUp.ALL, 3 * HOUR, ["09", "10", "11"], True),
        (CatchUp.ALL, 29 * MINUTE, [], True),
        (CatchUp.ALL, 9 * HOUR, ["03", "04", "05", "06", "07", "08", "09", "10", "11"], False),
        (CatchUp.LATEST, 3 * HOUR, ["11"], True),
        (CatchUp.NONE, 3 * HOUR, [], True),
    ],
)
def test_what_came_while_nobody_was_there(
    catch_up: CatchUp, window: timedelta, expected: list[str], *, missed: bool
) -> None:
    policy = Policy(overlap=Overlap.ALLOW_ALL, catch_up=catch_up, window=window)
    now = NOON - 30 * MINUTE
    found = due(HOURLY, policy, cursor=NOON - 9 * HOUR - MINUTE, now=now, active=0)
    assert [f"{plan.slot:%H}" for plan in found.plans] == expected
    assert (found.missed is not None) is missed


def test_much_that_is_due_is_dealt_with_in_parts_oldest_first() -> None:
    schedule = Schedule(rule=Interval(timedelta(seconds=1)))
    policy = Policy(overlap=Overlap.ALLOW_ALL, at_most=60)
    cursor, slots = NOON - 150 * timedelta(seconds=1), []
    for count in (60, 60, 30, 0):
        found = due(schedule, policy, cursor=cursor, now=NOON, active=0)
        assert len(found.plans) == count
        slots += [plan.slot for plan in found.plans]
        cursor = found.cursor
    assert slots == sorted(set(slots))
    assert (len(slots), slots[-1], cursor) == (150, NOON, NOON)


def test_the_latest_of_very_many_is_found_at_once() -> None:
    schedule = Schedule(rule=Interval(timedelta(seconds=1)))
    policy = Policy(catch_up=CatchUp.LATEST, window=timedelta(days=366))
    found = due(schedule, policy, cursor=NOON - timedelta(days=900), now=NOON, active=0)
    assert [plan.slot for plan in found.plans] == [NOON]


@given(st.integers(0, 2**32), st.sampled_from(list(Overlap)))
def test_whoever_looks_and_however_often_every_slot_is_dealt_with_once(
    seed: int, overlap: Overlap
) -> None:
    """Servers that look at any time, with clocks that jump, share nothing but the cursor."""
    rng = random.Random(seed)
    policy = Policy(overlap=overlap, window=timedelta(days=2), at_most=rng.randint(1, 5))
    cursor, slots = NOON, []
    now = NOON
    while cursor < NOON + timedelta(days=1):
        now += timedelta(minutes=rng.randint(-90, 240))
        found = due(HOURLY, policy, cursor=cursor, now=now, active=rng.randint(0, 1))
        slots += [plan.slot for plan in found.plans]
        assert found.cursor >= cursor
        cursor = found.cursor
    assert slots == list(HOURLY.slots(NOON, cursor))


def test_a_policy_has_bounds() -> None:
    with pytest.raises(errors.ScheduleError, match="up to 366 days"):
        Policy(window=timedelta(0))
    with pytest.raises(errors.ScheduleError, match="from 1 to 10000"):
        Policy(at_most=0)


@given(
    st.sampled_from(["* * * * *", "*/7 * * * *", "30 2 * * *", "0 0 1 * *"]),
    st.sampled_from(["UTC", "Europe/Paris"]),
    st.builds(
        Policy,
        overlap=st.sampled_from(Overlap),
        catch_up=st.sampled_from(CatchUp),
        window=st.sampled_from([timedelta(seconds=5), MINUTE, HOUR]),
        at_most=st.sampled_from([1, 2, 100]),
    ),
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)),
    st.timedeltas(timedelta(0), 3 * MINUTE),
    st.timedeltas(-MINUTE, 3 * MINUTE),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_on_time_is_what_due_decides(
    cron: str,
    zone: str,
    policy: Policy,
    at: datetime,
    before: timedelta,
    late: timedelta,
    active: int,
    waiting: int,
) -> None:
    schedule = Schedule(rule=Cron(cron, timezone=zone))
    slot = schedule.next_after(at.replace(tzinfo=UTC))
    assert slot is not None
    cursor = max(slot - before, at.replace(tzinfo=UTC))
    now = slot + late
    found = due_on_time(
        schedule, policy, cursor=cursor, now=now, slot=slot, active=active, waiting=waiting
    )
    judge = due(schedule, policy, cursor=cursor, now=now, active=active, waiting=waiting)
    assert found in (None, judge)
    # It is of use: what is seconds late needs no more, if all before it was dealt with.
    fresh = now - cursor <= timedelta(seconds=5)
    if cursor < slot and timedelta(0) <= late < timedelta(seconds=3) and fresh:
        assert found is not None


def test_more_slots_than_are_dealt_with_at_a_time_come_the_next_time() -> None:
    policy = Policy(overlap=Overlap.ALLOW_ALL, window=5 * HOUR)
    found = due(HOURLY, policy, cursor=NOON - 3 * HOUR, now=NOON, active=0, most=2)
    assert [plan.slot for plan in found.plans] == [NOON - 2 * HOUR, NOON - HOUR]
    assert (found.cursor, found.next_at) == (NOON - HOUR, NOON)
