"""What the runtime does when something other than user code fails."""

from __future__ import annotations

import contextvars
import importlib
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from raflow import config, engine, errors, flow, runtime, task
from raflow.model import FlowRun, GraphNode, StateName, TaskRunBlock, TaskRunKey
from raflow.store import Store
from tests.flows.conftest import World
from tests.waiting import PATIENCE_SECONDS


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("RAFLOW_BACKEND", "local")
    return World("local", "sqlite")


@task
def add(a: int, b: int = 1) -> int:
    return a + b


def test_a_bug_in_raflow_ends_the_run_as_crashed_and_nobody_waits_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: engine.Engine, event: engine.Event) -> list[engine.Command]:
        raise RuntimeError(f"cannot take {type(event).__name__}")

    @flow
    def hapless() -> int:
        return add(1).result()

    monkeypatch.setattr(engine.Engine, "handle", broken)
    outcome = runtime.run_flow(hapless, {})
    assert outcome.flow_run.state.name is StateName.CRASHED
    assert "cannot take CallsRegistered" in outcome.flow_run.state.message
    assert world.last_run().state.name is StateName.CRASHED


def test_a_value_is_kept_for_whoever_has_its_future_however_late_a_call_is_registered(
    world: World,
) -> None:
    begun, made = threading.Event(), threading.Event()

    class Slow(runtime.Observer):
        def node_added(self, flow_run_id: str, node: GraphNode) -> None:
            if node.id == 0:
                begun.set()
                made.wait(PATIENCE_SECONDS)

    @flow
    def wasteful() -> int:
        first = add(1)
        begun.wait(PATIENCE_SECONDS)
        kept = add(2)
        add(3)  # nobody has its future: it is dropped before the call is registered
        made.set()
        kept.wait()
        add(first).result()  # by then what nobody can ask for is let go
        return kept.result()

    assert runtime.run_flow(wasteful, {}, observers=[Slow()]).unwrap() == 3


def test_an_observer_that_fails_changes_nothing(world: World) -> None:
    seen: list[TaskRunKey] = []

    class Clumsy(runtime.Observer):
        def task_runs_completed(self, block: TaskRunBlock) -> None:
            seen.extend(chunk.key(0) for chunk in block.chunks)
            raise RuntimeError("clumsy")

        def flow_run_changed(self, run: FlowRun) -> None:
            raise RuntimeError("clumsy")

    @flow
    def watched() -> int:
        return add(1)

    outcome = runtime.run_flow(watched, {}, observers=[Clumsy()])
    assert outcome.unwrap() == 2
    assert seen == [TaskRunKey(0)]


def test_a_future_that_outlives_its_run_says_so(world: World) -> None:
    kept: list[Any] = []

    @task
    def forget(n: int) -> int:
        return n

    @flow
    def leaky() -> None:
        kept.append(forget.submit(1, run_if=True))

    leaky()
    assert kept[0].result() == 1, "what has a value keeps it"

    with pytest.raises(errors.DefinitionError, match="flow run has ended"):
        kept[0]._context.length(99)


def test_many_threads_may_call_tasks_of_one_flow(world: World) -> None:
    @flow
    def busy() -> int:
        futures: list[Any] = []

        def call() -> None:
            for n in range(50):
                futures.append(add(n))  # noqa: PERF401 - each call is what is tested

        threads = [
            threading.Thread(target=contextvars.copy_context().run, args=(call,)) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(future.result() for future in futures)

    assert busy() == 4 * sum(range(1, 51))
    assert len(world.task_runs()) == 200


def test_the_database_cannot_be_opened(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    not_a_database = tmp_path / "x.db"
    not_a_database.write_text("this is no database, and long enough to look at" * 100)
    monkeypatch.setenv("RAFLOW_DATABASE_URL", f"sqlite:///{not_a_database}")
    ran: list[int] = []

    @flow
    def never() -> None:
        ran.append(1)

    with pytest.raises(errors.StoreError, match=r"x\.db"):
        never()
    assert not ran


def test_a_setting_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAFLOW_BACKEND", "dask")

    @flow
    def never() -> None: ...

    with pytest.raises(errors.ConfigError, match=r"RAFLOW_BACKEND='dask'"):
        never()


def test_a_chain_of_a_thousand_failures_is_no_problem(world: World) -> None:
    @task
    def fail() -> int:
        raise ValueError("at the top")

    @flow
    def deep() -> None:
        value = fail()
        for _ in range(1_000):
            value = add(value)

    with pytest.raises(errors.FlowRunFailedError, match="1000 more could not run"):
        deep()
    settings = config.load()
    with Store.open(settings.database, log_dir=settings.logs) as store:
        run = store.find_flow_run("latest")
        states = {t.state.name for t in store.task_runs(run.id)}
    assert states == {StateName.FAILED, StateName.UPSTREAM_FAILED}


def test_an_interruption_in_an_import_leaves_imports_working(world: World, tmp_path: Path) -> None:
    """Python would hold its import lock for ever if the exception hit the wrong moment."""
    package = tmp_path / "modules"
    package.mkdir()
    for number in range(300):
        (package / f"interrupted_{number}.py").write_text("import time\ntime.sleep(0.002)\n")

    @task(num_cpus=0)
    def imports(first: int) -> None:
        sys.path.insert(0, str(package))
        try:
            for number in range(300):
                importlib.import_module(f"interrupted_{(number + first) % 300}")
        finally:
            sys.path.remove(str(package))

    @flow
    def hasty() -> None:
        imports.map(range(0, 300, 30))
        time.sleep(0.1)
        raise RuntimeError("enough")

    for _ in range(5):
        with pytest.raises(RuntimeError, match="enough"):
            hasty()
        for number in range(300):
            sys.modules.pop(f"interrupted_{number}", None)
    done: list[int] = []

    def try_it() -> None:
        importlib.import_module("this")
        done.append(1)

    sys.modules.pop("this", None)
    thread = threading.Thread(target=try_it, daemon=True)
    thread.start()
    thread.join(timeout=100)
    assert done == [1], "importing hangs"


TRACED = """
import sys, threading, time
from raflow import flow, task

@task(timeout_seconds=30)
def slow(n: int) -> int:
    time.sleep(0.01)
    return n

@flow(backend="local")
def debugged() -> list[int]:
    return slow.map(range(20))

called = set()
threading.settrace(lambda frame, event, _: called.add(frame.f_code.co_name))
assert debugged() == list(range(20))
assert "slow" in called
"""


def test_a_local_run_can_be_traced(world: World) -> None:
    """Debuggers and coverage trace functions, which must not get in the way of time limits."""
    subprocess.run([sys.executable, "-c", TRACED], check=True, timeout=200)
