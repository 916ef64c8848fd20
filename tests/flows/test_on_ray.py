"""What only processes can show: values that stay away, code that kills its process, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from raflow import config, errors, flow, task, unmapped
from raflow.model import Outcome, StateName, StateType
from raflow.store import Store
from tests.flows.conftest import World
from tests.waiting import PATIENCE_SECONDS, wait_for

pytestmark = pytest.mark.ray

GIB = 2**30


@pytest.fixture
def world(local_ray: None, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("RAFLOW_BACKEND", "ray")
    return World("ray", "sqlite")


@task
def add(a: int, b: int = 1) -> int:
    return a + b


def test_a_gigabyte_between_tasks_does_not_pass_through_the_driver(world: World) -> None:
    @task
    def make(gib: float) -> np.ndarray[Any, Any]:
        return np.ones(int(gib * GIB / 8))

    @task
    def halve(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return values[: len(values) // 2]

    @task
    def total(values: np.ndarray[Any, Any]) -> float:
        return float(values.sum())

    @flow
    def heavy(gib: float) -> float:
        return total(halve(make(gib)))

    heavy(0.001)
    process, peak, done = psutil.Process(), 0, threading.Event()

    def own() -> int:
        """Shared memory that the driver merely maps is not its own."""
        memory = process.memory_info()  # at one moment, or what is let go between two looks counts
        return int(memory.rss - memory.shared)

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, own())

    own_before = own()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert heavy(1.0) == GIB / 16
    finally:
        done.set()
        watcher.join()
    assert peak - own_before < 50 * 2**20
    with world.store as store:
        run = store.find_flow_run("latest")
        sizes = {t.label: t.result.size for t in store.task_runs(run.id) if t.result}
    assert sizes["make-0"] >= GIB
    assert sizes["total-0"] < 1000


class TestBadInput:
    def test_an_argument_that_cannot_travel_is_refused_where_it_is_given(
        self, world: World
    ) -> None:
        @flow
        def wrong() -> None:
            add(1).result()
            lock: Any = threading.Lock()
            add(1, b=lock)

        with pytest.raises(errors.UnserializableArgumentError, match=r"'add'.*'b'.*lock"):
            wrong()
        assert world.task_runs()["add-0"].state.name is StateName.COMPLETED

    def test_a_result_that_cannot_travel_fails_its_task(self, world: World) -> None:
        @task
        def locked() -> Any:
            return threading.Lock()

        @flow
        def wrong() -> None:
            locked().result()

        with pytest.raises(errors.UnserializableResultError, match=r"'locked'.*lock"):
            wrong()

    def test_a_task_that_exits_its_process(self, world: World) -> None:
        @task
        def leave() -> None:
            os._exit(0)

        @flow
        def wrong() -> int:
            kept = add(1)
            kept.result()
            leave().result()
            return 1

        with pytest.raises(errors.TaskCrashedError, match="leave-0"):
            wrong()
        runs = world.task_runs()
        assert runs["leave-0"].state.name is StateName.CRASHED
        assert runs["add-0"].state.name is StateName.COMPLETED
        assert world.last_run().state.name is StateName.FAILED

    def test_a_crash_within_its_budget_is_recovered(self, world: World, tmp_path: Path) -> None:
        marker = tmp_path / "tried"

        @task(crash_retries=1)
        def second_time() -> str:
            if not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return "there"

        @flow
        def patient() -> str:
            return second_time()

        assert patient() == "there"
        assert world.task_runs()["second_time-0"].state.name is StateName.RECOVERED
        outcomes = [attempt.outcome for attempt in world.attempts("second_time-0")]
        assert outcomes == ["crashed", "completed"]


def test_a_long_call_is_seen_running_while_it_runs(world: World, tmp_path: Path) -> None:
    go = tmp_path / "go"

    @task
    def slow() -> int:
        wait_for(go.exists)
        return 1

    @flow
    def watched() -> int:
        future = slow()
        wait_for(lambda: future.state.name is StateName.RUNNING)
        go.touch()
        return future.result()

    assert watched() == 1


SCRIPT = """
    import sys, time
    from raflow import flow, task

    @task
    def quick() -> int:
        return 1

    @task(num_cpus=0)
    def slow(n: int) -> int:
        time.sleep(600)
        return n

    @flow(backend=sys.argv[1])
    def long() -> list[int]:
        quick().result()
        mapped = slow.map(range(3))
        print("started", flush=True)
        return mapped

    if __name__ == "__main__":
        long()
"""


@pytest.mark.parametrize("backend", ["local", "ray"])
def test_control_c_ends_everything_cleanly(backend: str, raflow_home: Path, tmp_path: Path) -> None:
    script = tmp_path / "long_flow.py"
    script.write_text(textwrap.dedent(SCRIPT))
    process = subprocess.Popen(
        [sys.executable, str(script), backend],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"RAFLOW_CANCEL_GRACE_SECONDS": "3"},
    )
    try:
        assert process.stdout is not None
        while process.stdout.readline().strip() != "started":
            assert process.poll() is None
        time.sleep(1.0)  # the naps have most likely begun; if not, all else holds too
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
        process.wait()
    assert process.returncode != 0
    assert "FlowRunCancelledError" in told
    settings = config.load()
    with Store.open(settings.database, log_dir=settings.logs) as store:
        run = store.find_flow_run("latest")
        assert run.state.name is StateName.CANCELLED
        states = {t.label: t.state.name for t in store.task_runs(run.id)}
    assert states["quick-0"] is StateName.COMPLETED
    assert {states[f"slow-0[{n}]"] for n in range(3)} == {StateName.CANCELLED}


CANCELS = """
    import random, sys, time
    from raflow import flow, task

    @task
    def short(seconds: float) -> None:
        time.sleep(seconds)

    @flow(backend="ray")
    def stopped(rounds: int, wait: float) -> None:
        short.map([random.choice([0, 0, 0.001, 0.005]) for _ in range(200)])
        time.sleep(wait)
        raise KeyboardInterrupt

    for number in range(20):
        outcome = stopped.run(number, random.random() * 0.1)
        assert outcome.flow_run.state.name == "Cancelled", outcome.flow_run.state

    import ray
    from raflow.execute.ray import RayBackend

    close = RayBackend.close

    def told(self: RayBackend) -> None:
        print("Ray is there:", ray.is_initialized())
        close(self)

    RayBackend.close = told
    print("still here")
"""


def test_cancelling_at_any_moment_leaves_the_driver_alive(raflow_home: Path) -> None:
    """Ray aborts the driver if a task ends while it is cancelled without force.

    It also ends it, at once or never, if a thread asks for something while it is shut down: raflow
    lets go of it before that.
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CANCELS)],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.stdout.endswith("still here\nRay is there: True\n"), done.stderr[-2000:]
    assert done.returncode == 0, done.stderr[-2000:]


def test_an_argument_of_an_item_that_cannot_travel_fails_that_item(world: World) -> None:
    items = [1, 2, 3, (x for x in "generator"), 5]

    @task
    def kind(item: object) -> str:
        return type(item).__name__

    @flow
    def kinds() -> list[str]:
        values = kind.map(items).result(raise_on_failure=False)
        return [v if isinstance(v, str) else type(v).__name__ for v in values]

    found = kinds()
    assert [v for v in found if v == "int"] == ["int"] * 4
    assert found[3] != "int"
    message = world.task_runs()["kind-0[3]"].state.message
    assert "'item'" in message
    assert "cannot be sent" in message


def test_the_first_item_that_cannot_travel_is_an_error_at_the_call(world: World) -> None:
    @task
    def double(x: int) -> int:
        return 2 * x

    @flow
    def bad() -> None:
        double.map([(x for x in "abc")])

    with pytest.raises(errors.UnserializableArgumentError, match="'x'"):
        bad()


@pytest.mark.parametrize("killed", [True, False])
def test_a_call_that_ends_its_process_harms_only_itself(
    world: World, tmp_path: Path, killed: bool
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()

    @task
    def work(x: int, marks: str) -> int:
        with open(f"{marks}/{x}", "a") as file:
            file.write(".")
        if x == 500:
            if killed:
                os.kill(os.getpid(), signal.SIGKILL)
            os._exit(3)
        return x

    @flow
    def many() -> list[object]:
        values = work.map(range(1000), marks=unmapped(str(marks))).result(raise_on_failure=False)
        return [v if isinstance(v, int) else type(v).__name__ for v in values]

    expected: list[object] = list(range(1000))
    expected[500] = "TaskCrashedError"
    assert many() == expected
    with world.store as store:
        run = store.find_flow_run("latest")
        counts = store.task_run_counts(run.id)[0]
        assert counts == {StateType.COMPLETED: 999, StateType.CRASHED: 1}
        (crashed,) = store.task_runs(run.id, state_types={StateType.CRASHED})
        assert crashed.key.map_index == 500
        attempts = store.attempts(run.id)
    # Whatever ran more often than once has a recorded reason for it.
    ran = {x: (marks / str(x)).stat().st_size for x in range(1000)}
    told = Counter(attempt.key.map_index for attempt in attempts)
    assert all(told[x] >= ran[x] for x in range(1000))
    assert ran[500] == 1


def test_what_the_neighbours_of_a_killed_call_had_stored_is_removed(
    world: World, tmp_path: Path
) -> None:
    own = tmp_path / "own"

    @task(persist_result=True, result_storage=str(own), crash_retries=1)
    def large(x: int, died: str) -> str:
        if x == 60 and not os.path.exists(died):
            Path(died).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return f"{x}" * 50_000

    @flow
    def many(died: str) -> int:
        return len(large.map(range(10, 110), died=unmapped(died)).result())

    def neighbours(died: Path) -> int:
        """How many calls had to run again because call 60 ended the process they shared."""
        assert many(str(died)) == 100
        with world.store as store:
            run = store.find_flow_run("latest")
            urls = {row.result.url for row in store.task_runs(run.id) if row.result is not None}
            again = [a for a in store.attempts(run.id) if a.outcome is not Outcome.COMPLETED]
        assert len(urls) == 100
        assert {f"file://{path}" for path in (own / run.id).iterdir()} == urls
        return len(again) - 1

    # A batch is as large as time allows, so on a slow machine a call may die alone.
    assert any(neighbours(tmp_path / f"died {turn}") > 0 for turn in range(20))


def test_a_chain_over_large_arrays_keeps_the_object_store_small(world: World) -> None:
    @task
    def make(megabytes: int) -> np.ndarray[Any, Any]:
        return np.zeros(megabytes * 125_000)

    @task
    def add_one(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return array + 1

    @task
    def first(array: np.ndarray[Any, Any]) -> float:
        return float(array[0])

    @flow
    def steps(megabytes: int, count: int) -> float:
        array = make(megabytes)
        for _ in range(count):
            array = add_one(array)
        return first(array)

    assert steps(1, 2) == 2
    before = store_megabytes()
    assert steps(100, 20) == 20
    assert store_megabytes() - before < 320


def store_megabytes() -> float:
    """How much of the object store of this process's Ray has ever been touched."""
    for process in psutil.Process().children(recursive=True):
        if process.name() == "raylet":
            for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
                if "plasma" in os.readlink(descriptor):
                    return descriptor.stat().st_blocks * 512 / 1e6
    raise LookupError("there is no raylet below this process")
