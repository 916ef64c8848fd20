"""Rules and policies as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raflow import errors
from raflow.model.schedule import (
    CatchUp,
    Cron,
    Dst,
    Interval,
    Once,
    Overlap,
    Policy,
    RRule,
    Rule,
    decode_policy,
    decode_rule,
    encode_policy,
    encode_rule,
)

ZONES = st.sampled_from(
    ["UTC", "Europe/Paris", "America/St_Johns", "Asia/Tokyo", "Africa/Monrovia"]
)
NAIVE = st.datetimes(datetime(1950, 1, 1), datetime(2150, 1, 1))
TIMES = NAIVE | st.datetimes(
    datetime(1950, 1, 1), datetime(2150, 1, 1), timezones=ZONES.map(ZoneInfo)
)
EVERY = st.timedeltas(timedelta(seconds=1), timedelta(days=5000))
RULES: st.SearchStrategy[Rule] = st.one_of(
    st.builds(
        Cron,
        st.sampled_from(["0 2 * * *", "*/5 9-17 * * mon-fri", "@daily", "0 0 L * *"]),
        timezone=ZONES,
        dst=st.sampled_from(Dst),
    ),
    st.builds(Cron, st.just("30 0 2 * * *"), timezone=ZONES, seconds=st.just(True)),
    st.builds(Interval, EVERY, anchor=st.none() | TIMES, timezone=ZONES),
    st.builds(RRule, st.just("DTSTART:20260105T090000 RRULE:FREQ=WEEKLY;BYDAY=MO"), ZONES),
    st.builds(Once, TIMES, timezone=ZONES),
)
POLICIES = st.builds(
    Policy,
    overlap=st.sampled_from(Overlap),
    catch_up=st.sampled_from(CatchUp),
    window=st.timedeltas(timedelta(microseconds=1), timedelta(days=366)),
    at_most=st.integers(1, 10_000),
)


@given(RULES, TIMES)
def test_rules_round_trip(rule: Rule, at: datetime) -> None:
    text = encode_rule(rule)
    again = decode_rule(text)
    after = at.astimezone(UTC)
    assert again.next_after(after) == rule.next_after(after)
    assert type(again) is type(rule)
    # The same text again: rows are compared by it.
    assert encode_rule(again) == text
    if not (isinstance(rule, Interval | Once) and _folded(rule)):
        assert again == rule


def _folded(rule: Interval | Once) -> bool:
    at = rule.at if isinstance(rule, Once) else rule.anchor
    return bool(at and at.fold)


@given(POLICIES)
def test_policies_round_trip(policy: Policy) -> None:
    assert decode_policy(encode_policy(policy)) == policy


def test_the_second_of_two_equal_times_stays_the_second() -> None:
    twice = datetime(2026, 10, 25, 2, 30)
    first, second = (Once(twice.replace(fold=fold), "Europe/Paris") for fold in (0, 1))
    before = datetime(2026, 10, 24, tzinfo=UTC)
    assert [decode_rule(encode_rule(rule)).next_after(before) for rule in (first, second)] == [
        datetime(2026, 10, 25, hour, 30, tzinfo=UTC) for hour in (0, 1)
    ]


def test_the_same_instant_is_the_same_text() -> None:
    at = datetime(2026, 5, 1, 12, tzinfo=UTC)
    assert encode_rule(Once(at)) == encode_rule(Once(at.astimezone(ZoneInfo("Asia/Tokyo"))))


def test_what_is_no_rule_is_refused() -> None:
    good = json.loads(encode_rule(Cron("0 2 * * *")))
    for text in (
        "",
        "{}",
        json.dumps({**good, "kind": "moon"}),
        json.dumps({**good, "timezone": "Mars/Olympus"}),
        json.dumps({**good, "expression": "0 2 * *"}),
        json.dumps({**good, "dst": "sometimes"}),
    ):
        with pytest.raises(errors.ScheduleError):
            decode_rule(text)
    with pytest.raises(errors.ScheduleError, match="is no policy"):
        decode_policy('{"overlap": "perhaps"}')
