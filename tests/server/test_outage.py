"""The service is killed while runs go on, and so are their processes: the record is whole later."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from raflow import config, errors, model
from raflow.client import RemoteStore, Spool
from raflow.model import Role, StateName, TokenKind
from raflow.store import Store
from tests.store import records
from tests.waiting import wait_for

PROGRAM = """
import os, sys, time
from raflow import flow, task

JOURNAL, LAST = sys.argv[1], int(sys.argv[2])

@task
def item(n: int) -> int:
    with open(JOURNAL, "a") as file:
        file.write(f"{n}\\n")
    print("item", n)
    time.sleep(0.05)
    return n

@flow
def counting() -> int:
    total = 0
    for n in range(1000):
        if os.path.exists(JOURNAL + ".go"):
            break
        total += item(n).result() if n < LAST else 0
        time.sleep(0.01)
    return total

if __name__ == "__main__":
    if sys.argv[3] == "run":
        counting()
    else:
        counting.resume("latest").unwrap()
"""


class Service:
    """A server that can be killed, and begun again where it was."""

    def __init__(self, home: Path) -> None:
        self.home = home
        # Who binds a port without listening keeps all others from it but servers that ask for it.
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind(("127.0.0.1", 0))
        self.port = self._held.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[str] | None = None
        with self.store as store:
            _, self.token = store.tokens.make(TokenKind.USER, role=Role.AUTHOR, name="ann")

    @property
    def store(self) -> Store:
        return Store.open(f"sqlite:///{self.home / 'raflow.db'}", log_dir=self.home / "logs")

    def begin(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "raflow.server", "--port", str(self.port)],
            env=os.environ | {"RAFLOW_HOME": str(self.home)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("raflow serves")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def close(self) -> None:
        self.kill()
        self._held.close()


@pytest.fixture
def service(
    tmp_path: Path, raflow_home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    found = Service(tmp_path / "served")
    monkeypatch.setenv("RAFLOW_BACKEND", "local")
    monkeypatch.setenv("RAFLOW_API_URL", found.url)
    monkeypatch.setenv("RAFLOW_API_TOKEN", found.token)
    found.begin()
    try:
        yield found
    finally:
        found.close()


class Driver:
    """A process that runs the flow."""

    def __init__(self, folder: Path) -> None:
        self.journal = folder / "journal"
        self.program = folder / "counting.py"
        self.program.write_text(PROGRAM, encoding="utf-8")

    def command(self, last: int, verb: str) -> list[str]:
        return [sys.executable, str(self.program), str(self.journal), str(last), verb]

    def done(self) -> Counter[str]:
        return Counter(self.journal.read_text().split() if self.journal.exists() else [])

    def end(self) -> None:
        Path(f"{self.journal}.go").touch()


def spooled() -> int:
    return sum(one.batches for one in Spool(config.load().home / "spool").waiting())


def test_a_run_goes_on_without_the_service_and_its_record_is_whole(
    service: Service, tmp_path: Path
) -> None:
    driver = Driver(tmp_path)
    with subprocess.Popen(driver.command(1000, "run")) as process:
        try:
            wait_for(lambda: len(driver.done()) >= 5)
            service.kill()
            before = len(driver.done())
            wait_for(lambda: len(driver.done()) >= before + 30)
            assert spooled() > 1
            service.begin()
            wait_for(lambda: not spooled())
            after = len(driver.done())
            wait_for(lambda: len(driver.done()) > after)
        finally:
            driver.end()
            assert process.wait(60) == 0
    with service.store as store:
        (run,) = store.flow_runs()
        assert run.state.name is StateName.COMPLETED
        task_runs = store.task_runs(run.id)
        assert {task_run.state.name for task_run in task_runs} == {StateName.COMPLETED}
        assert len(task_runs) == len(driver.done())
        names = [change.state.name for change in store.states(run.id)]
        assert names == [StateName.PENDING, StateName.RUNNING, StateName.COMPLETED]
        lines = [line.text for s in store.log_segments(run.id) for line in store.read_log(s)]
        assert Counter(lines) == Counter(f"item {n}" for n in driver.done())
        assert store.leases.get(run.id) is None


def test_what_a_killed_process_has_left_is_sent_by_the_next(
    service: Service, tmp_path: Path
) -> None:
    driver = Driver(tmp_path)
    with subprocess.Popen(driver.command(1000, "run")) as process:
        try:
            wait_for(lambda: len(driver.done()) >= 5)
            service.kill()
            wait_for(lambda: spooled() >= 5)
        finally:
            process.send_signal(signal.SIGKILL)
    raflow = [sys.executable, "-m", "raflow", "spool"]
    (waiting,) = orjson.loads(subprocess.check_output([*raflow, "ls", "--json"]))
    assert (waiting["service"], waiting["being_sent"]) == (service.url, False)
    refused = subprocess.run([*raflow, "send"], capture_output=True, text=True, check=False)
    assert refused.returncode == 3
    assert "cannot be reached" in refused.stderr
    with service.store as store:
        (run,) = store.flow_runs()
        known = len(store.task_runs(run.id, state_types={model.StateType.COMPLETED}))
    service.begin()
    sent = subprocess.run([*raflow, "send"], capture_output=True, text=True, check=False)
    assert (sent.returncode, sent.stdout) == (0, "What was left of 1 flow run was sent.\n")
    assert not spooled()
    with service.store as store:
        done = store.task_runs(run.id, state_types={model.StateType.COMPLETED})
        assert len(done) > known
    before = driver.done()
    driver.end()
    subprocess.run(driver.command(len(done), "resume"), check=True, timeout=100)
    with service.store as store:
        assert store.flow_run(run.id).state.name is StateName.RECOVERED
    assert driver.done() == before, "what was recorded ran again"


# --- The store from afar, by hand -----------------------------------------------------------------


def batch(seq: int, *rows: model.Record, incarnation: int = 1) -> model.RecordBatch:
    return records.batch(*rows, seq=seq, incarnation=incarnation)


def opened(service: Service, tmp_path: Path, spool_bytes: int = 1 << 20) -> RemoteStore:
    home = tmp_path / "laptop"
    return RemoteStore.open(service.url, service.token, home=home, spool_bytes=spool_bytes)


def test_none_overtakes_another_and_the_fence_holds(service: Service, tmp_path: Path) -> None:
    remote = opened(service, tmp_path)
    assert remote.apply(batch(0, records.flow_version(), records.flow_run()))
    assert not remote.apply(batch(0, records.flow_version(), records.flow_run()))
    service.kill()
    for seq in range(1, 20):
        name = StateName.RUNNING if seq < 19 else StateName.FAILED
        change = records.state_change(seq, None, name)
        remote.apply(batch(seq, records.flow_run(state_name=name), change))
    with pytest.raises(errors.StoreError, match="wait for the service"):
        remote.requests.ask_person(
            model.InputRequest(flow_run_id=records.RUN, number=0, title="?", form={}, asked_at=1)
        )
    service.begin()
    assert [change.number for change in remote.states(records.RUN)] == list(range(1, 20))
    assert remote.find_flow_run(records.RUN).state.name is StateName.FAILED
    number = remote.leases.begin_incarnation(
        records.RUN, host="h", pid=1, process_started=1.0, seconds=5
    )
    with pytest.raises(errors.FencedError):
        remote.apply(batch(20, records.flow_run()))
    assert remote.apply(batch(21, records.flow_run(), incarnation=number))
    with pytest.raises(errors.NotFoundError):
        remote.find_flow_run("nothing")
    remote.close()


def test_a_run_waits_when_more_than_may_waits(service: Service, tmp_path: Path) -> None:
    remote = opened(service, tmp_path, spool_bytes=2_000)
    remote.apply(batch(0, records.flow_version(), records.flow_run()))
    service.kill()
    remote.apply(batch(1, records.task_run(0)))

    def write() -> None:
        for seq in range(2, 30):
            remote.apply(batch(seq, records.task_run(seq)))

    writer = threading.Thread(target=write)
    writer.start()
    writer.join(1.0)
    assert writer.is_alive()
    (waiting,) = Spool(tmp_path / "laptop" / "spool").waiting()
    assert waiting.size <= 2_000
    service.begin()
    writer.join(60)
    assert not writer.is_alive()
    assert len(remote.task_runs(records.RUN)) == 29
    remote.close()


def test_a_run_that_a_worker_took_does_not_begin_while_the_service_is_away(
    service: Service, tmp_path: Path
) -> None:
    with service.store as store:
        _, token = store.tokens.make(TokenKind.RUN, scope=records.RUN)
    remote = RemoteStore.open(service.url, token, home=tmp_path, spool_bytes=1 << 20)
    service.kill()
    first = batch(0, records.flow_version(), records.flow_run())
    with pytest.raises(errors.StoreError, match="cannot be reached"):
        remote.apply(first)
    assert [one for one in Spool(tmp_path / "spool").waiting() if one.batches] == []
    service.begin()
    assert remote.apply(first)
    service.kill()
    assert remote.apply(batch(1, records.task_run(0)))
    (waiting,) = Spool(tmp_path / "spool").waiting()
    assert waiting.batches == 1
    service.begin()
    assert len(remote.task_runs(records.RUN)) == 1
    remote.close()


def test_only_who_may_is_let_in(service: Service, tmp_path: Path) -> None:
    with service.store as store:
        _, viewer = store.tokens.make(TokenKind.USER, role=Role.VIEWER, name="eve")
    for token, error in {
        "": errors.ConfigError,
        "raflow_uaaaaaaaaaa_x": errors.UnauthenticatedError,
        viewer: errors.AccessError,
    }.items():
        with pytest.raises(error):
            RemoteStore.open(service.url, token, home=tmp_path, spool_bytes=1)
    with pytest.raises(errors.ConfigError, match="not the URL"):
        RemoteStore.open("ftp://x", viewer, home=tmp_path, spool_bytes=1)
    begun = time.monotonic()
    service.kill()
    with pytest.raises(errors.StoreError, match="cannot be reached"):
        RemoteStore.open(service.url, service.token, home=tmp_path, spool_bytes=1)
    assert time.monotonic() - begun < 60
