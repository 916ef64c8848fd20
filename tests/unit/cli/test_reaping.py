"""Bringing runs to an end whose process is gone."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from raflow.cli._errors import ExitCode
from raflow.model import FlowRun, FlowVersion, GraphRecord, ProcessInfo, RecordBatch, StateName
from raflow.runtime.leases._lease import process_started
from raflow.store import Store
from tests.unit.cli.conftest import T0, Cli, failed_run, state, task_run
from tests.unit.cli.test_resuming import going

ETL = """
from pathlib import Path
from raflow import flow, task

def tell(owner, run, state):
    with Path("hooks").open("a") as file:
        print(owner.name, state.name, file=file)

def undo(owner, run, state):
    with Path("hooks").open("a") as file:
        print("undo", run.label, file=file)

@task(on_crashed=[tell], on_rollback=[undo])
def read() -> int:
    return 1

@task(on_crashed=[tell], on_cancellation=[tell])
def clean(x: int) -> int:
    return x

@flow(on_crashed=[tell], on_cancellation=[tell])
def etl(day: str = "", n: int = 0) -> int:
    return clean(read())
"""


def hooks(folder: Path) -> list[str]:
    return (folder / "hooks").read_text().splitlines() if (folder / "hooks").exists() else []


@pytest.fixture
def dead(record: Store, tmp_path: Path) -> FlowRun:
    """A run without a process: one call is done, one runs, two have not begun."""
    (tmp_path / "etl.py").write_text(ETL)
    run = going(record)
    runs = [
        task_run(0, -1, "read", "read-0", StateName.COMPLETED),
        task_run(1, 0, "clean", "clean-0[0]", StateName.RUNNING),
        task_run(1, 1, "clean", "clean-0[1]", StateName.SUBMITTED),
        task_run(1, 2, "clean", "clean-0[2]", StateName.AWAITING_RETRY),
    ]
    rows = [replace(row, flow_run_id=run.id) for row in runs]
    parts = [part for part in failed_run() if isinstance(part, GraphRecord)]
    nodes = [part._replace(flow_run_id=run.id) for part in parts]
    record.apply(RecordBatch(flow_run_id=run.id, seq=1, records=(*nodes, *rows)))
    return run


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def states(record: Store, run: FlowRun) -> dict[str, str]:
    return {t.label: t.state.name.value for t in record.task_runs(run.id) if t.attempts}


def test_a_run_is_recorded_as_crashed_and_its_hooks_are_called(
    cli: Cli, record: Store, dead: FlowRun, tmp_path: Path
) -> None:
    ended = cli("reap")
    assert ended.code == ExitCode.OK
    assert "'etl-0000cc' is recorded as Crashed: its process has fallen silent" in ended.out
    assert "`raflow resume etl-0000cc`" in ended.out
    found = record.find_flow_run(dead.id)
    assert found.state.name is StateName.CRASHED
    assert (found.incarnation, found.ended_at is not None) == (2, True)
    assert f"found by process {os.getpid()} on host" in found.state.message
    assert states(record, dead) == {
        "read-0": "Completed",
        "clean-0[0]": "Crashed",
        "clean-0[1]": "Lost",
        "clean-0[2]": "Cancelled",
    }
    # What has not begun was cancelled; what completed is not undone: it can be resumed.
    assert hooks(tmp_path) == ["clean Crashed", "clean Lost", "clean Cancelled", "etl Crashed"]
    assert "Every flow run that is under way has a process." in cli("reap").out


def test_what_would_be_done(cli: Cli, record: Store, dead: FlowRun, tmp_path: Path) -> None:
    assert "'etl-0000cc' would be reaped: its process has fallen" in cli("reap", "--dry-run").out
    [told] = json.loads(cli("reap", "--dry-run", "--json").out)
    assert (told["flow_run"]["abandoned"], told["reaped"]) == (True, False)
    assert told["last_process"]["fate"] == "away"
    assert record.find_flow_run(dead.id).state.name is StateName.RUNNING
    assert hooks(tmp_path) == []


def test_it_is_told_to_programs(cli: Cli, record: Store, dead: FlowRun) -> None:
    [told] = json.loads(cli("reap", "--json", "--undo").out)
    assert told["flow_run"]["state"]["name"] == "Crashed"
    assert told["flow_run"]["abandoned"] is False
    assert (told["reaped"], told["task_runs_undone"], told["processes_ended"]) == (True, 1, 0)
    assert told["left_because"] is told["without_hooks_because"] is None


def test_what_a_crashed_run_did_is_undone_if_that_is_asked_for(
    cli: Cli, record: Store, dead: FlowRun, tmp_path: Path
) -> None:
    assert cli("reap").code == ExitCode.OK
    before, why = hooks(tmp_path), record.find_flow_run(dead.id).state.message
    ended = cli("reap", "latest", "--undo")
    assert "is recorded as Crashed. 1 task run undone" in ended.out
    assert record.find_flow_run(dead.id).state.message == why
    assert hooks(tmp_path)[len(before) :] == ["undo read-0"]
    assert states(record, dead)["read-0"] == "RolledBack"
    assert record.find_flow_run(dead.id).state.name is StateName.CRASHED
    # Only once.
    assert "undone" not in cli("reap", "latest", "--undo").out
    assert hooks(tmp_path)[len(before) :] == ["undo read-0"]


def test_a_run_that_was_being_cancelled_is_cancelled(
    cli: Cli, record: Store, dead: FlowRun, tmp_path: Path
) -> None:
    asked = replace(dead, state=state(StateName.CANCELLING, message="asked by ada"))
    record.apply(RecordBatch(flow_run_id=dead.id, seq=2, records=(asked,)))
    assert "is recorded as Cancelled" in cli("reap").out
    found = record.find_flow_run(dead.id)
    assert "Asked by ada. Before that was done: " in found.state.message
    assert hooks(tmp_path)[-2:] == ["undo read-0", "etl Cancelled"]


@pytest.mark.parametrize(
    ("entrypoint", "why"),
    [
        ("", "it was not started by `raflow run`"),
        ("gone.py:etl", "its flow cannot be loaded from here"),
        ("other.py:other", "'other.py:other' is flow 'other' by now, not 'etl'"),
    ],
)
def test_a_flow_that_is_not_there_any_more(
    cli: Cli, record: Store, dead: FlowRun, tmp_path: Path, entrypoint: str, why: str
) -> None:
    (tmp_path / "other.py").write_text(
        "from raflow import flow\n\n@flow\ndef other() -> None: ...\n"
    )
    version = FlowVersion(flow="etl", fingerprint="f1", entrypoint=entrypoint, created_at=T0)
    record.apply(RecordBatch(flow_run_id=dead.id, seq=2, records=(version,)))
    ended = cli("reap", "--only-with-hooks")
    if entrypoint:
        assert f"is left as it is: {why}" in ended.out
        ended = cli("reap")
    assert f"Its hooks were not called: {why}" in ended.out
    assert record.find_flow_run(dead.id).state.name is StateName.CRASHED
    assert hooks(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("etl-0000aa", "it is Failed."),
        ("old-0000bb", "it is Completed."),
        ("etl-0000cc", "a process drives it. `raflow cancel` ends it."),
    ],
)
def test_a_run_that_is_named_and_cannot_be_reaped(
    cli: Cli, record: Store, name: str, why: str
) -> None:
    going(record, pid=1)
    ended = cli("reap", name)
    assert ended.code == ExitCode.USAGE
    assert f"is left as it is: {why}" in ended.out


def test_what_a_process_of_this_machine_left_behind_is_ended(
    cli: Cli, record: Store, sleeper: subprocess.Popen[bytes]
) -> None:
    run = going(record, pid=1)
    started = process_started(sleeper.pid)
    host = socket.gethostname()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as driver:
        begun = process_started(driver.pid)
        record.leases.renew(run.id, 1, seconds=60, host=host, pid=driver.pid, process_started=begun)
        same = ProcessInfo(host=host, pid=sleeper.pid, started_at=started, role="child")
        other = ProcessInfo(host=host, pid=os.getpid(), started_at=started - 999.0, role="child")
        away = ProcessInfo(host="elsewhere", pid=os.getppid(), started_at=started, role="child")
        record.leases.note_processes(run.id, [same, other, away])
        assert "a process drives it" in cli("reap", "latest").out
        driver.kill()
    # It is not waited for: a process of this machine that is gone will not renew its lease.
    ended = cli("reap")
    assert f"process {driver.pid} on host {host!r} is gone" in ended.out
    assert "1 process that it left behind ended" in ended.out
    assert sleeper.wait(100) == -signal.SIGTERM


def test_a_process_that_was_stopped_keeps_its_run_unless_that_is_named(
    cli: Cli, record: Store, sleeper: subprocess.Popen[bytes]
) -> None:
    run = going(record)
    started, host = process_started(sleeper.pid), socket.gethostname()
    record.leases.renew(run.id, 1, seconds=0, host=host, pid=sleeper.pid, process_started=started)
    assert "its process is there, if stopped." in cli("reap").out
    assert record.find_flow_run(run.id).state.name is StateName.RUNNING
    ended = cli("reap", run.id)
    assert "is there, but does not say anything" in ended.out
    assert record.find_flow_run(run.id).state.name is StateName.CRASHED
    assert sleeper.poll() is None
