"""A worker with real runners, on the database of this machine."""

from __future__ import annotations

import itertools
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from raflow import config
from raflow.define import find_flow
from raflow.model import (
    DeploymentSpec,
    FlowRun,
    RunOrder,
    RunOrigin,
    Stage,
    StateName,
    StateType,
    Work,
)
from raflow.runtime.deploying import LocalDeploys, deploy
from raflow.store import Store
from raflow.worker import LocalWork, Worker, _runners

PATIENCE_SECONDS = 60.0
FLOW = """
import os
import time
from pathlib import Path

from raflow import flow, task

from notes import note

@task
def step(journal: str, name: str) -> int:
    note(journal, f"{name} {os.getpid()}")
    return os.getpid()

@flow
def quick(journal: str) -> int:
    return step(journal, "quick")

@flow
def waits(journal: str) -> int:
    step(journal, "first")
    while not Path(journal + ".go").exists():
        time.sleep(0.01)
    return step(journal, "second")
"""
NOTES = """
from pathlib import Path

def note(journal: str, line: str) -> None:
    with Path(journal).open("a") as file:
        file.write(line + "\\n")
"""
_numbers = itertools.count()


class Place:
    """A home with a worker in it."""

    def __init__(self, root: Path, home: Path) -> None:
        self.settings = config.load(home=home, backend="local")
        self.store = Store.open(self.settings.database, log_dir=self.settings.logs)
        self.journal = root / "journal"
        self.root = root
        self.edit(FLOW)
        self.worker = Worker(
            LocalWork(self.store, self.settings), self.settings, runners=1, drain_seconds=0.0
        )
        self.thread = threading.Thread(target=self.worker.run)

    def edit(self, code: str) -> None:
        """Write the code to a new folder, as this process has loaded what was in the last one."""
        self.project = self.root / f"project-{next(_numbers)}"
        self.project.mkdir()
        (self.project / "flows.py").write_text(code)
        (self.project / "notes.py").write_text(NOTES)

    def deployed(self, name: str) -> int:
        found = find_flow(f"{self.project}/flows.py:{name}").flow
        spec = DeploymentSpec(flow="", entrypoint="")
        to = LocalDeploys(self.store, self.settings.bundles)
        return deploy(found, spec, to, name=name, root=self.project).deployment.version

    def order(self, name: str, *, version: int | None = None, **parameters: Any) -> str:
        its = self.store.deployments.version(name, version)
        origin = RunOrigin(deployment=name, version=its.number, bundle=its.bundle, pool="default")
        run = f"{name}-{next(_numbers)}"
        one = RunOrder(
            flow_run_id=run,
            flow=name,
            fingerprint=its.fingerprint,
            name=run,
            origin=origin,
            parameters={"journal": str(self.journal), **parameters},
        )
        self.store.work.order([one])
        return run

    def until(self, run: str, name: StateName) -> FlowRun:
        eventually(lambda: self.store.find_flow_run(run).state.name is name)
        return self.store.find_flow_run(run)

    def noted(self) -> list[list[str]]:
        if not self.journal.exists():
            return []
        return [line.split() for line in self.journal.read_text().splitlines()]

    def close(self) -> None:
        if self.thread.is_alive():
            self.worker.drain()
            self.worker.drain()
            self.thread.join(PATIENCE_SECONDS)
        assert not self.thread.is_alive()
        self.store.close()


def eventually(look: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def place(tmp_path: Path, raflow_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(sys, "path", sys.path[:])
    made = Place(tmp_path, raflow_home)
    yield made
    made.close()
    for name in ("flows", "notes", "raflow_file_flows"):
        sys.modules.pop(name, None)


def test_runs_of_one_version_share_a_process_and_edited_code_has_its_own(place: Place) -> None:
    place.deployed("quick")
    place.thread.start()
    for _ in range(2):
        place.until(place.order("quick"), StateName.COMPLETED)
    place.edit(FLOW.replace('step(journal, "quick")', 'step(journal, "edited")'))
    assert place.deployed("quick") == 2
    place.until(place.order("quick"), StateName.COMPLETED)
    place.until(place.order("quick", version=1), StateName.COMPLETED)
    names, processes = zip(*place.noted(), strict=True)
    assert names == ("quick", "quick", "edited", "quick")
    assert processes[0] == processes[1] != str(os.getpid())
    assert processes[2] != processes[0]


def test_a_run_whose_runner_is_killed_goes_on_in_another(place: Place) -> None:
    place.deployed("waits")
    place.thread.start()
    run = place.order("waits")
    eventually(place.noted)
    eventually(lambda: place.store.task_run_counts(run))
    driver = place.store.find_flow_run(run)
    os.kill(driver.pid, signal.SIGKILL)
    eventually(lambda: place.store.find_flow_run(run).incarnation > driver.incarnation)
    Path(f"{place.journal}.go").touch()
    ended = place.until(run, StateName.RECOVERED)
    assert ended.pid != driver.pid
    assert [line[0] for line in place.noted()] == ["first", "second"]
    told = [change.state.message for change in place.store.states(run)]
    assert f"its process {driver.pid} was ended by signal 9" in told


def test_a_runner_leaves_it_to_its_worker_when_it_ends(place: Place) -> None:
    place.deployed("waits")
    place.thread.start()
    run = place.order("waits")
    eventually(place.noted)
    driver = place.store.find_flow_run(run)
    # As a service manager or a terminal tells all processes of a worker.
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(driver.pid, number)
    Path(f"{place.journal}.go").touch()
    ended = place.until(run, StateName.COMPLETED)
    assert (ended.pid, ended.incarnation) == (driver.pid, 1)


def test_a_process_that_does_not_end_holds_up_no_run(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_runners, "_LEAVE_SECONDS", 1.0)
    stays = "import threading\nthreading.Thread(target=lambda: time.sleep(1000)).start()\n"
    place.edit(FLOW + stays)
    place.deployed("quick")
    place.thread.start()
    first = place.until(place.order("quick"), StateName.COMPLETED)
    # There is room for one runner: the other version takes its place.
    place.edit(FLOW)
    place.deployed("quick")
    second = place.until(place.order("quick"), StateName.COMPLETED)
    assert second.pid != first.pid
    eventually(lambda: not psutil.pid_exists(first.pid))


def test_code_that_never_ends_loading_is_given_up(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_runners, "LOAD_SECONDS", 0.5)
    hangs = "import sys\nif sys.argv[0].endswith('_runner_main.py'):\n    time.sleep(1000)\n"
    place.edit(FLOW + hangs)
    place.deployed("quick")
    place.thread.start()
    run = place.order("quick")
    eventually(lambda: (found := place.store.work.dispatch(run)) and found.refusals)
    found = place.store.work.dispatch(run)
    assert found is not None
    assert "did not load within" in found.message
    assert place.store.work.cancel_waiting(run, message="enough")


def test_a_flow_that_speaks_in_place_of_its_runner_ends_only_that(place: Place) -> None:
    place.edit(
        FLOW.replace(
            'return step(journal, "quick")',
            """
    if not Path(journal).exists():
        note(journal, "spoke")
        for link in Path("/proc/self/fd").iterdir():
            if link.is_symlink() and "socket" in os.readlink(link):
                os.write(int(link.name), b"\\0\\0\\0\\x04oops")
    return step(journal, "quick")""",
        )
    )
    place.deployed("quick")
    place.thread.start()
    run = place.order("quick")
    eventually(lambda: place.store.find_flow_run(run).state.type is StateType.COMPLETED)
    assert place.store.find_flow_run(run).incarnation > 1


def test_a_worker_that_drains_leaves_what_goes_on_to_another(place: Place) -> None:
    place.deployed("waits")
    place.thread.start()
    run = place.order("waits")
    eventually(place.noted)
    place.worker.drain()
    eventually(lambda: any(asked.outcome for asked in place.store.requests.of(run)))
    Path(f"{place.journal}.go").touch()
    place.thread.join(PATIENCE_SECONDS)
    assert not place.thread.is_alive()
    left = place.store.work.dispatch(run)
    assert left is not None
    assert (left.stage, left.kind) == (Stage.WAITING, Work.RESUME)
    assert place.store.work.workers() == []


def test_parameters_that_do_not_fit_fail_the_run_at_once(place: Place) -> None:
    place.deployed("quick")
    place.thread.start()
    ended = place.until(place.order("quick", journal=["no", "path"]), StateName.FAILED)
    assert "journal" in ended.state.message
    assert place.noted() == []


def test_code_of_another_python_is_given_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as other:
        other.setattr(platform, "python_version", lambda: "2.7.18")
        place.deployed("quick")
    place.thread.start()
    run = place.order("quick")
    eventually(lambda: (found := place.store.work.dispatch(run)) and found.refusals)
    found = place.store.work.dispatch(run)
    assert found is not None
    assert "wants Python 2.7 (here" in found.message
    assert place.noted() == []
