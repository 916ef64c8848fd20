"""Why a process died is told as far as it can be known."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from raflow.execute import BatchLost
from raflow.execute.ray import RayBackend
from raflow.execute.ray._blackbox import counter_in, fault_in, oom_counter, oom_kills
from raflow.execute.ray._cells import Remains, sweep
from raflow.execute.ray._inquest import explain, fell_silent, lost_with_node
from raflow.execute.ray._losses import Loss, classify
from raflow.execute.ray._progress import Progress
from raflow.model import Cause, Outcome
from tests.ray import user_tasks as user
from tests.ray.harness import Run

CRASH = Loss(Outcome.CRASHED, "its worker process died")
FAULT = """counter /proc/vmstat
Fatal Python error: Segmentation fault

Stack (most recent call first):
  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at
  File "/home/me/flow.py", line 12 in slow
  File "/home/me/flow.py", line 20 in outer
"""


def remains(**more: Any) -> Remains:
    given: dict[str, Any] = {
        "running": [3],
        "pid": 77,
        "host": "box",
        "exit_code": None,
        "signal": None,
        "peak_memory": 0,
        "fault": "",
        "oom_counter": "/proc/vmstat",
        "oom_kills": (2, 2),
    }
    return Remains(**given | more)


def explained(loss: Loss = CRASH, *, starved: bool = False, **more: Any) -> Loss:
    return explain(loss, remains(**more), is_starved=lambda _: starved, node_id="n1")


# --- real processes -----------------------------------------------------------------------------


def cause_of(run: Run, task: Any, arguments: dict[str, Any] | None = None) -> tuple[str, Cause]:
    call = run.call(task, arguments)
    lost = run.lose(run.submit(run.call(user.process), call))
    assert lost.outcome is Outcome.CRASHED
    assert list(lost.running or ()) == [1]
    assert lost.cause is not None
    assert lost.cause.pid > 0
    assert lost.cause.host
    assert lost.cause.node_id
    return lost.message, lost.cause


@pytest.mark.ray
@pytest.mark.parametrize(
    ("task", "number"), [(user.segfault, signal.SIGSEGV), (user.abort, signal.SIGABRT)]
)
def test_a_fault_of_the_code_is_named_with_its_place(
    ray_run: Run, task: Any, number: signal.Signals
) -> None:
    message, cause = cause_of(ray_run, task)
    assert (cause.kind, cause.signal) == ("signal", number)
    assert number.name in message
    assert f"in {task.__name__} (" in message
    assert "user_tasks.py" in message


@pytest.mark.ray
@pytest.mark.parametrize("code", [0, 3])
def test_an_exit_is_named_with_its_code(ray_run: Run, code: int) -> None:
    message, cause = cause_of(ray_run, user.exit_with, {"code": code})
    assert (cause.kind, cause.exit_code, cause.signal) == ("exit", code, None)
    assert f"os._exit({code})" in message


@pytest.mark.ray
def test_a_kill_from_outside_is_named(ray_run: Run) -> None:
    batch = ray_run.submit(ray_run.call(user.nap, {"seconds": 600}))
    pid = ray_run.start_of(batch).pid
    time.sleep(0.3)
    os.kill(pid, signal.SIGKILL)
    lost = ray_run.lose(batch)
    assert lost.cause is not None
    assert (lost.cause.kind, lost.cause.signal, lost.cause.pid) == ("killed", 9, pid)
    assert lost.cause.node_id
    assert lost.cause.peak_memory > 1 << 20
    assert "SIGKILL" in lost.message


@pytest.mark.ray
def test_a_process_that_is_asked_to_end_cleans_up_and_is_named(
    ray_run: Run, tmp_path: Path
) -> None:
    traces = tmp_path / "traces"
    batch = ray_run.submit(ray_run.call(user.leave_a_trace, {"path": str(traces)}))
    pid = ray_run.start_of(batch).pid
    os.kill(pid, signal.SIGTERM)
    lost = ray_run.lose(batch)
    assert lost.outcome is Outcome.CRASHED
    assert lost.running == [0]
    assert lost.cause is not None
    assert (lost.cause.kind, lost.cause.signal, lost.cause.pid) == ("signal", 15, pid)
    assert "SIGTERM" in lost.message
    assert traces.read_text() == "SystemExit"


@pytest.mark.ray
@pytest.mark.parametrize("fresh", [False, True])
def test_a_call_that_a_dying_process_was_given_has_not_begun(
    ray_run: Run, ray_backend: RayBackend, fresh: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = ray_backend._tools.progress
    # Other tests of this process may have started its Ray, to which the backend was attached then.
    monkeypatch.setattr(progress, "_is_own", fresh)
    end: object = None
    while not isinstance(end, BatchLost):
        pid: Any = ray_run.fetch(ray_run.submit(ray_run.call(user.process)))
        os.kill(pid, signal.SIGSTOP)
        batch = ray_run.submit(ray_run.call(user.process))
        ray_run.quiet(0.2)
        if fresh:  # as if it had not run anything before
            sweep(progress.token)
        os.kill(pid, signal.SIGKILL)
        end = ray_run.end_of(batch)
    assert end.outcome is Outcome.CRASHED
    assert end.running == ()
    assert "before it took it up" in end.message


# --- decisions ----------------------------------------------------------------------------------


def test_a_fault_is_read_from_what_the_interpreter_wrote() -> None:
    fault = fault_in(FAULT)
    assert fault is not None
    assert fault.signal is signal.SIGSEGV
    assert fault.where == "slow (/home/me/flow.py:12)"
    assert fault_in("counter /proc/vmstat\n") is None
    assert counter_in(FAULT) == "/proc/vmstat"
    assert counter_in("") == ""
    odd = fault_in("Fatal Python error: something new\n")
    assert odd is not None
    assert (odd.signal, odd.where) == (None, "")


def test_what_the_kernel_kills_for_want_of_memory_is_out_of_memory() -> None:
    loss = explained(starved=True, peak_memory=300 << 20)
    assert loss.outcome is Outcome.OUT_OF_MEMORY
    assert "the kernel killed" in loss.message
    assert "300 MiB" in loss.message
    assert loss.cause is not None
    assert (loss.cause.kind, loss.cause.signal) == ("out of memory", 9)
    assert loss.cause.facts == {"by": "the kernel"}


def test_a_fault_or_an_exit_is_no_want_of_memory() -> None:
    assert explained(starved=True, fault=FAULT).outcome is Outcome.CRASHED
    assert explained(starved=True, exit_code=1).outcome is Outcome.CRASHED


def test_rays_own_killer_is_told_with_its_figures() -> None:
    from ray import exceptions

    text = (
        "Task was killed due to the node running low on memory.\nMemory on the node (IP: 10.0.0.7, "
        "ID: abc123) where the task (task ID: 1, name=x, pid=5, memory used=0.5GB) was running was "
        "9.50GB / 10.00GB (0.95), which exceeds the memory usage threshold of 0.95."
    )
    loss = explain(classify(exceptions.OutOfMemoryError(text)), None, is_starved=lambda _: False)
    assert loss.outcome is Outcome.OUT_OF_MEMORY
    assert loss.cause is not None
    assert (loss.cause.host, loss.cause.node_id) == ("10.0.0.7", "abc123")
    assert loss.cause.facts == {
        "by": "Ray's memory monitor",
        "memory of the node": "9.50GB / 10.00GB (0.95)",
    }


def test_a_node_that_died_is_named() -> None:
    from ray import exceptions

    text = "The node is dead or unavailable. Node IP: 10.0.0.7, node ID: abc123. It was preempted."
    for node_id, known in (("", "abc123"), ("n1", "n1")):
        loss = lost_with_node(classify(exceptions.NodeDiedError(text)), node_id)
        assert loss.outcome is Outcome.LOST
        assert loss.cause == Cause(kind="node lost", host="10.0.0.7", node_id=known)


def test_a_process_of_which_nothing_is_left_is_a_crash() -> None:
    loss = explain(CRASH, None, is_starved=lambda _: True, node_id="n1")
    assert loss.outcome is Outcome.CRASHED
    assert loss.cause == Cause(kind="process died", node_id="n1")


def test_a_node_that_cannot_be_reached_is_named() -> None:
    loss = fell_silent(15.0, "", Cause(kind="no answer", host="far", pid=3))
    assert loss.outcome is Outcome.LOST
    assert "(3 on far) has not answered for 15 s: its node cannot be reached" in loss.message


# --- the kernel's counters ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "low 0\nhigh 0\nmax 5\noom 4\noom_kill 3\noom_group_kill 0\n",
        "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
        "pgfault 1\noom_kill 3\n",
    ],
)
def test_every_form_of_the_counter_is_read(tmp_path: Path, text: str) -> None:
    counter = tmp_path / "counter"
    counter.write_text(text)
    assert oom_kills(str(counter)) == 3


def test_a_counter_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    assert oom_kills(str(tmp_path / "none")) is None
    (tmp_path / "other").write_text("something else\n")
    assert oom_kills(str(tmp_path / "other")) is None


def test_this_machine_has_a_counter() -> None:
    assert oom_kills(oom_counter()) is not None


def test_each_kill_of_the_kernel_explains_one_death() -> None:
    progress = Progress(is_all_here=True, is_own=True)
    assert not progress.is_starved(remains(oom_kills=None))
    assert not progress.is_starved(remains(oom_kills=(2, 2)))
    assert progress.is_starved(remains(oom_kills=(2, 4)))
    assert progress.is_starved(remains(oom_kills=(2, 4)))
    assert not progress.is_starved(remains(oom_kills=(2, 4)))
    assert progress.is_starved(remains(oom_kills=(2, 4), host="another"))
