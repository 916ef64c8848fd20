"""Times as people write them."""

from __future__ import annotations

import time
from datetime import datetime

import pytest

from raflow import errors
from raflow.cli._when import begins_at


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("1h 30m", 5400), ("2d", 172_800), ("0.5m", 30)]
)
def test_a_span_counts_from_now(text: str, seconds: float) -> None:
    found = begins_at(None, text)
    assert found is not None
    assert found - time.time() == pytest.approx(seconds, abs=5)


def test_a_time_is_local_unless_it_has_a_zone() -> None:
    assert begins_at(None, None) is None
    assert begins_at("2026-01-31T02:30+01:00", None) == 1_769_823_000
    local = datetime(2026, 1, 31, 2, 30).astimezone()
    assert begins_at("2026-01-31T02:30", None) == local.timestamp()


def test_a_time_of_day_is_the_next_one() -> None:
    for text in ("0:00", "23:59", "12:00:30"):
        found = begins_at(text, None)
        assert found is not None
        assert 0 < found - time.time() <= 25 * 3600
        assert datetime.fromtimestamp(found).minute == int(text.split(":")[1])


@pytest.mark.parametrize(
    ("at", "after", "told"),
    [
        ("soon", None, "is no time"),
        (None, "5", "is no length of time"),
        (None, "5m and", "is no length of time"),
        ("25:00", None, "is no time"),
        ("02:30", "5m", "Give one"),
    ],
)
def test_what_is_no_time_is_refused(at: str | None, after: str | None, told: str) -> None:
    with pytest.raises(errors.ParameterError, match=told):
        begins_at(at, after)
