"""Somebody notices that a run has lost its process: hooks are called, and what is left is ended."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable

import pytest

from raflow.model import FlowRun, StateName, StateType
from tests.chaos.conftest import MakeWorld
from tests.chaos.journal import Event
from tests.chaos.world import World, wait_until

pytestmark = pytest.mark.chaos

HOOKS = {"busy Crashed": 2, "watched Crashed": 1, "watched_child Crashed": 1}


def told(world: World) -> Counter[str]:
    """The hooks that were called."""
    path = world.ledger.with_name("hooks")
    return Counter(path.read_text().splitlines() if path.exists() else [])


def run_of(world: World) -> FlowRun:
    with world.store() as store:
        return store.flow_runs(flow="watched", limit=1)[0]


def kill_it_at_work(world: World) -> int:
    """Kill the process of a run in which two calls go on; returns its id."""
    child = world.launch("watched")
    world.wait_for(Event.BEGUN, 3)

    def all_is_on_record() -> bool:
        running = [r for r in world.record().task_runs.values() if r.state.name in _RUNNING]
        with world.store() as store:
            [root] = store.flow_runs(flow="watched", limit=1)
            noted = store.leases.processes(root.id)
        # Two calls and the subflow; and the sleepers, or the processes of Ray.
        return len(running) >= 3 and len(noted) >= 2

    wait_until(all_is_on_record, "what runs is on record")
    world.strike(child.pid)
    assert child.wait() == -signal.SIGKILL
    world.died()
    return child.pid


_RUNNING = {StateName.RUNNING, StateName.RETRYING}


def by_task(world: World) -> dict[str, StateName]:
    runs = world.record().task_runs.values()
    return {run.task: run.state.name for run in runs if run.task != "sturdy"}


def check_crashed(world: World, pid: int) -> None:
    run = run_of(world)
    assert run.state.name is StateName.CRASHED
    assert f"Process {pid} on host" in run.state.message
    assert "is gone; its last sign of life was at 20" in run.state.message
    assert by_task(world) == {
        "booked": StateName.COMPLETED,
        "busy": StateName.CRASHED,
        "watched_child": StateName.CRASHED,
        "gather": StateName.PENDING,
    }
    assert told(world) == HOOKS
    wait_until(lambda: not world.processes(), "nothing is left of the run")


def go_on(world: World) -> None:
    """Resume the run: nothing that is on record is computed again."""
    (world.folder / "journal.go").touch()
    world.resume("watched", run_of(world).id).finish()
    story = world.check()
    assert run_of(world).state.name is StateName.RECOVERED
    assert Counter(e.task for e in story.journal if e.event is Event.BEGUN)["booked"] == 1


def on_threads(make_world: MakeWorld, _: pytest.FixtureRequest) -> World:
    return make_world("local")


def on_threads_with_postgres(make_world: MakeWorld, request: pytest.FixtureRequest) -> World:
    return make_world("local", request.getfixturevalue("postgres_url"))


def on_ray(make_world: MakeWorld, _: pytest.FixtureRequest) -> World:
    return make_world("ray")


@pytest.mark.parametrize(
    "prepared",
    [
        on_threads,
        pytest.param(on_threads_with_postgres, marks=pytest.mark.postgres),
        pytest.param(on_ray, marks=pytest.mark.ray),
    ],
)
def test_a_dead_run_is_reaped_and_resumed(
    prepared: Callable[[MakeWorld, pytest.FixtureRequest], World],
    make_world: MakeWorld,
    request: pytest.FixtureRequest,
) -> None:
    world = prepared(make_world, request)
    pid = kill_it_at_work(world)
    world.start(["-m", "raflow", "reap"]).finish()
    check_crashed(world, pid)
    world.start(["-m", "raflow", "reap"]).finish()
    assert told(world) == HOOKS
    go_on(world)


def test_whoever_runs_a_flow_next_notices_that_a_run_is_dead(make_world: MakeWorld) -> None:
    world = make_world("local", RAFLOW_REAP="1")
    pid = kill_it_at_work(world)
    other = world.launch("chain", seconds=1.5, length=1)
    wait_until(lambda: run_of(world).state.is_final, "the run is recorded as Crashed")
    other.finish()
    check_crashed(world, pid)


@pytest.mark.parametrize("point", ["reaper.before_end", "reaper.before_final_state"])
def test_a_reaper_that_dies_is_followed_by_another(point: str, local_world: World) -> None:
    world = local_world
    pid = kill_it_at_work(world)
    reaper = world.start(["-m", "raflow", "reap"], f"{point}:1:SIGKILL")
    assert reaper.wait() == -signal.SIGKILL
    world.hit(point)
    assert run_of(world).state.type is StateType.RUNNING
    before = told(world)
    world.start(["-m", "raflow", "reap"]).finish()
    run = run_of(world)
    assert run.state.name is StateName.CRASHED
    assert f"Process {reaper.pid} on host" in run.state.message
    assert pid != reaper.pid
    # Hooks are called at least once: those that were called are called again.
    assert told(world) - before == HOOKS
    wait_until(lambda: not world.processes(), "nothing is left of the run")


def test_a_process_that_has_lost_its_run_ends_its_tasks_and_itself(local_world: World) -> None:
    world = local_world
    child = world.launch("watched")
    world.wait_for(Event.BEGUN, 3)
    wait_until(lambda: run_of(world).state.name is StateName.RUNNING, "the run is on record")
    with world.store() as store:
        store.leases.begin_incarnation(
            run_of(world).id, host="another", pid=1, process_started=1.0, seconds=60.0, force=True
        )
    child.finish()
    wait_until(lambda: not world.processes(), "nothing is left of the run")
    assert not run_of(world).state.is_final
    assert told(world) == {}


def test_a_dead_run_is_cancelled_and_what_it_did_is_undone(local_world: World) -> None:
    world = local_world
    kill_it_at_work(world)
    world.start(["-m", "raflow", "cancel", run_of(world).id, "-m", "wrong day"]).finish()
    assert run_of(world).state.name is StateName.CANCELLED
    assert told(world) == {
        "busy Cancelled": 2,
        "watched Cancelled": 1,
        "watched_child Cancelled": 1,
        "undo booked": 1,
    }
    states = by_task(world)
    assert (states["booked"], states["busy"]) == (StateName.ROLLED_BACK, StateName.CANCELLED)
    wait_until(lambda: not world.processes(), "nothing is left of the run")
    (world.folder / "journal.go").touch()
    world.resume("watched", run_of(world).id).finish()
    again = [e for e in world.noted(Event.BEGUN) if e.task == "booked"]
    assert [entry.attempt for entry in again] == [1, 2]
    assert run_of(world).state.name is StateName.RECOVERED
