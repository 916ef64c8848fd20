"""A process that says nothing for too long is found and replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from raflow.execute._processes import Process, process
from raflow.execute.ray import RayBackend, _beat
from raflow.execute.ray._leases import Leases, Speaker
from raflow.model import Outcome
from tests.ray import user_tasks as user
from tests.ray.harness import Run
from tests.waiting import wait_for

LEASE = 4.0
SPEAKER = Speaker(host="here", process=Process(1, 1), node_id="n")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class TestLeases:
    def silent(self, leases: Leases, clock: Clock, seconds: float) -> list[tuple[int, int]]:
        """Look every second for so long."""
        found = []
        for _ in range(int(seconds)):
            clock.now += 1
            found += [key for key, _ in leases.expired()]
        return found

    def test_who_speaks_keeps_its_lease(self) -> None:
        clock = Clock()
        leases = Leases(15, clock)
        leases.begin((0, 1), SPEAKER)
        leases.begin((0, 2), SPEAKER)
        for _ in range(10):
            assert self.silent(leases, clock, 10) in ([], [(0, 2)])
            assert leases.renew((0, 1))
        assert leases.speaker((0, 1)) is SPEAKER

    def test_who_is_silent_is_told_of_once_per_lease(self) -> None:
        clock = Clock()
        leases = Leases(15, clock)
        leases.begin((0, 1), SPEAKER)
        assert self.silent(leases, clock, 15) == []
        assert self.silent(leases, clock, 10) == [(0, 1)]
        assert self.silent(leases, clock, 10) == [(0, 1)]
        leases.end((0, 1))
        assert self.silent(leases, clock, 30) == []
        assert not leases.renew((0, 1))

    def test_who_was_stopped_itself_gives_nobody_up(self) -> None:
        clock = Clock()
        leases = Leases(15, clock)
        leases.begin((0, 1), SPEAKER)
        assert self.silent(leases, clock, 5) == []
        clock.now += 3600
        assert leases.expired() == []
        assert self.silent(leases, clock, 15) == []
        assert self.silent(leases, clock, 2) == [(0, 1)]


def test_a_process_that_is_gone_is_told_of_once() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    found = process(child.pid)
    assert found is not None
    leases = Leases(15)
    leases.begin((0, 1), Speaker(host="here", process=found, node_id="n"))
    leases.begin((0, 2), Speaker(host="elsewhere", process=Process(child.pid, 1), node_id="n"))
    assert [leases.dead() for _ in range(10)] == [[]] * 10
    child.kill()
    child.wait()
    told = [key for _ in range(10) for key, _ in leases.dead()]
    assert told == [(0, 1)]


def test_a_beat_is_sent_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    at = SimpleNamespace(monotonic=clock, process_time=clock)
    monkeypatch.setattr(_beat, "time", at)
    sent: list[float] = []
    beat = _beat.Beat(15.0, lambda: sent.append(clock.now))
    for _ in range(5):
        beat()
        clock.now += 0.5
    assert sent == [1000.0, 1001.0, 1002.0]


@pytest.fixture
def short_run(ray_backend: RayBackend, tmp_path: Path) -> Iterator[Run]:
    """A run on the same Ray whose batches have short leases."""
    backend = RayBackend(home=tmp_path, lease_seconds=LEASE)
    made = Run(backend, tmp_path / "results")
    yield made
    made.close()
    backend.close()


@pytest.mark.ray
def test_a_stopped_process_is_replaced_and_does_nothing_more(
    short_run: Run, tmp_path: Path
) -> None:
    run, path = short_run, tmp_path / "journal"
    begun = time.monotonic()
    batch = run.submit(
        run.call(user.add, {"x": 1}),
        run.call(user.write_on, {"path": str(path), "seconds": 600}),
        run.call(user.add, {"x": 1}),
    )
    pid = run.start_of(batch).pid
    os.kill(pid, signal.SIGSTOP)
    lost = run.lose(batch)
    assert time.monotonic() - begun > LEASE
    assert lost.outcome is Outcome.LOST
    assert "not answered for 4 s: it was stopped (SIGSTOP)" in lost.message
    assert list(lost.running or ()) == [1]
    assert lost.cause is not None
    assert (lost.cause.kind, lost.cause.pid) == ("no answer", pid)
    assert process(pid) is None
    written = path.read_text()
    assert run.report(user.add, {"x": 1}).outcome is Outcome.COMPLETED
    assert path.read_text() == written
    assert run.quiet(0.5)


@pytest.mark.ray
def test_a_process_that_wakes_too_late_ends_itself(
    short_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, heard = short_run, threading.Event()
    tools = run.session._tools  # type: ignore[attr-defined]
    monkeypatch.setattr(tools.leases, "renew", lambda _: heard.set())
    batch = run.submit(run.call(user.write_on, {"path": str(tmp_path / "journal"), "seconds": 600}))
    pid = run.start_of(batch).pid
    assert heard.wait(60)
    tools.poll.close()  # nobody gives it up
    os.kill(pid, signal.SIGSTOP)
    time.sleep(LEASE + 1)
    os.kill(pid, signal.SIGCONT)
    wait_for(lambda: process(pid) is None)


@pytest.mark.ray
def test_a_process_that_works_where_it_cannot_speak_is_left_alone(short_run: Run) -> None:
    batch = short_run.submit(short_run.call(user.hold_the_interpreter, {"seconds": 7}))
    short_run.start_of(batch)
    [report] = short_run.reports(batch)
    assert report.outcome is Outcome.COMPLETED


@pytest.mark.ray
def test_a_death_is_noticed_that_ray_does_not_see(ray_run: Run, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    batch = ray_run.submit(ray_run.call(user.hold_sockets, {"path": str(path), "seconds": 600}))
    pid = ray_run.start_of(batch).pid
    wait_for(lambda: path.exists() and path.read_text())
    os.kill(pid, signal.SIGKILL)
    lost = ray_run.lose(batch)
    os.kill(int(path.read_text()), signal.SIGKILL)
    assert lost.outcome is Outcome.CRASHED
    assert list(lost.running or ()) == [0]
    assert lost.cause is not None
    assert (lost.cause.kind, lost.cause.pid) == ("killed", pid)
    assert ray_run.report(user.add, {"x": 1}).outcome is Outcome.COMPLETED


@pytest.mark.ray
def test_a_long_call_keeps_its_lease(short_run: Run) -> None:
    batch = short_run.submit(short_run.call(user.nap, {"seconds": 7}))
    [report] = short_run.reports(batch)
    assert report.outcome is Outcome.COMPLETED
