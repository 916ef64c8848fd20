"""`raflow resume`, as a user types it, after each thing that a run stands on was killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import psutil
import pytest

from raflow.model import FlowRun, StateName, StateType
from tests.chaos.cluster import Cluster
from tests.chaos.conftest import MakeWorld
from tests.chaos.journal import Key
from tests.chaos.promises import Record, Story
from tests.chaos.world import PATIENCE, World, wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.ray]

LEASE: Final = 10.0
ITEMS: Final = 16
TASKS: Final = 2 * ITEMS + 4
"""One of them stands for the subflow."""
STEP: Final = 3
"""So many results are put on record before each death."""
DONE: Final = frozenset({StateName.COMPLETED, StateName.RECOVERED})


def root_of(record: Record) -> FlowRun:
    [run] = [run for run in record.runs.values() if run.parent_id is None]
    return run


def completed(record: Record) -> set[Key]:
    found = record.task_runs.items()
    return {key for key, run in found if run.state.type is StateType.COMPLETED}


def wait_for_more(world: World) -> None:
    """Wait until the process of the run has put some more results on record."""
    child = world.children[-1]
    known = len(completed(world.earlier[-1])) if world.earlier else 0

    def is_recorded() -> bool:
        assert child.process.poll() is None, child.told()
        return len(completed(world.record())) >= known + STEP

    wait_until(is_recorded, "more results on record")


def hold(world: World) -> Story:
    """Hold all that happened against the promises, and what is left against what should be."""
    story = world.check(lease=LEASE)
    root = root_of(story.record)
    assert root.state.name is StateName.RECOVERED
    assert root.incarnation == 1 + len(story.earlier)
    assert {run.state.name for run in story.record.runs.values()} <= DONE
    assert {run.state.name for run in story.record.task_runs.values()} <= DONE
    assert len(story.record.task_runs) == TASKS
    begun = story.begun()
    assert len(begun) == TASKS - 1
    for process, record in enumerate(story.earlier, 1):
        again = {key for key, entries in begun.items() if entries[-1].epoch > process}
        known = completed(record)
        assert len(known) >= STEP * process, "VOID: nothing was on record"
        assert again, "VOID: everything was on record"
        assert not again & known
    wait_until(lambda: not world.processes(), "an end of all that has worked for the run")
    return story


def kill_driver(world: World) -> None:
    world.strike(world.children[-1].pid)


def _of_ray(world: World, program: str) -> int:
    """Find a process of the Ray that the newest driver has started: an older one may still end."""
    below = psutil.Process(world.children[-1].pid).children()
    [found] = [process.pid for process in below if process.name() == program]
    return found


def kill_raylet(world: World) -> None:
    world.strike(_of_ray(world, "raylet"))


def kill_gcs(world: World) -> None:
    world.strike(_of_ray(world, "gcs_server"))


def kill_everything(world: World) -> None:
    world.strike_all()


DEATHS: Final = (kill_gcs, kill_raylet, kill_driver, kill_everything)


def _die(world: World, kill: Callable[[World], None]) -> None:
    wait_for_more(world)
    kill(world)
    world.children[-1].wait(PATIENCE)
    world.died()


@pytest.mark.timeout(300)
def test_a_run_outlives_everything_that_it_stands_on(ray_world: World) -> None:
    ray_world.launch("varied", seconds=0.3, items=ITEMS)
    for kill in DEATHS:
        _die(ray_world, kill)
        child = ray_world.raflow("resume", "latest")
    child.finish()
    hold(ray_world)


def test_what_crashed_with_its_worker_is_all_that_runs_again(joined_world: World) -> None:
    child = joined_world.launch("varied", seconds=0.6, items=ITEMS)
    wait_for_more(joined_world)
    hit = joined_world.strike_at_work()
    child.finish()
    before = joined_world.died()
    assert root_of(before).state.name is StateName.FAILED
    assert before.task_runs[hit.key].state.name is StateName.CRASHED
    joined_world.raflow("resume", "latest").finish()
    story = hold(joined_world)
    assert story.record.task_runs[hit.key].state.name is StateName.RECOVERED


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("program", "seconds"), [("gcs_server", 4.0), ("", 0.3)])
def test_a_run_moves_to_another_cluster(
    program: str, seconds: float, make_world: MakeWorld, tmp_path: Path, shared_ray: Cluster
) -> None:
    with Cluster.started(tmp_path) as doomed:
        world = make_world("ray", **doomed.environment)
        child = world.launch("varied", seconds=seconds, items=ITEMS)
        wait_for_more(world)
        # For half a minute the control service may come back: what runs goes on, and takes longer.
        doomed.kill(program) if program else doomed.kill_all()
        world.faults.append("the head of the cluster was killed")
        child.finish(90.0)
        world.died()
        assert root_of(world.earlier[-1]).state.name is StateName.CRASHED
        world.environment = dict(shared_ray.environment)
        world.raflow("resume", "latest").finish(120.0)
        hold(world)
