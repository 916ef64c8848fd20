"""The processes that a call has started end with it, if it is ended; on both backends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raflow.execute import BatchEnded, BatchLost, end_left_behind
from raflow.execute._processes import process
from raflow.model import Outcome
from tests.ray import user_tasks as user
from tests.ray.harness import Run
from tests.waiting import LIMITS, wait_for


class Child:
    """A process that a task writes down."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def pid(self) -> int:
        wait_for(lambda: self.path.exists() and bool(self.path.read_text()))
        return int(self.path.read_text())

    @property
    def lives(self) -> bool:
        return process(self.pid) is not None


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    made = Child(tmp_path / "pid")
    yield made
    if made.path.exists() and made.lives:
        os.kill(made.pid, signal.SIGKILL)


def cancelled(run: Run, batch: int) -> None:
    end = run.end_of(batch)
    told: Any = end.report.told[0].outcome if isinstance(end, BatchEnded) else end.outcome
    assert told is Outcome.CANCELLED


@pytest.mark.parametrize("task", [user.start_child, user.start_stubborn_child])
@pytest.mark.parametrize("force", [False, True])
def test_a_child_ends_with_its_cancelled_call(
    run: Run, child: Child, task: Callable[..., None], force: bool
) -> None:
    batch = run.submit(run.call(task, {"path": str(child.path), "seconds": 600}))
    run.start_of(batch)
    assert child.lives
    run.session.cancel(batch, force=force)
    cancelled(run, batch)
    assert not child.lives


def test_a_child_ends_at_the_time_limit_of_its_call(run: Run, child: Child) -> None:
    arguments = {"path": str(child.path), "seconds": 600}
    for timeout in LIMITS:
        report = run.report(user.start_child, arguments, timeout=timeout)
        assert report.outcome is Outcome.TIMED_OUT
        if child.path.exists():
            break
    wait_for(lambda: not child.lives)


def test_a_child_outlives_a_call_that_returns_or_fails(run: Run, child: Child) -> None:
    run.value(user.start_child, {"path": str(child.path), "seconds": 0.05})
    batch = run.submit(run.call(user.spin, {"seconds": 600}))
    run.start_of(batch)
    run.session.cancel(batch, force=False)
    cancelled(run, batch)
    assert child.lives


@pytest.mark.ray
@pytest.mark.parametrize("program", [False, True])
@pytest.mark.parametrize("force", [False, True])
def test_a_daemon_ends_with_its_cancelled_call(
    ray_run: Run, child: Child, program: bool, force: bool
) -> None:
    arguments = {"path": str(child.path), "seconds": 600, "program": program}
    batch = ray_run.submit(ray_run.call(user.start_daemon, arguments))
    ray_run.start_of(batch)
    assert child.lives
    ray_run.session.cancel_calls(batch, [0], force=force)
    cancelled(ray_run, batch)
    assert not child.lives


@pytest.mark.ray
def test_a_daemon_of_one_call_is_not_ended_with_another(ray_run: Run, child: Child) -> None:
    arguments = {"path": str(child.path), "seconds": 0, "program": False}
    batch = ray_run.submit(
        ray_run.call(user.start_daemon, arguments), ray_run.call(user.spin, {"seconds": 600})
    )
    ray_run.start_of(batch)
    ray_run.session.cancel_calls(batch, [1], force=False)
    ray_run.finish(batch)
    assert child.lives


@pytest.mark.ray
@pytest.mark.parametrize("program", [False, True])
def test_what_a_killed_process_leaves_is_found_by_its_mark(
    ray_run: Run, child: Child, program: bool
) -> None:
    arguments = {"path": str(child.path), "seconds": 600, "program": program}
    batch = ray_run.submit(ray_run.call(user.start_daemon, arguments))
    pid = ray_run.start_of(batch).pid
    assert child.lives
    os.kill(pid, signal.SIGKILL)
    assert ray_run.lose(batch).outcome is Outcome.CRASHED
    assert not child.lives


@pytest.mark.ray
def test_what_a_process_leaves_that_ignored_its_time_limit(ray_run: Run, child: Child) -> None:
    arguments = {"path": str(child.path), "seconds": -1, "program": False}
    for timeout in LIMITS:
        call = ray_run.call(user.start_daemon, arguments, timeout=timeout)
        end = ray_run.end_of(ray_run.submit(call))
        if isinstance(end, BatchLost):
            break
    assert isinstance(end, BatchLost)
    assert end.outcome is Outcome.TIMED_OUT
    assert not child.lives


@pytest.mark.ray
def test_the_end_of_a_run_ends_what_its_running_calls_have_started(
    ray_run: Run, child: Child
) -> None:
    arguments = {"path": str(child.path), "seconds": 600, "program": True}
    ray_run.start_of(ray_run.submit(ray_run.call(user.start_daemon, arguments)))
    assert child.lives
    ray_run.close()
    wait_for(lambda: not child.lives)


@pytest.mark.ray
def test_what_a_flow_run_has_left_behind_is_ended_by_its_id(ray_run: Run, child: Child) -> None:
    ray_run.value(user.start_daemon, {"path": str(child.path), "seconds": 0, "program": False})
    assert child.lives
    assert end_left_behind(["another-run"], since=time.time() - 60) == 0
    assert child.lives
    assert end_left_behind([ray_run.id], since=time.time() - 60) >= 1
    assert not child.lives
