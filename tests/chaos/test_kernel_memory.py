"""The kernel kills a worker for want of memory."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from raflow.model import Outcome, StateName
from tests.chaos.promises import Budget
from tests.chaos.world import World

pytestmark = [pytest.mark.chaos, pytest.mark.ray]

MEGABYTES = 1500
"""For the driver, its Ray and all workers."""


@contextlib.contextmanager
def small_memory(megabytes: int) -> Iterator[Path]:
    """Make a control group with so much memory; its processes must be gone in the end."""
    group = Path("/sys/fs/cgroup/memory", f"chaos-{os.getpid()}")
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(megabytes << 20))
        yield group
    finally:
        deadline = time.monotonic() + 10.0
        while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        group.rmdir()


def test_memory_that_the_kernel_has_not_is_its_own_cause(ray_world: World) -> None:
    # Ray would look itself, and kill before the kernel does.
    ray_world.environment["RAY_memory_monitor_refresh_ms"] = "0"
    with small_memory(MEGABYTES) as group:
        enter = f'echo $$ > {group}/cgroup.procs && exec "$@"'
        ray_world.prefix = ("sh", "-c", enter, "sh")
        ray_world.launch("glutton", megabytes=4000).finish(100.0)
        ray_world.faults.append("a memory limit of the kernel's")
        ray_world.close()
    story = ray_world.check(budgets={"greedy": Budget(crash_retries=1)})
    [run] = story.record.runs.values()
    assert run.state.name is StateName.FAILED
    [task_run] = story.record.task_runs.values()
    assert task_run.state.name is StateName.OUT_OF_MEMORY
    assert "the kernel killed" in task_run.state.message
    [attempts] = story.record.attempts.values()
    assert [attempt.outcome for attempt in attempts] == [Outcome.OUT_OF_MEMORY] * 2
    for attempt in attempts:
        assert "the kernel killed its worker process for want of memory (SIGKILL" in attempt.message
