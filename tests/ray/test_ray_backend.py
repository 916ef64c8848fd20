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
import ray

import raflow
from raflow import TaskFuture, errors, flow
from raflow.execute import BatchLost, Known, ListOf
from raflow.execute.ray import RayBackend
from raflow.model import Outcome, Resources
from tests.ray import user_tasks as user
from tests.ray.harness import Run, lines, task_of
from tests.waiting import LIMITS, wait_for

pytestmark = pytest.mark.ray


def resident() -> int:
    """Bytes of memory that this process has now, shared memory included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def store_bytes() -> float:
    """Bytes that are used of the object store; Ray tells it some tenths of a second later."""
    name = "object_store_memory"
    return float(ray.cluster_resources()[name] - ray.available_resources()[name])


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


@pytest.mark.parametrize("make", [user.big_array, user.big_table])
def test_large_data_pass_from_task_to_task_without_a_copy(ray_run: Run, make: Any) -> None:
    data = ray_run.value(make, {"megabytes": 64})
    before: dict[int, int] = {}
    addresses: dict[int, set[int]] = {}
    for _ in range(4):
        pids = ray_run.submit(ray_run.call(user.process), ray_run.call(user.own_memory))
        before.setdefault(ray_run.fetch(pids, 0), ray_run.fetch(pids, 1))
        batch = ray_run.submit(
            ray_run.call(user.process),
            ray_run.call(user.buffer_of, inputs={"data": data}),
            ray_run.call(user.buffer_of, inputs={"data": data}),
        )
        pid = ray_run.fetch(batch, 0)
        for position in (1, 2):
            address, mapped, own = ray_run.fetch(batch, position)
            addresses.setdefault(pid, set()).add(address)
            assert "/dev/shm/" in mapped
            assert own - before.get(pid, own) < 16 << 20
    assert all(len(seen) == 1 for seen in addresses.values())


def test_a_large_value_is_an_object_of_its_own_and_is_freed_alone(ray_run: Run) -> None:
    wait_for(lambda: store_bytes() < 1 << 20)  # what earlier tests have left is freed
    batch = ray_run.submit(
        ray_run.call(user.echo, {"value": "small"}),
        ray_run.call(user.big_array, {"megabytes": 64}),
        ray_run.call(user.big_text, {"length": 1 << 20}),
        own_values=3,
    )
    end = ray_run.finish(batch)
    assert dict(end.report.own) == {1: 1, 2: 2}
    assert len(end.values) == 3
    small, array, text = (ray_run.ref(batch, position) for position in range(3))
    assert array.position == text.position == -1
    assert ray_run.session.fetch(text) == "x" * (1 << 20)
    wait_for(lambda: store_bytes() > 65 << 20)
    ray_run.forget(batch)
    del end, array
    wait_for(lambda: store_bytes() < 2 << 20)
    assert ray_run.session.fetch(small) == "small"


def test_a_value_that_finds_no_object_of_its_own_left_ends_the_batch(ray_run: Run) -> None:
    batch = ray_run.submit(ray_run.call(user.big_array, items={"megabytes": [1] * 5}), own_values=2)
    report = ray_run.finish(batch).report
    done = 5 - len(report.unstarted)
    assert 2 <= done < 5
    assert list(report.unstarted) == list(range(done, 5))
    assert ray_run.fetch(batch, 1).sum() == 1 << 17
    assert ray_run.fetch(batch, done - 1).sum() == 1 << 17


def test_arguments_are_taken_as_they_are_at_the_call(ray_run: Run) -> None:
    import numpy as np

    for length in (10, 100_000):
        array = np.zeros(length)
        call = ray_run.call(user.total, {"array": array})
        array[:] = 1
        assert ray_run.fetch(ray_run.submit(call)) == 0.0


def test_a_large_argument_travels_once_and_a_large_closure_too(ray_run: Run) -> None:
    ballast = os.urandom(200_000)
    call = ray_run.call(task_of(lambda given: given == ballast), {"given": ballast})
    assert not isinstance(call.function.payload, bytes)
    assert not isinstance(call.arguments.payload, bytes)
    assert ray_run.fetch(ray_run.submit(call)) is True


def test_a_thousand_inputs(ray_run: Run) -> None:
    call = ray_run.call(user.echo, {"value": 1})
    refs = ListOf((ray_run.ref(ray_run.submit(call)),) * 1000)
    value = ray_run.value(user.echo, inputs={"value": refs})
    assert ray_run.session.fetch(value) == [1] * 1000


def test_values_of_many_batches_are_fetched_in_order(ray_run: Run) -> None:
    batches = [ray_run.submit(ray_run.call(user.echo, {"value": [i]})) for i in range(300)]
    refs = [ray_run.ref(batch) for batch in batches]
    assert ray_run.session.fetch(ListOf((*refs, refs[0]))) == [*([i] for i in range(300)), [0]]


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


@pytest.mark.parametrize("task", [user.exit_quietly, user.kill_self, user.segfault])
def test_which_call_ended_the_process_is_known(ray_run: Run, task: Any) -> None:
    calls = [ray_run.call(user.add, {"x": number}) for number in range(3)]
    loss = ray_run.lose(ray_run.submit(*calls, ray_run.call(task), *calls))
    assert loss.outcome is Outcome.CRASHED
    assert list(loss.running or ()) == [3]


def test_which_item_ended_the_process_is_known(ray_run: Run) -> None:
    call = ray_run.call(user.die_at, {"fatal": 4711}, items={"x": range(10_000)})
    loss = ray_run.lose(ray_run.submit(ray_run.call(user.process), call))
    assert list(loss.running or ()) == [4712]


def test_nodes_say_which_call_was_running(ray_backend: RayBackend, ray_run: Run) -> None:
    progress = ray_backend._tools.progress
    batch = ray_run.submit(
        ray_run.call(user.process), ray_run.call(user.nap, {"seconds": 600}), ray_run.call(user.nap)
    )
    while ray_run.start_of(batch).run.node != 1:
        ray_run.started.clear()
    number = ray_run.session._number  # type: ignore[attr-defined]
    while (found := progress.elsewhere(number, batch, (), 0.0).remains) is None:
        pass  # nodes that take long to answer say nothing
    assert found.running == [1]
    assert progress.elsewhere(number, batch + 1, (), 0.0).remains is None
    ray_run.session.cancel(batch, force=True)
    loss = ray_run.lose(batch)
    assert (loss.outcome, list(loss.running or ())) == (Outcome.CANCELLED, [1])


def test_what_a_call_changes_for_its_process_ends_with_its_batch(ray_run: Run) -> None:
    usual: Any = ray_run.session.fetch(ray_run.value(user.manners))
    pid = ray_run.session.fetch(ray_run.value(user.misbehave))
    for _ in range(100):
        report = ray_run.report(user.manners)
        assert [line.text for line in lines(report)] == ["heard"]
        found: Any = ray_run.session.fetch(ray_run.value(user.manners))
        assert found[1:] == usual[1:]
        if found[0] == pid:
            return
    raise AssertionError("the process was not used again")


def test_a_process_without_file_descriptors_costs_no_attempt(ray_run: Run) -> None:
    ray_run.value(user.use_up_files)
    lost: list[BatchLost] = []
    for _ in range(100):
        # Two at a time, so that no process is passed over.
        batches = [ray_run.submit(ray_run.call(user.process)) for _ in range(2)]
        ends = [ray_run.end_of(batch) for batch in batches]
        lost = [end for end in ends if isinstance(end, BatchLost)]
        if lost:
            break
    end = lost[0]
    assert end.outcome is Outcome.CRASHED
    assert not end.running
    assert end.running is not None
    ray_run.value(user.process)


def test_a_process_killed_from_outside_is_a_crash(ray_run: Run) -> None:
    batch = ray_run.submit(ray_run.call(user.nap, {"seconds": 600}, timeout=600))
    os.kill(ray_run.start_of(batch).pid, signal.SIGKILL)
    assert ray_run.lose(batch).outcome is Outcome.CRASHED


# --- time limits and cancelling -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "arguments"), [(user.nap, {"seconds": 600}), (user.backtrack, {"length": 40})]
)
def test_a_time_limit_ends_a_wait_in_c(ray_run: Run, task: Any, arguments: Any) -> None:
    report = ray_run.report(task, arguments, timeout=0.3)
    assert report.outcome is Outcome.TIMED_OUT


def test_a_time_limit_ends_the_unpacking_of_arguments(ray_run: Run) -> None:
    items = {"value": [user.Reluctant()]}
    call = ray_run.call(user.echo, items=items, timeout=0.5)
    [report] = ray_run.reports(ray_run.submit(call))
    assert report.outcome is Outcome.TIMED_OUT
    assert "timeout_seconds=0.5" in report.message


def test_code_that_never_comes_back_is_ended_with_its_process(ray_run: Run) -> None:
    for timeout in LIMITS:
        hanging = ray_run.call(user.hang_in_c, timeout=timeout)
        loss = ray_run.end_of(ray_run.submit(ray_run.call(user.process), hanging))
        if isinstance(loss, BatchLost):
            break
    assert isinstance(loss, BatchLost)
    assert loss.outcome is Outcome.TIMED_OUT
    assert list(loss.running or ()) == [1]
    assert "in hang_in_c" in loss.message


def test_code_that_swallows_its_time_limit_is_ended_with_its_process(
    ray_run: Run, tmp_path: Path
) -> None:
    for timeout in LIMITS:
        call = ray_run.call(user.stubborn, {"path": str(tmp_path / "mark")}, timeout=timeout)
        end = ray_run.end_of(ray_run.submit(call))
        if isinstance(end, BatchLost):
            break
    assert isinstance(end, BatchLost)
    assert end.outcome is Outcome.TIMED_OUT


def test_a_task_is_cancelled_in_its_sleep(ray_run: Run) -> None:
    batch = ray_run.submit(ray_run.call(user.nap, {"seconds": 600}))
    ray_run.start_of(batch)
    ray_run.session.cancel(batch, force=False)
    [report] = ray_run.reports(batch)
    assert report.outcome is Outcome.CANCELLED


def test_a_task_that_has_just_begun_to_sleep_is_cancelled_once_it_is_heard_of(
    ray_run: Run, tmp_path: Path
) -> None:
    warm = ray_run.report(user.process)
    assert warm.outcome is Outcome.COMPLETED
    batch = ray_run.submit(ray_run.call(user.nap, {"seconds": 600}))
    time.sleep(0.2)
    ray_run.session.cancel(batch, force=False)
    end = ray_run.end_of(batch)
    outcome = end.outcome if isinstance(end, BatchLost) else end.report.told[0].outcome
    assert outcome is Outcome.CANCELLED


def test_a_stranger_cannot_take_part_and_cannot_block(
    ray_backend: RayBackend, ray_run: Run, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    postbox = ray_backend._tools.mailroom.postbox
    with socket.create_connection((postbox.host, postbox.port)) as silent:
        with socket.create_connection((postbox.host, postbox.port)) as loud:
            loud.sendall(b'{"started": [0, 0, 0, -1, 1, 0.0, 1, "x"]}\n' * 10)
            batch = ray_run.submit(ray_run.call(user.hold, {"path": str(go)}))
            assert ray_run.start_of(batch).batch == batch
            go.touch()
            ray_run.finish(batch)
        assert silent.fileno() >= 0
    assert len(ray_run.started) == 1


# --- resources ----------------------------------------------------------------------------------


def test_a_runtime_env_reaches_the_task(ray_run: Run) -> None:
    resources = Resources.of(runtime_env={"env_vars": {"FRUIT": "plum"}})
    batch = ray_run.submit(ray_run.call(user.environment, {"name": "FRUIT"}), resources=resources)
    assert ray_run.fetch(batch) == "plum"


def test_worker_processes_with_another_raflow_are_told_by_their_version(
    ray_run: Run, tmp_path: Path
) -> None:
    # On this machine worker processes import what this process does, before their own PYTHONPATH.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, types\n"
        "other = sys.modules['raflow'] = types.ModuleType('raflow')\n"
        "other.__version__ = '9.8.7'\n"
    )
    resources = Resources.of(runtime_env={"env_vars": {"PYTHONPATH": str(tmp_path)}})
    for _ in range(2):
        ray_run.submit(ray_run.call(user.add, {"x": 1}), resources=resources)
    gone = ray_run.gone()
    error = gone.error
    assert isinstance(error, errors.VersionMismatchError)
    assert gone.message == str(error)
    assert (error.there, error.here) == ("9.8.7", raflow.__version__)
    address = str(ray.get_runtime_context().gcs_address)
    for told in (f"Ray at {address} have raflow 9.8.7", f"has raflow {raflow.__version__}", "pip"):
        assert told in str(error)


def test_a_runtime_env_that_cannot_be_made_fails_the_batch(ray_run: Run) -> None:
    resources = Resources.of(runtime_env={"working_dir": "gcs://_ray_pkg_nothing_there.zip"})
    calls = [ray_run.call(user.process) for _ in range(3)]
    loss = ray_run.lose(ray_run.submit(*calls, resources=resources))
    assert (loss.outcome, list(loss.running or ())) == (Outcome.FAILED, [0, 1, 2])
    assert "runtime_env" in loss.message


def test_calls_of_equal_resources_share_their_options(ray_backend: RayBackend) -> None:
    remote = ray_backend._tools.remote
    first = remote.get(Resources(num_cpus=0.5), 3)
    assert remote.get(Resources(num_cpus=0.5), 3) is first
    assert remote.get(Resources(num_cpus=0.25), 3) is not first
    assert remote.get(Resources(num_cpus=0.5), 2) is not first
