"""Asking something of a run that another process drives, or that nobody drives any more."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from raflow._util import person
from raflow.cli import _steer
from raflow.cli._errors import ExitCode
from raflow.model import (
    BEING_SUSPENDED,
    NOT_PAUSED,
    TAKEN,
    FlowRun,
    RecordBatch,
    RequestKind,
    State,
    StateName,
    TaskRunKey,
)
from raflow.store import Store
from tests.unit.cli.conftest import RUN_ID, T0, Cli, task_run
from tests.unit.cli.test_resuming import going

KINDS = [kind.value for kind in RequestKind]


@contextmanager
def driver(
    record: Store, run: FlowRun, *, ends: StateName | None = None, outcome: str = TAKEN
) -> Iterator[list[str]]:
    """Take the requests to a run as its process would; yields who asked for what."""
    taken: list[str] = []
    over = threading.Event()

    def drive() -> None:
        while not over.wait(0.02):
            for request in record.requests.of(run.id, open_only=True):
                taken.append(f"{request.kind.value} {request.by} {request.message}".strip())
                if ends is not None:
                    ended = replace(run, state=State(name=ends, at=T0 + 30), ended_at=T0 + 30)
                    batch = RecordBatch(flow_run_id=run.id, seq=5, records=(ended,))
                    record.apply(batch)
                else:
                    record.requests.answered(request.id, outcome)

    thread = threading.Thread(target=drive)
    thread.start()
    try:
        yield taken
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_is_taken_by_the_process_of_the_run(cli: Cli, record: Store, kind: str) -> None:
    with driver(record, going(record, pid=1)) as taken:
        ended = cli(kind, "etl-0000cc")
    assert ended.code == ExitCode.OK
    assert taken == [f"{kind} {person()}"]
    assert "'etl-0000cc'" in ended.out


def test_why_a_run_is_cancelled_is_said(cli: Cli, record: Store) -> None:
    with driver(record, going(record, pid=1), ends=StateName.CANCELLED) as taken:
        ended = cli("cancel", "latest", "--message", "wrong day")
    assert (ended.code, taken) == (ExitCode.OK, [f"cancel {person()} wrong day"])
    assert "is over: Cancelled" in ended.out


def test_a_run_that_ends_otherwise_first(cli: Cli, record: Store) -> None:
    with driver(record, going(record, pid=1), ends=StateName.COMPLETED):
        ended = cli("pause", "latest")
    assert ended.code == ExitCode.RUN_FAILED
    assert "is over: Completed" in ended.out


def test_a_process_that_does_not_answer(
    cli: Cli, record: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_steer, "WAIT_SECONDS", 0.3)
    going(record, pid=4711)
    ended = cli("pause", "latest")
    assert ended.code == ExitCode.RUN_FAILED
    assert "process 4711 on host 'h' has not taken that" in ended.out


def test_nobody_waits_who_does_not_want_to(cli: Cli, record: Store) -> None:
    run = going(record, pid=1)
    ended = cli("suspend", "latest", "--no-wait")
    assert ended.code == ExitCode.OK
    assert "Asked flow run 'etl-0000cc' to suspend." in ended.out
    assert [request.kind for request in record.requests.of(run.id)] == [RequestKind.SUSPEND]


@pytest.mark.parametrize("kind", ["pause", "unpause", "suspend"])
@pytest.mark.parametrize("state", [StateName.RUNNING, StateName.SUSPENDED])
def test_a_run_that_nobody_drives_names_resume_and_keeps_no_request(
    cli: Cli, record: Store, kind: str, state: StateName
) -> None:
    run = going(record, state)
    ended = cli(kind, "latest")
    assert ended.code == ExitCode.USAGE
    said = " ".join(ended.err.replace("│", "").split())
    assert f"nobody can {kind} it" in said
    assert "`raflow resume etl-0000cc`" in said
    assert ("it is suspended" in said) is (state is StateName.SUSPENDED)
    assert record.requests.of(run.id, open_only=True) == ()


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_over(cli: Cli, record: Store, kind: str) -> None:
    ended = cli(kind, RUN_ID)
    assert ended.code == ExitCode.USAGE
    said = " ".join(ended.err.replace("│", "").split())
    name = record.find_flow_run(RUN_ID).name
    assert f"Flow run {name!r} is over (Failed), so nobody can {kind} it." in said
    assert "`raflow resume " in said


def test_nothing_of_a_run_that_crashed_is_left_to_be_cancelled(cli: Cli, record: Store) -> None:
    going(record, StateName.CRASHED)
    ended = cli("cancel", "etl-0000cc")
    assert ended.code == ExitCode.USAGE
    said = " ".join(ended.err.replace("│", "").split())
    assert "its process is gone, so there is nothing to cancel" in said
    assert "`raflow resume etl-0000cc` goes on with it" in said
    assert "`raflow reap --undo etl-0000cc`" in said


@pytest.mark.parametrize(
    ("outcome", "state", "code", "said"),
    [
        (TAKEN, StateName.RUNNING, 0, "'etl-0000cc' goes on.\n"),
        (NOT_PAUSED, StateName.RUNNING, 0, "'etl-0000cc' is not paused, so nothing has changed.\n"),
        (
            NOT_PAUSED,
            StateName.AWAITING_INPUT,
            0,
            "nothing has changed. It waits for input: `raflow",
        ),
        (TAKEN, StateName.AWAITING_INPUT, 0, "is not paused any more. It waits for input: `raflow"),
        (BEING_SUSPENDED, StateName.RUNNING, 1, "`raflow resume etl-0000cc` goes on with it then"),
    ],
)
def test_what_came_of_letting_a_run_go_on_is_said(
    cli: Cli, record: Store, outcome: str, state: StateName, code: int, said: str
) -> None:
    run = going(record, state, pid=1)
    with driver(record, run, outcome=outcome):
        ended = cli("unpause", "etl-0000cc")
    assert (ended.code, said in ended.out) == (code, True)


@pytest.mark.parametrize(
    ("state", "story"),
    [
        (StateName.SUSPENDED, ["Cancelled"]),
        (StateName.PENDING, ["Cancelled"]),
        (StateName.CANCELLING, ["Cancelled"]),
        (StateName.RUNNING, ["Cancelling", "Cancelled"]),
        (StateName.AWAITING_INPUT, ["Cancelling", "Cancelled"]),
    ],
)
def test_a_run_that_nobody_drives_is_cancelled_on_record(
    cli: Cli, record: Store, state: StateName, story: list[str]
) -> None:
    run = going(record, state)
    busy = replace(
        task_run(0, -1, "read", "read-0", StateName.RUNNING), flow_run_id=run.id, ended_at=None
    )
    child = replace(run, id="01900000-0000-7000-8000-0000000000dd", name="sub", parent_id=run.id)
    record.apply(RecordBatch(flow_run_id=run.id, seq=1, records=(busy,)))
    record.apply(RecordBatch(flow_run_id=child.id, seq=0, records=(child,)))

    ended = cli("cancel", "etl-0000cc", "-m", "wrong day")

    assert ended.code == ExitCode.OK
    assert "is recorded as Cancelled" in ended.out
    found = record.find_flow_run(run.id)
    assert found.state.name is StateName.CANCELLED
    assert f"cancel asked by {person()}: wrong day" in found.state.message
    assert found.ended_at is not None
    own = [change for change in record.states(run.id) if change.key is None]
    assert [change.state.name.value for change in own] == story
    assert record.find_flow_run(child.id).state.name is StateName.CANCELLED
    (task,) = record.task_runs(run.id)
    assert (task.key, task.state.name) == (TaskRunKey(0), StateName.CANCELLED)
    assert record.leases.get(run.id) is None
    (request,) = record.requests.of(run.id)
    assert request.outcome == "the flow run ended: Cancelled"


def test_a_subflow_that_nobody_drives_names_its_parent(cli: Cli, record: Store) -> None:
    run = going(record)
    child = replace(run, id="01900000-0000-7000-8000-0000000000dd", name="sub", parent_id=run.id)
    record.apply(RecordBatch(flow_run_id=child.id, seq=0, records=(child,)))
    ended = cli("cancel", "sub")
    assert ended.code == ExitCode.USAGE
    assert f"`raflow cancel {run.id[-12:]}`" in " ".join(ended.err.replace("│", "").split())
