"""Single calls of a batch are cancelled, and their neighbours go on; on both backends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raflow.execute import BatchEnded
from raflow.model import Outcome, Resources
from tests.ray import user_tasks as user
from tests.ray.harness import Run
from tests.waiting import LIMITS, wait_for

TWO_CPUS = Resources(num_cpus=2)


def outcomes(run: Run, batch: int) -> list[str]:
    report = run.finish(batch).report
    left = set(report.unstarted)
    told = {position: call.outcome.value for position, call in report.told.items()}
    return [
        "unstarted" if position in left else told.get(position, "completed")
        for position in range(len(report.started_at))
    ]


def test_a_running_call_is_interrupted_and_its_neighbours_go_on(run: Run) -> None:
    batch = run.submit(
        run.call(user.add, {"x": 1}),
        run.call(user.spin, {"seconds": 600}),
        run.call(user.add, {"x": 2}),
        run.call(user.add, items={"x": range(50)}),
    )
    run.start_of(batch)
    run.session.cancel_calls(batch, [1], force=False)
    assert outcomes(run, batch) == ["completed", "cancelled", *["completed"] * 51]
    assert run.finish(batch).report.told[1].message == "it was interrupted while it ran"
    assert [run.fetch(batch, position) for position in (0, 2, 52)] == [2, 3, 50]


def test_calls_that_have_not_begun_never_do(run: Run, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    batch = run.submit(
        run.call(user.spin, {"seconds": 600}),
        run.call(user.mark_and_spin, {"path": str(mark), "seconds": 0}),
        run.call(user.add, {"x": 1}),
        run.call(user.add, items={"x": range(10)}),
    )
    run.start_of(batch)
    run.session.cancel_calls(batch, [1, 5, 12], force=False)
    run.session.cancel_calls(batch, [0], force=False)  # so what was asked before is there
    expected = ["completed"] * 13
    expected[0] = expected[1] = expected[5] = expected[12] = "cancelled"
    assert outcomes(run, batch) == expected
    told = run.finish(batch).report.told
    assert told[5].message == "it was cancelled before it started"
    assert not mark.exists()
    assert [run.fetch(batch, position) for position in (2, 11)] == [2, 9]


@pytest.mark.parametrize("timeout", [None, 300.0])
def test_two_running_calls_in_turn(run: Run, tmp_path: Path, timeout: float | None) -> None:
    marks = [tmp_path / "first", tmp_path / "second"]
    batch = run.submit(
        *(
            run.call(user.mark_and_spin, {"path": str(mark), "seconds": 600}, timeout=timeout)
            for mark in marks
        ),
        run.call(user.add, {"x": 1}, timeout=timeout),
    )
    for position, mark in enumerate(marks):
        wait_for(mark.exists)
        if position == 0:
            run.start_of(batch)
        run.session.cancel_calls(batch, [position], force=False)
    assert outcomes(run, batch) == ["cancelled", "cancelled", "completed"]


def test_a_waiting_call_of_an_event_loop_is_cancelled_alone(run: Run) -> None:
    call = run.call(user.sleep_async, items={"seconds": [1.5, 600, 1.5, 600]}, concurrency=3)
    batch = run.submit(call)
    run.start_of(batch)
    run.session.cancel_calls(batch, [1, 3], force=False)
    assert outcomes(run, batch) == ["completed", "cancelled", "completed", "cancelled"]


def test_a_call_that_blocks_its_event_loop_is_cancelled_alone(run: Run, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    paths = [str(tmp_path / "other"), str(mark)]
    batch = run.submit(
        run.call(user.mark_and_sleep_async, {"path": paths[0], "seconds": 1}),
        run.call(user.mark_and_block_loop, {"path": paths[1], "seconds": 600}),
        run.call(user.add, {"x": 1}),
    )
    run.start_of(batch)
    wait_for(mark.exists)
    run.session.cancel_calls(batch, [1], force=False)
    assert outcomes(run, batch) == ["completed", "cancelled", "completed"]


def test_a_call_of_a_waiting_batch_is_cancelled_while_it_waits(run: Run, tmp_path: Path) -> None:
    go = tmp_path / "go"
    blocker = run.submit(run.call(user.hold, {"path": str(go)}), resources=TWO_CPUS)
    run.start_of(blocker)
    waiting = run.submit(run.call(user.add, items={"x": range(3)}), resources=TWO_CPUS)
    run.session.cancel_calls(waiting, [1], force=False)
    assert outcomes(run, waiting) == ["unstarted", "cancelled", "unstarted"]
    go.touch()
    run.finish(blocker)


def test_force_ends_a_call_that_ignores_everything(run: Run, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    batch = run.submit(
        run.call(user.add, {"x": 1}),
        run.call(user.stubborn, {"path": str(mark)}),
        run.call(user.add, {"x": 2}),
    )
    wait_for(mark.exists)
    run.start_of(batch)
    run.session.cancel_calls(batch, [1], force=False)
    assert run.quiet(0.3)
    run.session.cancel_calls(batch, [1], force=True)
    end: Any = run.end_of(batch)
    assert isinstance(end, BatchEnded)
    assert outcomes(run, batch) == ["unstarted", "cancelled", "unstarted"]
    told = end.report.told[1]
    assert told.outcome is Outcome.CANCELLED
    assert told.started_at < told.ended_at
    assert run.report(user.add, {"x": 1}).outcome is Outcome.COMPLETED


def test_what_has_ended_or_never_was_is_left_alone(run: Run) -> None:
    batch = run.submit(run.call(user.add, {"x": 1}))
    run.finish(batch)
    run.session.cancel_calls(batch, [0], force=True)
    run.session.cancel_calls(12345, [0], force=False)
    assert run.quiet(0.2)


def test_a_call_that_was_handed_back_is_not_told_of_again(run: Run) -> None:
    for budget in LIMITS:  # until the first call has begun within it
        batch = run.submit(
            run.call(user.nap, {"seconds": 600}),
            run.call(user.add, items={"x": range(3)}),
            budget=budget,
        )
        returned = list(run.return_of(batch).positions)
        if returned[0] > 0:
            break
    assert returned == [1, 2, 3]
    run.start_of(batch)
    run.session.cancel_calls(batch, [0, 2], force=True)
    assert outcomes(run, batch) == ["cancelled", "unstarted", "unstarted", "unstarted"]
