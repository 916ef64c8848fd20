"""What the Ray backend promises beyond what all backends do."""

from __future__ import annotations

import importlib.util
import os
import pickle
import re
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from raflow import TaskFuture, errors, flow
from raflow.execute import BatchLost, Known, ListOf, ValueRef
from raflow.execute.ray import RayBackend
from raflow.model import Outcome, Resources
from tests.ray import user_tasks as user
from tests.ray.harness import Run, lines, task_of

pytestmark = pytest.mark.ray


def resident() -> int:
    """Bytes of memory that this process has now, shared memory included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- values -------------------------------------------------------------------------------------


def test_values_stay_out_of_the_driver(ray_run: Run) -> None:
    before = resident()
    values = [ray_run.value(user.big_array, {"megabytes": 64})]
    for _ in range(16):
        values.append(ray_run.value(user.pass_on, inputs={"array": values.pop()}))
    sums = [ray_run.value(user.total, inputs={"array": value}) for value in values]
    assert ray_run.session.fetch(sums[0]) == 17.0 * (64 << 17)
    assert resident() - before < 50 << 20


def test_a_fetched_array_is_a_view_of_rays_memory(ray_run: Run) -> None:
    array: Any = ray_run.session.fetch(ray_run.value(user.big_array, {"megabytes": 1}))
    assert array.sum() == 1 << 17
    assert not array.flags.writeable


def test_arguments_are_taken_as_they_are_at_the_call(ray_run: Run) -> None:
    import numpy as np

    for length in (10, 100_000):
        array = np.zeros(length)
        call = ray_run.call(user.total, {"array": array})
        array[:] = 1
        [report] = ray_run.finish(ray_run.submit(call)).report.calls
        assert report.result is not None
        assert report.result.inline == b"0.0"


def test_a_large_argument_travels_once_and_a_large_closure_too(ray_run: Run) -> None:
    ballast = os.urandom(200_000)
    call = ray_run.call(task_of(lambda given: given == ballast), {"given": ballast})
    assert not isinstance(call.function.payload, bytes)
    assert not isinstance(call.arguments[0].payload, bytes)
    assert ray_run.session.fetch(ValueRef(ray_run.finish(ray_run.submit(call)).values, 0)) is True


def test_a_thousand_inputs(ray_run: Run) -> None:
    call = ray_run.call(user.echo, {"value": 1})
    end = ray_run.finish(ray_run.submit(call))
    refs = tuple(ValueRef(end.values, 0) for _ in range(1000))
    value = ray_run.value(user.echo, inputs={"value": ListOf(refs)})
    assert ray_run.session.fetch(value) == [1] * 1000


def test_what_the_driver_knows_need_not_be_importable(ray_run: Run) -> None:
    class Local(Exception):
        pass

    value = ray_run.value(user.echo, inputs={"value": Known(Local("told"))})
    assert isinstance(ray_run.session.fetch(value), Local)


# --- what cannot travel -------------------------------------------------------------------------


def test_an_argument_that_cannot_travel_is_named(ray_run: Run) -> None:
    with pytest.raises(errors.UnserializableArgumentError) as caught:
        ray_run.call(user.add, {"x": 1, "y": {"deep": [threading.Lock()]}})
    for word in ("'add'", "'y'", "builtins.dict", "lock"):
        assert word in str(caught.value)
    assert caught.value.parameter == "y"


def test_a_future_in_an_opaque_object_says_what_to_do(ray_run: Run) -> None:
    made: list[TaskFuture[Any]] = []

    @flow
    def capture() -> None:
        made.append(user.decorated(1))

    capture.compile()
    with pytest.raises(errors.FutureUsedAsValueError, match="cannot look into"):
        ray_run.call(user.echo, {"value": lambda: made})


def test_a_result_that_cannot_travel_is_named(ray_run: Run) -> None:
    report = ray_run.report(user.lock_value)
    assert report.outcome is Outcome.FAILED
    assert report.error is not None
    assert report.error.type == "raflow.errors.UnserializableResultError"
    assert "'lock_value'" in report.message
    assert "_thread.lock" in report.message


def test_a_function_that_cannot_travel_is_named(ray_run: Run) -> None:
    lock = threading.Lock()
    with pytest.raises(errors.SerializationError, match="'<lambda>' cannot be sent"):
        ray_run.call(task_of(lambda: lock))


# --- the user's code ----------------------------------------------------------------------------


def load_module(path: Path, source: str) -> ModuleType:
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def test_code_from_a_file_that_no_process_could_import(ray_run: Run, tmp_path: Path) -> None:
    source = """
class Row:
    def __init__(self, x): self.x = x
class Odd(Exception): pass
FACTOR = 3
def helper(x): return Row(x * FACTOR)
def make(x): return helper(x)
def take(row): assert type(row) is Row; return row.x
def fail(): raise Odd("so odd")
"""
    module = load_module(tmp_path / "flow_from_a_path.py", source)
    row = ray_run.value(module.make, {"x": 2})
    assert isinstance(ray_run.session.fetch(row), module.Row)
    assert ray_run.session.fetch(ray_run.value(module.take, inputs={"row": row})) == 6
    error = ray_run.report(module.fail).error
    assert error is not None
    assert error.pickled is not None
    assert isinstance(pickle.loads(error.pickled), module.Odd)


def test_a_decorated_function_is_found_by_its_name(ray_run: Run) -> None:
    assert ray_run.session.fetch(ray_run.value(task_of(user.decorated.fn), {"x": 4})) == 8


def test_code_that_is_missing_on_the_node_is_said(ray_run: Run, tmp_path: Path) -> None:
    load_module(tmp_path / "only_here.py", "class Thing: pass")
    thing = sys.modules["only_here"].Thing()
    report = ray_run.report(user.echo, {"value": thing})
    assert report.outcome is Outcome.FAILED
    assert "only_here" in report.message
    assert "'echo'" in report.message


# --- logs ---------------------------------------------------------------------------------------


def test_threads_of_a_task_write_to_its_log(ray_run: Run) -> None:
    report = ray_run.report(user.say_from_thread, {"text": "from a thread"})
    assert [line.text for line in lines(report)] == ["from a thread"]


def test_endless_output_is_truncated(ray_run: Run) -> None:
    report = ray_run.report(user.say_endlessly, {"megabytes": 30})
    assert report.outcome is Outcome.COMPLETED
    written = lines(report)
    assert 9_000_000 < sum(len(line.text) for line in written) < 10_000_000
    assert "truncated" in written[-1].text
    assert re.search(r"\b2\d\.?\d* MB more", written[-1].text)


# --- processes that die -------------------------------------------------------------------------


@pytest.mark.parametrize("task", [user.exit_quietly, user.kill_self, user.segfault])
def test_a_process_that_dies_is_a_crash(ray_run: Run, task: Any) -> None:
    loss = ray_run.lose(ray_run.submit(ray_run.call(task)))
    assert loss.outcome is Outcome.CRASHED
    assert "worker process died" in loss.message
    assert ray_run.report(user.add, {"x": 1}).outcome is Outcome.COMPLETED


def test_a_process_killed_from_outside_is_a_crash(ray_run: Run) -> None:
    batch = ray_run.submit(ray_run.call(user.nap, {"seconds": 60}, timeout=60))
    os.kill(ray_run.start_of(batch).pid, signal.SIGKILL)
    assert ray_run.lose(batch).outcome is Outcome.CRASHED


# --- time limits and cancelling -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "arguments"), [(user.nap, {"seconds": 60}), (user.backtrack, {"length": 40})]
)
def test_a_time_limit_ends_a_wait_in_c(ray_run: Run, task: Any, arguments: Any) -> None:
    begun = time.monotonic()
    report = ray_run.report(task, arguments, timeout=0.3)
    assert report.outcome is Outcome.TIMED_OUT
    assert time.monotonic() - begun < 5


def test_code_that_never_comes_back_is_ended_with_its_process(ray_run: Run) -> None:
    begun = time.monotonic()
    loss = ray_run.lose(ray_run.submit(ray_run.call(user.hang_in_c, timeout=0.5)))
    assert loss.outcome is Outcome.TIMED_OUT
    assert "in hang_in_c" in loss.message
    assert time.monotonic() - begun < 10


def test_code_that_swallows_its_time_limit_is_ended_with_its_process(
    ray_run: Run, tmp_path: Path
) -> None:
    call = ray_run.call(user.stubborn, {"path": str(tmp_path / "mark")}, timeout=0.5)
    assert ray_run.lose(ray_run.submit(call)).outcome is Outcome.TIMED_OUT


def test_a_sleeping_task_is_cancelled_in_no_time(ray_run: Run) -> None:
    batch = ray_run.submit(ray_run.call(user.nap, {"seconds": 60}))
    ray_run.start_of(batch)
    begun = time.monotonic()
    ray_run.session.cancel(batch, force=False)
    [report] = ray_run.finish(batch).report.calls
    assert report.outcome is Outcome.CANCELLED
    assert time.monotonic() - begun < 1


def test_a_task_that_has_just_begun_to_sleep_is_cancelled_once_it_is_heard_of(
    ray_run: Run, tmp_path: Path
) -> None:
    warm = ray_run.report(user.process)
    assert warm.outcome is Outcome.COMPLETED
    batch = ray_run.submit(ray_run.call(user.nap, {"seconds": 60}))
    time.sleep(0.2)
    begun = time.monotonic()
    ray_run.session.cancel(batch, force=False)
    end = ray_run.end_of(batch, patience=10)
    outcome = end.outcome if isinstance(end, BatchLost) else end.report.calls[0].outcome
    assert outcome is Outcome.CANCELLED
    assert time.monotonic() - begun < 3


def test_a_stranger_cannot_take_part_and_cannot_block(
    ray_backend: RayBackend, ray_run: Run
) -> None:
    postbox = ray_backend._tools.mailroom.postbox
    with socket.create_connection((postbox.host, postbox.port)) as silent:
        with socket.create_connection((postbox.host, postbox.port)) as loud:
            loud.sendall(b'{"started": [0, 0, 0, -1, 1, 0.0, 1, "x"]}\n' * 10)
            batch = ray_run.submit(ray_run.call(user.nap, {"seconds": 1}))
            assert ray_run.start_of(batch).batch == batch
            ray_run.finish(batch)
        assert silent.fileno() >= 0
    assert len(ray_run.started) == 1


# --- resources ----------------------------------------------------------------------------------


def test_a_runtime_env_reaches_the_task(ray_run: Run) -> None:
    resources = Resources.of(runtime_env={"env_vars": {"FRUIT": "plum"}})
    batch = ray_run.submit(ray_run.call(user.environment, {"name": "FRUIT"}), resources=resources)
    assert ray_run.session.fetch(ValueRef(ray_run.finish(batch).values, 0)) == "plum"


def test_a_runtime_env_that_cannot_be_made_fails_the_batch(ray_run: Run) -> None:
    resources = Resources.of(runtime_env={"working_dir": "gcs://_ray_pkg_nothing_there.zip"})
    loss = ray_run.lose(ray_run.submit(ray_run.call(user.process), resources=resources))
    assert loss.outcome is Outcome.FAILED
    assert "runtime_env" in loss.message


def test_calls_of_equal_resources_share_their_options(ray_backend: RayBackend) -> None:
    remote = ray_backend._tools.remote
    first = remote.for_resources(Resources(num_cpus=0.5))
    assert remote.for_resources(Resources(num_cpus=0.5)) is first
    assert remote.for_resources(Resources(num_cpus=0.25)) is not first
