"""Workers that reach a server by HTTP only: runs come from there, and are recorded there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raflow.model import FlowRun, StateName, StateType
from raflow.store import Store
from tests.e2e.test_deployments import FLOWS, RAFLOW, SECONDS
from tests.server.conftest import Started, started
from tests.waiting import wait_for


class Far:
    """A server with a deployment, and workers with homes of their own."""

    def __init__(self, server: Started, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.homes = folder.parent
        (folder / "flows.py").write_text(FLOWS)
        with server.client() as client:
            wanted = {"name": "box", "kind": "worker", "pool": "default"}
            self.token = client.post("tokens", json=wanted).json()["text"]
        done = subprocess.run(
            [RAFLOW, "deploy", "flows.py", "--name", "nightly", "--param", f"folder={folder}"],
            env=os.environ | {"RAFLOW_HOME": str(server.home)},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    @contextmanager
    def worker(self, token: str = "") -> Iterator[subprocess.Popen[str]]:
        environment = os.environ | {
            "RAFLOW_HOME": str(self.homes / "worker"),
            "RAFLOW_API_TOKEN": token or self.token,
        }
        command = [RAFLOW, "worker", "--runners", "2", "--api-url", self.server.url]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.communicate(timeout=SECONDS)

    def order(self) -> str:
        with self.server.client() as client:
            answer = client.post("deployments/nightly/runs", json={"parameters": {}})
            assert answer.status_code == 201, answer.text
            return str(answer.json()["id"])

    @contextmanager
    def store(self) -> Iterator[Store]:
        home = self.server.home
        with Store.open(f"sqlite:///{home / 'raflow.db'}", log_dir=home / "logs") as store:
            yield store

    def until(self, run: str, *states: StateName) -> FlowRun:
        with self.store() as store:
            wait_for(lambda: store.flow_run(run).state.name in states)
            return store.flow_run(run)

    def until_recorded(self, run: str) -> FlowRun:
        """Wait until the first task of a run is on record; return the run."""
        with self.store() as store:
            wait_for(lambda: StateType.COMPLETED in store.task_run_counts(run).get(0, {}))
            return store.flow_run(run)

    def notes(self) -> list[str]:
        path = self.folder / "notes"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Far]:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.setenv("RAFLOW_BACKEND", "local")
    with started(tmp_path / "served") as server:
        yield Far(server, project)


def test_a_run_is_done_elsewhere_and_recorded_by_the_server(far: Far) -> None:
    (far.folder / "go").touch()
    with far.worker() as worker:
        run = far.until(far.order(), StateName.COMPLETED)
        worker.send_signal(signal.SIGTERM)
        _, told = worker.communicate(timeout=SECONDS)
    assert worker.returncode == 0, told
    assert far.token not in told
    assert far.notes() == ["run begins", "run ends in version 1"]
    assert not (far.homes / "worker" / "raflow.db").exists()
    with far.server.client() as client:
        lines = client.get(f"runs/{run.id}/logs").json()["lines"]
        assert "waiting for run" in [line["text"] for line in lines]
        assert client.get(f"runs/{run.id}/result").json()["value"] == "run ends in version 1"
        assert client.get("workers").json()["items"] == []


def test_a_run_whose_process_was_killed_goes_on_from_the_record_of_the_server(far: Far) -> None:
    with far.worker():
        run = far.order()
        driver = far.until_recorded(run)
        os.kill(driver.pid, signal.SIGKILL)
        (far.folder / "go").touch()
        ended = far.until(run, StateName.COMPLETED, StateName.RECOVERED)
    assert ended.incarnation > driver.incarnation
    assert far.notes() == ["run begins", "run ends in version 1"]


@pytest.mark.slow
def test_a_run_that_was_killed_with_its_worker_goes_on_in_another(far: Far) -> None:
    with far.worker() as worker:
        run = far.order()
        driver = far.until_recorded(run)
        worker.kill()
        worker.wait(SECONDS)
        os.kill(driver.pid, signal.SIGKILL)
    with far.worker():
        (far.folder / "go").touch()
        ended = far.until(run, StateName.COMPLETED, StateName.RECOVERED)
    assert ended.incarnation > driver.incarnation
    assert far.notes() == ["run begins", "run ends in version 1"]


def test_a_token_that_counts_no_more_ends_the_worker_with_a_word(far: Far) -> None:
    with far.worker("raflow_waaaaaaaaaa_x") as worker:
        _, told = worker.communicate(timeout=SECONDS)
    assert worker.returncode == 3
    assert "token" in told
    assert sys.executable not in told
