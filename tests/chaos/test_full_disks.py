"""The disk of the database, of results or of logs is full."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raflow.model import StateName
from tests.chaos.journal import Event
from tests.chaos.world import World

pytestmark = pytest.mark.chaos


@contextmanager
def small_disk(path: Path, kilobytes: int) -> Iterator[None]:
    """Put a disk of that size at a path."""
    path.mkdir(parents=True, exist_ok=True)
    options = f"size={kilobytes}k,mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


def fill(path: Path) -> None:
    """Take all space that is left."""
    with path.open("wb", buffering=0) as file:
        size = 1 << 20
        while size >= 512:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


def test_a_record_goes_on_when_there_is_space_again(local_world: World) -> None:
    with small_disk(local_world.home, 8 << 10):
        local_world.launch("fan", seconds=0.0, items=1).finish()
        child = local_world.launch("fan", seconds=0.2, items=20)
        local_world.wait_for(Event.BEGUN, 4)
        ballast = local_world.home / "ballast"
        fill(ballast)
        local_world.faults.append("the disk of the record was full")
        local_world.wait_for(Event.DONE, 3 + 22)
        time.sleep(0.5)
        assert child.process.poll() is None, "an end was told that cannot be on record"
        ballast.unlink()
        child.finish()
        story = local_world.check()
    assert [run.state.name for run in story.record.runs.values()] == [StateName.COMPLETED] * 2
    assert len(story.record.task_runs) == 3 + 22


@pytest.mark.slow
def test_a_record_that_stays_full_is_an_error_and_no_lie(local_world: World) -> None:
    with small_disk(local_world.home, 8 << 10):
        local_world.launch("fan", seconds=0.0, items=1).finish()
        child = local_world.launch("fan", seconds=0.2, items=20)
        local_world.wait_for(Event.BEGUN, 4)
        fill(local_world.home / "ballast")
        local_world.faults.append("the disk of the record was full")
        assert child.wait(90.0) == 1
        assert "StoreError" in child.told()
        assert "Free disk space" in child.told()
        (local_world.home / "ballast").unlink()
        local_world.check(abandoned=True)


def test_results_that_find_no_space_fail_their_tasks_and_nothing_else(local_world: World) -> None:
    results = local_world.folder / "results"
    local_world.environment["RAFLOW_RESULT_STORAGE"] = str(results)
    with small_disk(results, 1 << 10):
        local_world.launch("heavy", kilobytes=300, items=6).finish()
        local_world.faults.append("the disk of results was full")
        story = local_world.check()
        kept = [path for path in results.rglob("*") if path.is_file()]
        ends = [task_run.state for task_run in story.record.task_runs.values()]
        completed = [state for state in ends if state.name is StateName.COMPLETED]
        failed = [state for state in ends if state.name is StateName.FAILED]
        assert 1 <= len(completed) <= 3
        assert len(completed) + len(failed) == 6
        assert all("No space left" in state.message for state in failed)
        # Nothing half-written is left behind.
        assert len(kept) == len(completed)
    [run] = story.record.runs.values()
    assert run.state.name is StateName.FAILED


def test_logs_that_find_no_space_are_dropped_and_the_record_goes_on(local_world: World) -> None:
    logs = local_world.home / "logs"
    with small_disk(logs, 4 << 10):
        fill(logs / "ballast")
        child = local_world.launch("wordy", kilobytes=1 << 10)
        child.finish()
        local_world.faults.append("the disk of logs was full")
        story = local_world.check()
        [run] = story.record.runs.values()
        assert run.state.name is StateName.COMPLETED
        assert child.told().count("Log lines are lost") == 1
        assert "No space left" in child.told()
        (logs / "ballast").unlink()
        local_world.launch("wordy", kilobytes=1).finish()
        with local_world.store() as store:
            [_, later] = sorted(store.flow_runs(), key=lambda run: run.created_at)
            assert not list(store.log_segments(run.id))
            assert sum(s.lines for s in store.log_segments(later.id) if store.read_log(s)) > 0
