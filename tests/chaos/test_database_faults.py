"""The database is locked, for a while or for long."""

from __future__ import annotations

import time

import pytest

from raflow.model import StateName
from tests.chaos.conftest import MakeWorld
from tests.chaos.faults import locked
from tests.chaos.journal import Event
from tests.chaos.world import Child, World

pytestmark = pytest.mark.chaos


def _lock_in_mid_run(world: World, seconds: float) -> Child:
    """Run something while another writer holds the database, from the first task on."""
    world.launch("fan", seconds=0.0, items=1).finish()  # makes the database
    child = world.launch("fan", seconds=0.2, items=20)
    world.wait_for(Event.BEGUN, 4)
    with locked(world):
        time.sleep(seconds)
    return child


def _check(world: World) -> None:
    story = world.check()
    assert [run.state.name for run in story.record.runs.values()] == [StateName.COMPLETED] * 2
    assert len(story.record.task_runs) == 3 + 22


def test_a_long_writer_only_delays_the_record(local_world: World) -> None:
    _lock_in_mid_run(local_world, 3.0).finish()
    _check(local_world)


@pytest.mark.postgres
def test_a_locked_table_only_delays_the_record(make_world: MakeWorld, postgres_url: str) -> None:
    world = make_world("local", postgres_url)
    _lock_in_mid_run(world, 3.0).finish()
    _check(world)


@pytest.mark.slow
def test_a_writer_that_holds_it_longer_than_one_is_waited_for(local_world: World) -> None:
    _lock_in_mid_run(local_world, 14.0).finish()
    _check(local_world)


@pytest.mark.slow
def test_a_writer_that_never_ends_is_an_error_and_no_lie(local_world: World) -> None:
    local_world.launch("fan", seconds=0.0, items=1).finish()
    child = local_world.launch("fan", seconds=0.2, items=20)
    local_world.wait_for(Event.BEGUN, 4)
    with locked(local_world):
        assert child.wait(90.0) == 1
    assert "StoreError" in child.told()
    # The client was not told of an end that is not on record.
    local_world.check(abandoned=True)
