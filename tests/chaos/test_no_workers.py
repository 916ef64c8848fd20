"""Ray can start no worker process any more: the run says so, ends, and can be resumed."""

from __future__ import annotations

import psutil
import pytest

from raflow.model import StateName
from tests.chaos.journal import Event
from tests.chaos.promises import Budget
from tests.chaos.world import World, wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.ray]

BUDGETS = {"sturdy": Budget(crash_retries=3)}


def test_a_run_whose_worker_processes_cannot_start_says_so_and_ends(ray_world: World) -> None:
    ray_world.environment["RAFLOW_WORKER_START_SECONDS"] = "14"
    child = ray_world.launch("chain", seconds=8.0, length=1)
    ray_world.wait_for(Event.BEGUN)
    token = ray_world.home / "ray" / "token"
    token.unlink()
    token.mkdir()  # a file that was merely removed is put back
    for process in psutil.Process(ray_world.find("raylet")).children():
        if "Agent" not in " ".join(process.cmdline()):
            ray_world.strike(process.pid)

    def reason() -> str:
        [run] = ray_world.record().runs.values()
        assert not run.state.is_final or run.state.name is StateName.CRASHED, run.state
        return run.state.reason

    wait_until(lambda: "Ray cannot start worker processes" in reason(), "the run says why it waits")
    assert str(token) in reason()
    child.wait()
    [run] = ray_world.died().runs.values()
    assert run.state.name is StateName.CRASHED
    assert "Ray has not been able to start a worker process" in run.state.message
    assert str(token) in run.state.message
    assert "raflow resume" in run.state.message
    assert run.error is not None
    assert run.error.type.endswith("WorkerStartError")
    token.rmdir()
    del ray_world.environment["RAFLOW_WORKER_START_SECONDS"]
    ray_world.resume("chain").finish()
    story = ray_world.check(budgets=BUDGETS)
    [run] = story.record.runs.values()
    assert run.state.name is StateName.RECOVERED
