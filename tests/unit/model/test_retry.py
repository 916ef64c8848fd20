"""How long to wait before each further attempt."""

from __future__ import annotations

import random
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from raflow import errors
from raflow.model import RetryPolicy, exponential_backoff


def waits(policy: RetryPolicy) -> list[float]:
    rng = random.Random(1)
    return [policy.delay_before(retry, rng) for retry in range(1, policy.retries + 1)]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (None, [0, 0, 0]),
        (2, [2, 2, 2]),
        ([1, 10], [1, 10, 10]),
        ([1, 2, 3, 4], [1, 2, 3]),
        ([], [0, 0, 0]),
        (exponential_backoff(0.5), [0.5, 1, 2]),
        (lambda retries: [retries], [3, 3, 3]),
    ],
    ids=["none", "number", "short list", "long list", "empty", "exponential", "function"],
)
def test_delays(spec: Any, expected: list[float]) -> None:
    assert waits(RetryPolicy.of(retries=3, retry_delay_seconds=spec)) == expected


@hypothesis.given(
    base=st.floats(0, 1e6),
    factor=st.floats(0, 10),
    seed=st.integers(0, 100),
    retry=st.integers(1, 9),
)
def test_jitter_only_stretches(base: float, factor: float, seed: int, retry: int) -> None:
    policy = RetryPolicy.of(retries=9, retry_delay_seconds=base, retry_jitter_factor=factor)
    delay = policy.delay_before(retry, random.Random(seed))
    assert base <= delay <= base * (1 + factor) * (1 + 1e-12)
    assert delay == policy.delay_before(retry, random.Random(seed))


def test_without_options_nothing_is_tried_again() -> None:
    assert RetryPolicy.of() == RetryPolicy(retries=0, delays=(), jitter_factor=0, crash_retries=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"retries": -1},
        {"retries": 1.5},
        {"retries": True},
        {"crash_retries": "1"},
        {"retry_delay_seconds": -1},
        {"retry_delay_seconds": [1, "x"]},
        pytest.param({"retry_delay_seconds": lambda retries: None}, id="a function without delays"),
        {"retry_jitter_factor": -0.1},
    ],
    ids=str,
)
def test_wrong_options_are_named(wrong: Any) -> None:
    with pytest.raises(errors.DefinitionError) as caught:
        RetryPolicy.of(**wrong)
    assert str(caught.value).startswith(next(iter(wrong)))
