"""A driver dies when the record knows of a subflow call, or of its run, but not of both."""

from __future__ import annotations

import sqlite3

import pytest

from raflow.model import FlowRun, StateName
from tests.chaos.journal import Event
from tests.chaos.promises import Story
from tests.chaos.world import Child, World, wait_until

pytestmark = pytest.mark.chaos

_HOLD = "sleep=600"


def _children(world: World) -> list[FlowRun]:
    return [run for run in world.record().runs.values() if run.parent_id is not None]


def _linked(world: World) -> bool:
    return any(run.child_flow_run_id for run in world.record().task_runs.values())


def _die(world: World, child: Child) -> None:
    child.kill()
    world.faults.append("SIGKILL of the driver")
    world.died()


def _go_on(world: World) -> Story:
    """Resume, and be sure that there is one run of the subflow, which is linked."""
    world.resume("everything").finish()
    story = world.check(lease=10.0)
    ends = {run.state.name for run in story.record.runs.values()}
    assert ends <= {StateName.COMPLETED, StateName.RECOVERED}
    [run] = _children(world)
    [call] = [one for one in story.record.task_runs.values() if one.task == "inner"]
    assert call.child_flow_run_id == run.id
    return story


def test_the_run_of_the_subflow_was_not_on_record(local_world: World) -> None:
    child = local_world.launch("everything", f"run.before_record:2:{_HOLD}")
    wait_until(lambda: _linked(local_world), "a call that knows its run")
    _die(local_world, child)
    assert not _children(local_world)
    _go_on(local_world)


@pytest.mark.parametrize("linked", [True, False])
def test_the_run_of_the_subflow_had_completed(linked: bool, local_world: World) -> None:
    child = local_world.launch("everything", f"run.after_final_state:1:{_HOLD}")
    wait_until(
        lambda: any(run.state.name is StateName.COMPLETED for run in _children(local_world)),
        "a run of the subflow that has completed",
    )
    wait_until(lambda: _linked(local_world), "a call that knows its run")
    if not linked:
        _forget_links(local_world)
    _die(local_world, child)
    story = _go_on(local_world)
    begun = [one for one in story.journal if one.event is Event.BEGUN]
    assert sum(one.task == "hooked" for one in begun) == 1, "what had completed has run again"


def test_the_run_of_the_subflow_had_begun_and_nobody_knew_whose_it_was(local_world: World) -> None:
    child = local_world.launch("everything", f"run.before_final_state:1:{_HOLD}")
    wait_until(lambda: _linked(local_world) and bool(_children(local_world)), "a run on record")
    _die(local_world, child)
    _forget_links(local_world)
    _go_on(local_world)


def _forget_links(world: World) -> None:
    """Take back what was put on record last."""
    with sqlite3.connect(world.home / "raflow.db") as connection:
        connection.execute("UPDATE task_runs SET child_flow_run_id = NULL")
    connection.close()
