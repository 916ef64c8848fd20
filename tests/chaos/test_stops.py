"""Processes stop for longer than they may, and wake up when others have taken their place."""

from __future__ import annotations

import contextlib
import signal
import time

import pytest

from raflow.model import StateName
from tests.chaos.journal import Event
from tests.chaos.promises import Budget
from tests.chaos.world import PATIENCE, Child, World
from tests.store.times import let_pass

pytestmark = [pytest.mark.chaos, pytest.mark.ray]

LEASE = 10.0
WORKER_LEASE = 15.0
BUDGETS = {"sturdy": Budget(crash_retries=3)}
DONE = frozenset({StateName.COMPLETED, StateName.RECOVERED})


def _stop_driver(world: World) -> Child:
    """Run something on Ray, and stop the process that drives it, while both its calls run."""
    given = {"journal": world.journal, "seconds": 8.0}
    parameters = [f"--param={name}={value}" for name, value in given.items()]
    child = world.raflow("run", "tests.chaos.programs.flows:pair", *parameters)
    world.wait_for(Event.BEGUN, 2)
    # A run is on record before its body begins, if that is known to be its own.
    world.wait_for_state(StateName.RUNNING)
    world.strike(child.pid, signal.SIGSTOP)
    world.died()
    return child


def _wake(world: World, stopped: Child) -> None:
    """Let the stopped process go on; it must find out by itself, and change nothing."""
    before = world.record()
    [run] = before.runs.values()
    assert (run.state.name, run.incarnation) == (StateName.RECOVERED, 2)
    world.strike(stopped.pid, signal.SIGCONT)
    assert stopped.wait() == 1
    assert "another process" in stopped.told()
    assert world.record() == before
    ran = [entry for entry in world.entries() if entry.epoch == 1]
    in_vain = frozenset((entry.key, entry.attempt) for entry in ran)
    story = world.check(budgets=BUDGETS, fenced=in_vain)
    assert {task_run.state.name for task_run in story.record.task_runs.values()} <= DONE
    assert len(world.noted(Event.BEGUN)) == 4


def test_a_driver_that_wakes_up_after_its_run_was_taken_has_nothing_to_say(
    joined_world: World,
) -> None:
    stopped = _stop_driver(joined_world)
    with joined_world.store() as store:
        let_pass(store, -PATIENCE)  # however slow the next process is, the lease is not over
    refused = joined_world.raflow("resume", "latest")
    assert refused.wait() == 2
    assert "--force" in refused.told()
    joined_world.raflow("resume", "latest", "--force").finish()
    _wake(joined_world, stopped)


@pytest.mark.slow
def test_a_driver_that_is_silent_for_longer_than_its_lease_loses_its_run(
    joined_world: World,
) -> None:
    stopped = _stop_driver(joined_world)
    time.sleep(LEASE + 1.0)
    joined_world.raflow("resume", "latest").finish()
    _wake(joined_world, stopped)


@pytest.mark.slow
def test_a_worker_that_is_silent_for_longer_than_its_lease_is_replaced(
    joined_world: World,
) -> None:
    child = joined_world.launch("hardy", seconds=4.0, items=2)
    joined_world.wait_for(Event.BEGUN, 2)
    time.sleep(2.0)  # a lease begins when a call has run for half a second
    hit = joined_world.running()[-1]
    joined_world.strike(hit.pid, signal.SIGSTOP)
    time.sleep(WORKER_LEASE + 3.0)
    with contextlib.suppress(ProcessLookupError):  # it was ended meanwhile
        joined_world.strike(hit.pid, signal.SIGCONT)
    child.finish()
    story = joined_world.check(budgets=BUDGETS)
    [run] = story.record.runs.values()
    assert run.state.name is StateName.COMPLETED
    ends = {key: task_run.state.name for key, task_run in story.record.task_runs.items()}
    assert set(ends.values()) <= DONE
    assert ends[hit.key] is StateName.RECOVERED
