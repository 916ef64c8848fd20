"""What the local backend does in its own way."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from raflow.execute.local import LocalBackend
from raflow.model import Outcome, Resources
from tests.ray import user_tasks as user
from tests.ray.harness import Run, lines


def test_values_and_arguments_pass_by_reference(local_run: Run) -> None:
    lock = threading.Lock()
    value = local_run.value(user.echo, {"value": lock})
    assert local_run.session.fetch(value) is lock


def test_a_first_task_takes_little_work(tmp_path: Path) -> None:
    begun = time.process_time()
    backend = LocalBackend()
    run = Run(backend, tmp_path)
    run.value(user.add, {"x": 1})
    assert time.process_time() - begun < 0.3
    run.close()
    backend.close()


def test_claimed_resources_are_there_and_are_shared_out(tmp_path: Path) -> None:
    backend = LocalBackend(resources={"GPU": 1})
    run = Run(backend, tmp_path)
    gpu = Resources(num_cpus=0, num_gpus=1)
    batches = [
        run.submit(run.call(user.interval, {"seconds": 0.05}), resources=gpu) for _ in range(3)
    ]
    spans: list[Any] = [run.fetch(batch) for batch in batches]
    spans.sort()
    assert spans[0][1] <= spans[1][0]
    assert spans[1][1] <= spans[2][0]
    run.close()
    backend.close()


def test_what_can_never_be_had_is_refused_at_once(local_run: Run) -> None:
    loss = local_run.lose(
        local_run.submit(local_run.call(user.process), resources=Resources(num_cpus=99))
    )
    assert loss.outcome is Outcome.FAILED
    assert "num_cpus=99" in loss.message


def test_a_thread_that_does_not_stop_is_left_behind_and_said_so(
    local_run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    lock = threading.Lock()
    lock.acquire()
    stuck = local_run.call(user.say_and_lock, {"text": "before", "lock": lock}, timeout=0.2)
    batch = local_run.submit(stuck, local_run.call(user.add, {"x": 1}))
    first, second = local_run.reports(batch)
    assert (first.outcome, second.outcome) == (Outcome.TIMED_OUT, Outcome.COMPLETED)
    assert "threads, which cannot be ended inside a call into C" in first.message
    assert [line.text for line in lines(first)] == ["before"]
    assert "The Ray backend ends the process instead" in caplog.text
    assert local_run.fetch(batch, 1) == 2
    lock.release()
    assert local_run.quiet(0.5)  # what it does later changes nothing


def test_a_thread_is_left_behind_that_cannot_tell_what_its_exception_says(local_run: Run) -> None:
    try:
        report = local_run.report(user.raise_mute, timeout=0.2)
        assert report.outcome is Outcome.TIMED_OUT
        local_run.value(user.add, {"x": 1})
    finally:
        user.Mute.allowed.set()


def test_a_left_behind_thread_gives_its_resources_back(local_run: Run) -> None:
    both = Resources(num_cpus=2)
    stuck = local_run.submit(local_run.call(user.nap, {"seconds": 60}), resources=both)
    local_run.start_of(stuck)
    local_run.session.cancel(stuck, force=True)
    assert local_run.lose(stuck).outcome is Outcome.CANCELLED
    local_run.finish(local_run.submit(local_run.call(user.add, {"x": 1}), resources=both))


def test_many_batches_in_flight_share_a_few_threads(local_run: Run) -> None:
    before = set(threading.enumerate())
    batches = [local_run.submit(local_run.call(user.echo, {"value": i})) for i in range(500)]
    values = [local_run.fetch(b) for b in batches]
    assert values == list(range(500))
    assert len({t for t in threading.enumerate() if t.name == "raflow-task"} - before) <= 20
