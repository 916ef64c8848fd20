"""A worker on another host is cut off, or dies, while it runs tasks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from raflow.model import StateName, StateType
from tests.chaos.conftest import MakeWorld
from tests.chaos.hosts import TwoHosts, two_hosts
from tests.chaos.journal import Entry, Event
from tests.chaos.promises import Budget, Story
from tests.chaos.world import Child, World, wait_until

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(240),
]

BUDGETS = {"spread": Budget(crash_retries=3)}
ITEMS = 16


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[TwoHosts]:
    with two_hosts(tmp_path) as made:
        yield made


@pytest.fixture
def world(make_world: MakeWorld, hosts: TwoHosts) -> World:
    made = make_world("ray", **hosts.environment)
    made.prefix = hosts.head.prefix
    return made


def _start(world: World, hosts: TwoHosts) -> tuple[Child, list[Entry]]:
    """Start a run; returns the attempts that run on the worker by then."""
    child = world.launch("everywhere", seconds=1.5, items=ITEMS)

    def there() -> list[Entry]:
        pids = set(hosts.worker.pids())
        return [entry for entry in world.running() if entry.pid in pids]

    wait_until(lambda: bool(there()) or child.process.poll() is not None, "a task on the worker")
    time.sleep(0.3)
    found = there()
    assert found, child.told()
    return child, found


def _check(world: World, lost: list[Entry]) -> Story:
    story = world.check(
        budgets=BUDGETS, fenced=frozenset((entry.key, entry.attempt) for entry in lost)
    )
    [run] = story.record.runs.values()
    assert run.state.name is StateName.COMPLETED
    ends = [task_run.state for task_run in story.record.task_runs.values()]
    assert {state.type for state in ends} == {StateType.COMPLETED}
    assert any(state.name is StateName.RECOVERED for state in ends)
    return story


def test_a_worker_host_that_is_cut_off_and_comes_back(world: World, hosts: TwoHosts) -> None:
    child, lost = _start(world, hosts)
    hosts.cut()
    world.faults.append("the worker was cut off")
    time.sleep(10.0)
    hosts.heal()
    child.finish(120.0)
    _check(world, lost)


def test_a_worker_host_that_is_cut_off_for_a_moment_loses_nothing(
    world: World, hosts: TwoHosts
) -> None:
    child, _ = _start(world, hosts)
    hosts.cut()
    world.faults.append("the worker was cut off for a second")
    time.sleep(1.0)
    hosts.heal()
    child.finish(120.0)
    story = world.check(budgets=BUDGETS)
    [run] = story.record.runs.values()
    assert run.state.name is StateName.COMPLETED
    assert {task_run.attempts for task_run in story.record.task_runs.values()} == {1}
    assert len(world.noted(Event.BEGUN)) == ITEMS + 1


def test_a_worker_host_that_dies(world: World, hosts: TwoHosts) -> None:
    child, lost = _start(world, hosts)
    hosts.kill_worker()
    world.faults.append("the worker died")
    child.finish(120.0)
    _check(world, lost)
