"""How often a flow run is tried again, and where a resumed one goes on counting."""

from __future__ import annotations

import pytest

from raflow.model import FlowRunEvent, RetryPolicy, State, StateName
from raflow.runtime.attempts._retries import FlowRetries, Retry

F, N = FlowRunEvent, StateName
TWICE = RetryPolicy(retries=2, delays=(10.0, 60.0))


def states(*names: StateName) -> list[State]:
    return [State(name=name, at=1.0) for name in names]


def test_attempts_are_counted_and_delayed() -> None:
    retries = FlowRetries(TWICE)
    assert retries.after(F.FAILED, 100.0) == Retry(110.0, 2, 3)
    assert retries.after(F.TIMED_OUT, 200.0) == Retry(260.0, 3, 3)
    assert retries.after(F.FAILED, 300.0) is None
    assert Retry(0.0, 2, 3).name == "attempt 2 of 3"


@pytest.mark.parametrize("end", [F.COMPLETED, F.RECOVERED, F.CRASHED, F.CANCELLED])
def test_only_a_failure_is_tried_again(end: FlowRunEvent) -> None:
    assert FlowRetries(TWICE).after(end, 1.0) is None


@pytest.mark.parametrize(
    ("past", "following"),
    [
        ([N.PENDING, N.RUNNING, N.AWAITING_RETRY, N.RUNNING], 3),
        ([N.PENDING, N.RUNNING, N.AWAITING_RETRY, N.SUSPENDED], 3),
        ([N.RUNNING, N.AWAITING_RETRY, N.RUNNING, N.AWAITING_RETRY, N.RUNNING, N.FAILED], 2),
        ([N.RUNNING, N.AWAITING_RETRY, N.CRASHED, N.RUNNING], 2),
    ],
    ids=["its process was gone", "suspended", "failed in the end", "noted as crashed"],
)
def test_a_resumed_run_goes_on_counting_unless_it_had_ended(
    past: list[StateName], following: int
) -> None:
    retry = FlowRetries(TWICE, states(*past)).after(F.FAILED, 1.0)
    assert retry is not None
    assert retry.number == following
