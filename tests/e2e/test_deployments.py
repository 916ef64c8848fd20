"""Deployments as people use them: workers and command lines as processes of their own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import raflow
from raflow import config, errors
from raflow.model import FlowRun, StateName, StateType
from raflow.store import Store
from tests.waiting import wait_for

RAFLOW = str(Path(sys.executable).with_name("raflow"))
SECONDS = 100

FLOWS = """
import os
import time
from pathlib import Path

from raflow import flow, task


@task
def note(folder: str, line: str) -> str:
    with (Path(folder) / "notes").open("a") as file:
        file.write(line + "\\n")
    return line


@task
def until_go(folder: str) -> None:
    while not (Path(folder) / "go").exists():
        time.sleep(0.02)


@flow
def waits(folder: str, name: str = "run") -> str:
    print("waiting for", name)
    note(folder, f"{name} begins").result()
    until_go(folder).result()
    return note(folder, f"{name} ends in version 1")
"""


class Place:
    """A folder with flows, and the record of their runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "flows.py").write_text(FLOWS)
        self.go = folder / "go"

    def __call__(self, *args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [RAFLOW, *args], capture_output=True, text=True, timeout=SECONDS, check=False
        )

    def deploy(self, *args: str) -> str:
        done = self("deploy", "flows.py", "--param", f"folder={self.folder}", *args)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @contextmanager
    def worker(self, *args: str) -> Iterator[subprocess.Popen[str]]:
        """Run a worker until it has been told to end, at the latest at the end of the block."""
        command = [RAFLOW, "worker", "--runners", "2", *args]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            yield process
        finally:
            for _ in range(2):
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                    # Two signals that wait are one.
                    time.sleep(0.2)
            process.communicate(timeout=SECONDS)

    def store(self) -> Store:
        settings = config.load()
        return Store.open(settings.database, log_dir=settings.logs)

    def run(self, name: str) -> FlowRun:
        with self.store() as store:
            return store.find_flow_run(name)

    def until(self, name: str, state: StateName) -> FlowRun:
        with self.store() as store:
            wait_for(lambda: store.find_flow_run(name).state.name is state)
            return store.find_flow_run(name)

    def until_recorded(self, run: FlowRun) -> None:
        """Wait until it is on record that the first task of a run has completed."""
        with self.store() as store:
            wait_for(lambda: StateType.COMPLETED in store.task_run_counts(run.id).get(0, {}))

    def notes(self) -> list[str]:
        path = self.folder / "notes"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    monkeypatch.setenv("RAFLOW_BACKEND", "local")
    monkeypatch.setenv("NO_COLOR", "1")
    return Place(project)


@pytest.fixture(
    params=[
        pytest.param(("local", "sqlite"), id="local-sqlite"),
        pytest.param(
            ("ray", "postgres"), id="ray-postgres", marks=[pytest.mark.ray, pytest.mark.postgres]
        ),
    ]
)
def anywhere(
    request: pytest.FixtureRequest, place: Place, monkeypatch: pytest.MonkeyPatch
) -> Place:
    backend, database = request.param
    monkeypatch.setenv("RAFLOW_BACKEND", backend)
    if database == "postgres":
        monkeypatch.setenv("RAFLOW_DATABASE_URL", request.getfixturevalue("postgres_url"))
        assert place("db", "upgrade").returncode == 0
    return place


def test_a_worker_runs_what_is_ordered_and_ends_when_it_is_told(anywhere: Place) -> None:
    place = anywhere
    place.go.touch()
    place.deploy("--name", "nightly")
    with place.worker() as worker:
        seen = place("run-deployment", "nightly", "--watch", "--param", "name=one", "--key", "k")
        assert seen.returncode == 0, seen.stderr
        assert re.search(r"Scheduled.*Running.*waiting for one.*Completed", seen.stderr, re.DOTALL)
        assert re.search(r"Result +.one ends in version 1", seen.stdout)
        again = place("run-deployment", "nightly", "--param", "name=one", "--key", "k", "--json")
        found = json.loads(again.stdout)
        assert (found["is_new"], found["state"]["name"]) == (False, "Completed")
        assert found["origin"]["version"] == 1
        two = raflow.run_deployment("nightly", {"name": "two"}, tags=["mine"])
        assert (two.state.name, two.tags) == (StateName.COMPLETED, ("mine",))
        three = asyncio.run(raflow.run_deployment_async("nightly", {"name": "three"}))
        assert three.state.name is StateName.COMPLETED
        worker.send_signal(signal.SIGTERM)
        _, told = worker.communicate(timeout=SECONDS)
        assert worker.returncode == 0
        assert f"flow run {two.short_name}: Completed after" in told
    begun = [line for line in place.notes() if line.endswith("begins")]
    assert begun == ["one begins", "two begins", "three begins"]


def test_what_cannot_be_ordered_is_refused_with_what_would_be_right(place: Place) -> None:
    place.deploy("--name", "nightly")
    missing = place("run-deployment", "nigthly")
    assert (missing.returncode, "Did you mean 'nightly'?" in missing.stderr) == (2, True)
    with pytest.raises(errors.ParameterError, match="'nam' is none of them"):
        raflow.run_deployment("nightly", {"nam": "x"}, wait=False)
    with pytest.raises(errors.ParameterError, match="name=7 does not fit"):
        raflow.run_deployment("nightly", {"name": 7}, wait=False)
    raflow.run_deployment("nightly", {"name": "a"}, idempotency_key="k", wait=False)
    with pytest.raises(errors.ConflictError):
        raflow.run_deployment("nightly", {"name": "b"}, idempotency_key="k", wait=False)


def test_a_run_that_waits_says_for_what_and_can_be_cancelled(place: Place) -> None:
    place.deploy("--name", "nightly")
    told = place("run-deployment", "nightly", "--run-name", "soon").stdout
    assert "Pool 'default' has no worker: `raflow worker --pool default`" in told
    place("run-deployment", "nightly", "--in", "1h", "--run-name", "later")
    listed = " ".join(place("runs", "ls").stdout.split())
    assert "soon pool 'default' has no worker" in listed
    assert "later it begins at" in listed
    [wait] = json.loads(place("runs", "show", "soon", "--json").stdout)["waits"]
    assert (wait["code"], wait["commands"]) == ("no_worker", ["raflow worker --pool default"])
    done = place("cancel", "soon", "--message", "wrong day")
    assert done.stdout == "Flow run 'soon' had not begun. It is recorded as Cancelled.\n"
    cancelled = place.run("soon")
    assert cancelled.state.name is StateName.CANCELLED
    assert cancelled.state.message.endswith("wrong day")
    with place.worker("--runners", "1"):
        place.go.touch()
        raflow.run_deployment("nightly")
    assert place.notes() == ["run begins", "run ends in version 1"]
    assert place.run("later").state.name is StateName.SCHEDULED


def test_two_versions_run_at_once_and_a_run_keeps_its_own(place: Place) -> None:
    place.deploy("--name", "nightly")
    with place.worker():
        first = raflow.run_deployment("nightly", {"name": "first"}, wait=False)
        wait_for(place.notes)
        (place.folder / "flows.py").write_text(FLOWS.replace("version 1", "version 2"))
        assert "version 2" in place.deploy("--name", "nightly")
        second = raflow.run_deployment("nightly", {"name": "second"}, wait=False)
        wait_for(lambda: "second begins" in place.notes())
        place.go.touch()
        runs = [place.until(run.id, StateName.COMPLETED) for run in (first, second)]
    assert {"first ends in version 1", "second ends in version 2"} <= set(place.notes())
    assert [run.origin and run.origin.version for run in runs] == [1, 2]


def test_a_running_run_is_cancelled_within_a_second_of_the_request(place: Place) -> None:
    place.deploy("--name", "nightly")
    with place.worker():
        run = raflow.run_deployment("nightly", wait=False)
        wait_for(place.notes)
        with place.store() as store:
            asked = store.work.cancel(run.id, by="ann")
            wait_for(lambda: store.requests.of(run.id)[0].outcome)
            state = place.until(run.id, StateName.CANCELLED).state
            began = [c.state.at for c in store.states(run.id)][-2]
        assert state.name is StateName.CANCELLED
        # When it was seen, on a machine that may be slow: a run that does not look ends never.
        assert began - asked.at < 20.0


@pytest.mark.slow
def test_a_run_that_was_killed_with_its_worker_goes_on_in_another(place: Place) -> None:
    place.deploy("--name", "nightly")
    with place.worker() as worker:
        run = raflow.run_deployment("nightly", wait=False)
        wait_for(place.notes)
        place.until_recorded(run)
        driver = place.run(run.id)
        worker.kill()
        worker.wait(SECONDS)
        os.kill(driver.pid, signal.SIGKILL)
        with place.worker():
            place.go.touch()
            ended = place.until(run.id, StateName.RECOVERED)
    assert ended.incarnation > driver.incarnation
    assert place.notes() == ["run begins", "run ends in version 1"]


def test_a_run_outlives_its_worker_and_two_signals_hand_it_over(place: Place) -> None:
    place.deploy("--name", "nightly")
    with place.worker() as worker:
        run = raflow.run_deployment("nightly", {"name": "a"}, wait=False)
        wait_for(place.notes)
        worker.kill()
        worker.wait(SECONDS)
    with place.worker() as worker:
        other = raflow.run_deployment("nightly", {"name": "b"}, wait=False)
        wait_for(lambda: "b begins" in place.notes())
        place.until_recorded(other)
        worker.send_signal(signal.SIGINT)
        said = worker.stderr
        assert said is not None
        # Two signals that wait are one.
        wait_for(lambda: "Asked once more" in said.readline())
        worker.send_signal(signal.SIGINT)
        _, told = worker.communicate(timeout=SECONDS)
        assert worker.returncode == 130
        assert "was told to end at once" in told
    assert place.run(other.id).state.name is StateName.AWAITING_RETRY
    place.go.touch()
    assert place.until(run.id, StateName.COMPLETED).incarnation == 1
    with place.worker():
        place.until(other.id, StateName.RECOVERED)
    assert place.notes().count("b begins") == 1


def test_a_flow_that_is_run_again_finds_the_runs_that_it_has_ordered(place: Place) -> None:
    place.deploy("--name", "nightly")
    told: list[list[str]] = []

    @raflow.task
    def orders(name: str) -> str:
        return raflow.run_deployment("nightly", {"name": name}, wait=False).id

    @raflow.flow(retries=2)
    def parent() -> None:
        first = raflow.run_deployment("nightly", {"name": "a"}, wait=False).id
        other = raflow.run_deployment("nightly", {"name": "b"}, wait=False).id
        again = raflow.run_deployment("nightly", {"name": "a"}, wait=False).id
        ours = asyncio.run(in_turn(len(told)))
        told.append([first, other, again, *sorted(ours), orders("a").result()])
        if len(told) == 2:
            with place.store() as store:
                store.work.cancel(first, by="ann")
        if len(told) < 3:
            raise RuntimeError("once more")

    async def in_turn(number: int) -> list[str]:
        names = ["c", "d"] if number else ["d", "c"]
        calls = [
            raflow.run_deployment_async("nightly", {"name": name}, wait=False) for name in names
        ]
        return [run.id for run in await asyncio.gather(*calls)]

    parent()
    first, second, third = told
    assert len({*first}) == 6
    assert first == second
    # What did not complete is ordered once more; all else is there.
    assert third[0] not in second
    assert third[1:] == second[1:]


def test_a_run_that_failed_is_resumed_by_a_worker(place: Place) -> None:
    place.deploy("--name", "nightly")
    with place.worker():
        run = raflow.run_deployment("nightly", wait=False)
        wait_for(place.notes)
        place.until_recorded(run)
        with place.store() as store:
            store.work.cancel(run.id, by="ann")
        place.until(run.id, StateName.CANCELLED)
        place.go.touch()
        done = place("resume", run.id)
    assert done.returncode == 0, done.stderr
    assert "A worker of pool 'default' goes on" in done.stderr
    assert place.notes() == ["run begins", "run ends in version 1"]


SERVED = """
import sys
from datetime import timedelta

from raflow import Interval, flow, serve

@flow
def hello(name: str = "Ada") -> str:
    return f"Hello, {name}!"

@flow
def ticks() -> None:
    pass

if __name__ == "__main__":
    every_second = Interval(timedelta(seconds=1))
    if sys.argv[1:] == ["one"]:
        hello.serve(parameters={"name": "Bob"})
    else:
        serve(hello.deploy(), ticks.deploy(pool="other", schedules=[every_second]), runners=1)
"""


@pytest.mark.parametrize("which", ["one", "several"])
def test_a_program_serves_its_own_flows_and_schedules(place: Place, which: str) -> None:
    (place.folder / "served.py").write_text(SERVED)
    process = subprocess.Popen(
        [sys.executable, "served.py", which], stderr=subprocess.PIPE, text=True
    )
    told = process.stderr
    assert told is not None
    wait_for(lambda: "is served" in told.readline())
    run = raflow.run_deployment("hello")
    assert run.state.name is StateName.COMPLETED
    assert run.result is not None
    if which == "one":
        assert (run.result.preview, run.origin and run.origin.pool) == ("'Hello, Bob!'", "hello")
    else:
        with place.store() as store:
            done = [StateType.COMPLETED]
            wait_for(lambda: store.flow_runs(flow="ticks", state_types=done))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    with place.store() as store:
        assert store.work.workers() == []


def test_a_file_that_serves_whenever_it_is_loaded_is_refused(place: Place) -> None:
    unguarded = SERVED.partition("if __name__")[0] + "if 'raflow.worker' in sys.modules:\n"
    (place.folder / "flows.py").write_text(unguarded + "    hello.serve()\n")
    assert place("deploy", "flows.py:hello").returncode == 0
    with place.worker():
        run = raflow.run_deployment("hello")
    assert run.state.name is StateName.FAILED
    assert '`if __name__ == "__main__":`' in run.state.message
