"""States and the two tables of their transitions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from raflow import errors
from raflow.model import (
    FINAL_TYPES,
    FLOW_RUN_TRANSITIONS,
    TASK_RUN_TRANSITIONS,
    TYPE_OF,
    FlowRunEvent,
    State,
    StateName,
    StateType,
    TaskRunEvent,
    next_flow_run_state,
    next_task_run_state,
)

N, T, F = StateName, TaskRunEvent, FlowRunEvent


def reachable(table: Mapping[tuple[StateName, Any], StateName], start: StateName) -> set[StateName]:
    seen, waiting = {start}, deque([start])
    while waiting:
        here = waiting.popleft()
        for (source, _), target in table.items():
            if source is here and target not in seen:
                seen.add(target)
                waiting.append(target)
    return seen


def test_every_name_refines_a_type() -> None:
    assert set(TYPE_OF) == set(StateName)
    assert StateName.RECOVERED.type is StateType.COMPLETED
    assert StateName.UPSTREAM_FAILED.type is StateType.FAILED
    assert StateName.AWAITING_RETRY.type is StateType.SCHEDULED


def test_final_types_are_final() -> None:
    assert {t.value for t in StateType if t.is_final} == {
        *("COMPLETED", "FAILED", "CRASHED", "CANCELLED", "SKIPPED")
    }
    assert State(name=N.LOST, at=1.0).is_final
    assert not State(name=N.CANCELLING, at=1.0).is_final
    assert State(name=N.TIMED_OUT, at=1.0).type is StateType.FAILED


@pytest.mark.parametrize(
    ("table", "start"),
    [(TASK_RUN_TRANSITIONS, N.PENDING), (FLOW_RUN_TRANSITIONS, N.PENDING)],
    ids=["task run", "flow run"],
)
def test_every_state_can_be_reached_and_leads_to_an_end(
    table: Mapping[tuple[StateName, Any], StateName], start: StateName
) -> None:
    sources = {source for source, _ in table}
    targets = set(table.values())
    # `Retrying` is `Running` under the name that tells of another try; runs of deployments are
    # scheduled first.
    known = reachable(table, start) | {N.RETRYING, N.SCHEDULED, N.LATE, N.SUBMITTED}
    assert sources | targets <= known
    # A final state is left only by a new process, or because a value was lost or undone.
    left = {event for source, event in table if source.type in FINAL_TYPES}
    assert left in (
        {TaskRunEvent.RECOMPUTED, TaskRunEvent.ROLLED_BACK},
        {FlowRunEvent.RESUMED},
    )
    for state in sources:
        assert any(end.type in FINAL_TYPES for end in reachable(table, state))


def test_a_run_that_waits_for_a_worker_begins_once_and_cannot_be_resumed() -> None:
    waiting = {N.SCHEDULED, N.LATE, N.SUBMITTED}
    events = {F.BECAME_LATE, F.CLAIMED, F.GIVEN_BACK, F.STARTED, F.FAILED, F.CRASHED, F.CANCELLED}
    assert {event for source, event in FLOW_RUN_TRANSITIONS if source in waiting} == events
    into = {source for (source, _), target in FLOW_RUN_TRANSITIONS.items() if target in waiting}
    assert into == waiting
    assert reachable(FLOW_RUN_TRANSITIONS, N.SCHEDULED) >= {N.LATE, N.RUNNING, N.COMPLETED}


def test_every_event_happens_somewhere() -> None:
    assert {event for _, event in TASK_RUN_TRANSITIONS} == set(TaskRunEvent)
    assert {event for _, event in FLOW_RUN_TRANSITIONS} == set(FlowRunEvent)


@pytest.mark.parametrize(
    ("path", "attempts"),
    [
        (
            [(T.SUBMITTED, N.SUBMITTED), (T.STARTED, N.RUNNING), (T.SUCCEEDED, N.COMPLETED)],
            [1, 1, 1],
        ),
        ([(T.SUBMITTED, N.SUBMITTED), (T.SUCCEEDED, N.COMPLETED)], [1, 1]),
        (
            [
                (T.SUBMITTED, N.SUBMITTED),
                (T.STARTED, N.RUNNING),
                (T.RETRY_PLANNED, N.AWAITING_RETRY),
                (T.SUBMITTED, N.SUBMITTED),
                (T.STARTED, N.RETRYING),
                (T.RECOVERED, N.RECOVERED),
            ],
            [1, 1, 1, 2, 2, 2],
        ),
        ([(T.UPSTREAM_FAILED, N.UPSTREAM_FAILED)], [0]),
        ([(T.SUBMITTED, N.SUBMITTED), (T.RAN_OUT_OF_MEMORY, N.OUT_OF_MEMORY)], [1, 1]),
    ],
    ids=["usual", "too short to be seen running", "second try", "upstream", "memory"],
)
def test_paths_of_task_runs(
    path: list[tuple[TaskRunEvent, StateName]], attempts: list[int]
) -> None:
    state = N.PENDING
    for (event, wanted), attempt in zip(path, attempts, strict=True):
        state = next_task_run_state(state, event, attempt=attempt)
        assert state is wanted


def test_a_flow_run_can_be_cancelled_in_time() -> None:
    state = N.PENDING
    for event in (F.STARTED, F.CANCEL_ASKED, F.CANCELLED):
        state = next_flow_run_state(state, event)
    assert state is N.CANCELLED


@pytest.mark.parametrize(
    ("move", "told"),
    [
        (
            lambda: next_task_run_state(
                N.COMPLETED, T.STARTED, attempt=2, story=["submitted at 1", "done at 2"]
            ),
            "task run in state 'Completed' cannot take the event 'started'. Its story: submitted",
        ),
        (
            lambda: next_flow_run_state(N.PENDING, F.COMPLETED),
            "flow run in state 'Pending' cannot take the event 'completed'. Its story: nothing",
        ),
    ],
    ids=["task run", "flow run"],
)
def test_an_unknown_pair_tells_its_story(move: Callable[[], object], told: str) -> None:
    with pytest.raises(errors.InvalidTransitionError) as caught:
        move()
    assert told in str(caught.value)
    assert {caught.value.current, caught.value.event} <= {*map(str, [*N, *T, *F])}
