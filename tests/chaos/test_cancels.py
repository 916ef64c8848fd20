"""Cancels at random times and at crash points, and deaths in the middle of them."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from raflow._util import CRASH_POINTS
from raflow.model import FlowRun, RequestKind, StateName, StateType
from tests.chaos.journal import Event
from tests.chaos.world import World, wait_until

pytestmark = pytest.mark.chaos

GRACE = 1.0
RUNS = 4


def newest(world: World) -> FlowRun:
    with world.store() as store:
        run, *_ = store.flow_runs(roots=True)
    return run


def ends_once(world: World) -> None:
    """Make sure that nothing has come to a final state twice."""
    with world.store() as store:
        for run in store.flow_runs(limit=None):
            changes = store.states(run.id)
            ends = Counter(change.key for change in changes if change.state.is_final)
            assert set(ends.values()) <= {1}, ends


def children(journal: Path) -> list[str]:
    """Find the processes that tasks have started."""
    mark = f"\0{journal}\0".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes()
        except OSError:
            continue
        if words.startswith(b"sh\0") and mark in words:
            found.append(entry.parent.name)
    return found


def _begins(world: World, number: int) -> Callable[[], bool]:
    """Tell whether tasks of so many runs have begun."""
    return lambda: len({entry.run for entry in world.noted(Event.BEGUN)}) >= number


def _cancelled(seed: int, world: World) -> None:
    """Cancel runs of one process, each at some time, by Ctrl-C and by request in turn."""
    rng = random.Random(seed)
    world.environment["RAFLOW_CANCEL_GRACE_SECONDS"] = str(GRACE)
    parameters = {"seconds": 120.0, "items": 40}
    child = world.launch_all([("forks", parameters)] * RUNS)
    for number in range(RUNS):
        wait_until(_begins(world, number + 1), f"run {number + 1}")
        time.sleep(rng.uniform(0.0, 0.5))
        world.cancel(child, by_request=bool((number + seed) % 2))
    child.finish()
    story = world.check(grace=GRACE)
    assert {run.state.name for run in story.record.runs.values()} == {StateName.CANCELLED}
    states = {task_run.state.name for task_run in story.record.task_runs.values()}
    assert states == {StateName.CANCELLED}
    ends_once(world)
    wait_until(lambda: not children(world.journal), "an end of what tasks have started")


@pytest.mark.ray
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in range(1, 6))]
)
def test_a_run_that_is_cancelled_at_any_time_ends_with_all_it_has_started(
    seed: int, joined_world: World
) -> None:
    _cancelled(seed, joined_world)


@pytest.mark.ray
def test_calls_that_are_cancelled_at_any_time_end_once(joined_world: World) -> None:
    rng = random.Random(4)
    delays = [rng.uniform(0.0, 1.0) for _ in range(6)]
    joined_world.launch("fickle", seconds=0.2, items=8, delays=delays).finish()
    joined_world.faults.append("a cancel of calls")
    story = joined_world.check(tolerated=frozenset({"wide"}))
    [run] = story.record.runs.values()
    assert run.state.name is StateName.COMPLETED
    ends = {task_run.state.name for task_run in story.record.task_runs.values()}
    assert StateName.CANCELLED in ends
    assert ends <= {StateName.COMPLETED, StateName.CANCELLED}
    ends_once(joined_world)
    # What was waited for after a cancel is over: nothing of it is heard of any more.
    for marker in (entry for entry in story.journal if entry.task == "step"):
        late = [e for e in story.journal if e.node < marker.node and e.time > marker.time]
        assert not late


_POINTS = [
    point
    for point in CRASH_POINTS
    if point.startswith(("driver.", "recorder.", "store.", "worker.")) and "log" not in point
]


@pytest.mark.parametrize("point", _POINTS)
def test_a_cancel_is_heard_at(point: str, local_world: World) -> None:
    """The process stands at the point when it comes; what ends there may end in either way."""
    nth = 1 if point == "driver.before_subflow" else 2
    child = local_world.launch("everything", f"{point}:{nth}+:sleep=0.3")
    path = local_world.counts / point
    wait_until(lambda: path.exists() and path.stat().st_size >= nth, point)
    child.signal(signal.SIGINT)
    child.wait()
    local_world.hit(point, nth)
    story = local_world.check(abandoned=True)
    for run in story.record.runs.values():
        assert run.state.type in {StateType.CANCELLED, StateType.COMPLETED}
    ends_once(local_world)


def _cancelled_again(world: World) -> None:
    """Cancel a run whose process died while it was being cancelled."""
    world.died()
    world.raflow("cancel", "latest").finish()
    story = world.check()
    assert {run.state.name for run in story.record.runs.values()} == {StateName.CANCELLED}
    assert {run.state.is_final for run in story.record.task_runs.values()} == {True}
    ends_once(world)


@pytest.mark.parametrize("point", ["run.before_cancelling", "request.before_answer"])
def test_a_process_that_dies_while_its_run_is_cancelled(point: str, local_world: World) -> None:
    child = local_world.launch("chain", f"{point}:1:SIGKILL", seconds=0.5, length=20)
    local_world.wait_for(Event.BEGUN)
    local_world.ask(RequestKind.CANCEL)
    assert child.wait() == -signal.SIGKILL
    local_world.hit(point)
    if point == "request.before_answer":
        # Whoever goes on with it must know.
        assert newest(local_world).state.name is StateName.CANCELLING
    _cancelled_again(local_world)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_process_on_ray_that_dies_while_its_run_is_cancelled(
    seed: int, joined_world: World
) -> None:
    child = joined_world.launch("hardy", seconds=20.0, items=8)
    joined_world.wait_for(Event.BEGUN, 2)
    joined_world.cancel(child, by_request=bool(seed % 2))
    time.sleep(random.Random(seed).uniform(0.0, 0.5))
    joined_world.strike(child.pid)
    child.wait()
    killed = time.time()
    if newest(joined_world).state.is_final:
        return
    _cancelled_again(joined_world)
    assert not [entry for entry in joined_world.entries() if entry.time > killed + 5.0]
