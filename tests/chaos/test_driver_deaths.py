"""The process that drives a run dies while a hundred tasks run."""

from __future__ import annotations

import random
import signal
import time

import pytest

from raflow.model import StateType
from tests.chaos.conftest import MakeWorld
from tests.chaos.journal import Event
from tests.chaos.world import World, wait_until

pytestmark = pytest.mark.chaos

TIMES = range(10)


def _kill_at_some_time(world: World, flow: str, seed: int, seconds: float) -> None:
    """Kill the driver somewhere between the first task and after the last one."""
    rng = random.Random(seed)
    child = world.launch(flow, seconds=seconds)
    world.wait_for(Event.BEGUN, rng.choice((1, 50, 100)))
    time.sleep(rng.uniform(0.0, 1.3))
    world.strike(child.pid)
    assert child.wait() in {-signal.SIGKILL, 0}
    world.died()


def _check(world: World) -> None:
    story = world.check(abandoned=True)
    for run in story.record.runs.values():
        # A dead driver ends nothing: whatever is final was so before, and all of it was there.
        assert run.state.type in {StateType.PENDING, StateType.RUNNING, StateType.COMPLETED}


def _resume(world: World) -> None:
    """Go on as a user does, unless there is nothing to go on with."""
    runs = world.earlier[-1].runs.values()
    if any(run.state.type is not StateType.COMPLETED for run in runs):
        world.raflow("resume", "latest").finish()
    story = world.check(lease=10.0)
    assert {run.state.type for run in story.record.runs.values()} <= {StateType.COMPLETED}
    done = {key for key, run in world.earlier[-1].task_runs.items() if run.state.is_final}
    again = {entry.key for entry in story.journal if entry.epoch > 1}
    assert not done & again, "recorded task runs ran again"


@pytest.mark.parametrize("seed", TIMES)
def test_a_driver_with_a_hundred_tasks_on_threads_is_killed(
    seed: int, make_world: MakeWorld, request: pytest.FixtureRequest
) -> None:
    database = request.getfixturevalue("postgres_url") if seed % 2 else ""
    world = make_world("local", database, RAFLOW_LOCAL_RESOURCES='{"CPU": 100}')
    _kill_at_some_time(world, "hundred", seed, 1.0)
    _check(world)
    _resume(world)


@pytest.mark.ray
@pytest.mark.parametrize(
    "seed", [seed if seed < 3 else pytest.param(seed, marks=pytest.mark.slow) for seed in TIMES]
)
def test_a_driver_with_a_hundred_tasks_on_ray_is_killed(seed: int, joined_world: World) -> None:
    _kill_at_some_time(joined_world, "hundred_light", seed, 0.2)
    killed = time.time()
    _check(joined_world)
    _resume(joined_world)
    late = [e.time - killed for e in joined_world.entries() if e.time > killed and e.epoch == 1]
    assert max(late, default=0.0) < 5.0


@pytest.mark.ray
def test_a_ray_of_its_own_goes_with_the_driver(ray_world: World) -> None:
    child = ray_world.launch("chain", seconds=30.0, length=2)
    ray_world.wait_for(Event.BEGUN)
    ray_world.strike(child.pid)
    child.wait()
    killed = time.time()
    at_work = {entry.pid for entry in ray_world.entries()}
    wait_until(lambda: not at_work & ray_world.processes().keys(), "an end of what it has begun")
    assert max(entry.time for entry in ray_world.entries()) < killed + 25.0
    _check(ray_world)
