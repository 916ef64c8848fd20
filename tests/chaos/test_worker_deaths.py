"""Processes that run tasks die, stop or misbehave; the flow run goes on."""

from __future__ import annotations

import signal
import socket
import time
from collections import Counter
from pathlib import Path

import pytest

from raflow._util import CRASH_POINTS
from raflow.model import FlowRun, StateName, TaskRun
from tests.chaos.conftest import MakeWorld
from tests.chaos.journal import Event
from tests.chaos.programs.flows import NASTY
from tests.chaos.promises import Budget, Story
from tests.chaos.world import World

pytestmark = [pytest.mark.chaos, pytest.mark.ray]

BUDGETS = {
    "sturdy": Budget(crash_retries=3),
    "greedy": Budget(crash_retries=1),
}


def only_run(story: Story) -> FlowRun:
    [run] = story.record.runs.values()
    return run


def states(story: Story) -> Counter[StateName]:
    return Counter(task_run.state.name for task_run in story.record.task_runs.values())


def by_label(story: Story) -> dict[str, TaskRun]:
    return {task_run.label: task_run for task_run in story.record.task_runs.values()}


def test_a_worker_killed_in_mid_task_costs_one_attempt(joined_world: World) -> None:
    child = joined_world.launch("hardy", seconds=0.5, items=8)
    joined_world.wait_for(Event.BEGUN, 3)
    joined_world.strike_at_work()
    child.finish()
    story = joined_world.check(budgets=BUDGETS)
    assert states(story) == {StateName.COMPLETED: 8, StateName.RECOVERED: 1}
    assert sum(task_run.attempts for task_run in story.record.task_runs.values()) == 10


def test_a_worker_that_only_pauses_costs_nothing(joined_world: World) -> None:
    child = joined_world.launch("hardy", seconds=0.5, items=4)
    pid = joined_world.wait_for(Event.BEGUN)[0].pid
    joined_world.strike(pid, signal.SIGSTOP)
    time.sleep(3.0)
    joined_world.strike(pid, signal.SIGCONT)
    child.finish()
    story = joined_world.check(budgets=BUDGETS)
    assert states(story) == {StateName.COMPLETED: 5}


@pytest.mark.slow
def test_a_call_that_takes_long_in_silence_is_left_alone(joined_world: World) -> None:
    """Connections over which nothing is said must not be given up by either end."""
    joined_world.launch("hardy", seconds=40.0, items=2).finish(90.0)
    joined_world.faults.append("a long silence")
    story = joined_world.check()
    assert states(story) == {StateName.COMPLETED: 3}


def test_every_way_of_dying_is_told_apart_and_hurts_nobody_else(joined_world: World) -> None:
    joined_world.launch("nasties").finish()
    joined_world.faults += NASTY
    story = joined_world.check(tolerated=frozenset({"nasty", "hangs"}))
    assert only_run(story).state.name is StateName.COMPLETED
    runs = by_label(story)
    ends = {how: runs[f"nasty-{n}"].state.name for n, how in enumerate(NASTY)}
    assert ends == {
        "segfault": StateName.CRASHED,
        "exit 0": StateName.CRASHED,
        "kill": StateName.CRASHED,
        "unpicklable": StateName.FAILED,
        "system exit": StateName.FAILED,
        "100 MB": StateName.COMPLETED,
    }
    assert runs["hangs-0"].state.name is StateName.TIMED_OUT
    with joined_world.store() as store:
        key = runs["nasty-5"].key
        size = sum(s.lines for s in store.log_segments(only_run(story).id, key=key))
    assert 0 < size < 100 << 10


def test_a_worker_that_dies_at_every_point_of_its_way(ray_world: World) -> None:
    points = [point for point in CRASH_POINTS if point.startswith("worker.")]
    rules = ",".join(f"{point}:1:SIGKILL" for point in points)
    ray_world.launch("keeps", rules).finish()
    for point in points:
        ray_world.hit(point)
    story = ray_world.check(budgets={"solid": Budget(crash_retries=4)})
    assert only_run(story).state.name is StateName.COMPLETED
    assert states(story) == {StateName.RECOVERED: 1}
    # One death was before it had begun.
    assert len(ray_world.noted(Event.DONE)) == len(points)
    # Of the attempts that were kept and lost, nothing is left to be mistaken for the result.
    kept = [path for path in (ray_world.home / "results").rglob("*") if path.is_file()]
    [task_run] = story.record.task_runs.values()
    assert task_run.result is not None
    assert task_run.result.url in {path.as_uri() for path in kept}


def test_memory_that_runs_out_is_its_own_cause(make_world: MakeWorld) -> None:
    world = make_world(
        "ray",
        RAY_memory_monitor_refresh_ms="50",
        RAY_memory_usage_threshold=f"{memory_used() + 0.05:.3f}",
    )
    world.launch("glutton", megabytes=4000).finish()
    world.faults.append("a memory limit of 5 % more")
    story = world.check(budgets=BUDGETS)
    assert only_run(story).state.name is StateName.FAILED
    assert states(story) == {StateName.OUT_OF_MEMORY: 1}
    [attempts] = story.record.attempts.values()
    assert [attempt.outcome for attempt in attempts] == ["out_of_memory"] * 2


@pytest.mark.parametrize(
    ("program", "number"),
    [
        ("raylet", signal.SIGKILL),
        ("gcs_server", signal.SIGKILL),
        pytest.param("raylet", signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_dead_ray_crashes_the_run_and_the_next_one_has_another(
    ray_world: World, program: str, number: int
) -> None:
    child = ray_world.launch_all(
        [("chain", {"seconds": 30.0, "length": 2}), ("chain", {"seconds": 0.0, "length": 1})]
    )
    ray_world.wait_for(Event.BEGUN)
    pid = ray_world.find(program)
    ray_world.strike(pid, number)
    child.finish()  # in good order: if nobody noticed, Ray would end the process after a minute
    story = ray_world.check(budgets=BUDGETS)
    crashed, completed = sorted(story.record.runs.values(), key=lambda run: run.created_at)
    assert completed.state.name is StateName.COMPLETED
    assert crashed.state.name is StateName.CRASHED
    assert f"process {pid} on {socket.gethostname()}" in crashed.state.message
    ends = {
        (key.run, task_run.label): task_run.state
        for key, task_run in story.record.task_runs.items()
    }
    assert ends[crashed.id, "sturdy-0"].name is StateName.LOST
    assert str(pid) in ends[crashed.id, "sturdy-0"].message


def test_interrupted_from_the_keyboard_nothing_begins_any_more(joined_world: World) -> None:
    joined_world.environment = {
        **joined_world.environment,
        "RAFLOW_CANCEL_GRACE_SECONDS": "2",
    }
    child = joined_world.launch("hardy", seconds=30.0, items=20)
    joined_world.wait_for(Event.BEGUN, 2)
    joined_world.cancel(child)
    child.finish()
    story = joined_world.check(budgets=BUDGETS, grace=2.0)
    assert only_run(story).state.name is StateName.CANCELLED


def memory_used() -> float:
    facts = dict(
        line.split(":") for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line
    )
    total, free = (int(facts[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    return 1 - free / total
