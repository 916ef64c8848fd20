"""Going on with flow runs, and telling those that nobody drives any more."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from raflow import errors
from raflow.cli import _plain, _progress, _show, _standing, _task_rows
from raflow.cli._errors import ExitCode, exit_code
from raflow.model import (
    FlowRun,
    GraphNode,
    NodeKind,
    RecordBatch,
    State,
    StateName,
    StateType,
    TaskRun,
    TaskRunKey,
)
from raflow.store import Store
from tests.unit.cli.conftest import RUN_ID, T0, Cli, failed_run, state, task_run
from tests.unit.cli.test_pictures import flow_run_of, lines_of

LEAVES = """
from pathlib import Path

from raflow import flow, suspend_run, task

@task
def one(x: int) -> int:
    with Path("effects").open("a") as file:
        print(x, file=file)
    return x + 1

@flow
def leaves() -> int:
    x = sum(one.map([1, 2, 3]).result())
    suspend_run()
    return one(x)
"""


@pytest.fixture
def leaves(cli: Cli, tmp_path: Path) -> str:
    """The name of a run that is suspended."""
    (tmp_path / "leaves.py").write_text(LEAVES)
    assert cli("run", "leaves.py", "--quiet", "--name", "first").code == ExitCode.SUSPENDED
    return "first"


def going(record: Store, name: StateName = StateName.RUNNING, *, pid: int = 0) -> FlowRun:
    """Put a run on record that is under way; without a process id nobody drives it."""
    run = replace(
        flow_run_of(failed_run()),
        id="01900000-0000-7000-8000-0000000000cc",
        name="etl-0000cc",
        state=State(name=name, at=T0 + 20, reason="" if name is StateName.RUNNING else "why"),
        created_at=T0 + 10,
        ended_at=None,
        error=None,
        pid=pid,
        host="h",
    )
    record.apply(RecordBatch(flow_run_id=run.id, seq=0, records=(run,)))
    return run


class TestResume:
    def test_a_suspended_run_says_how_to_go_on(self, cli: Cli, tmp_path: Path) -> None:
        (tmp_path / "leaves.py").write_text(LEAVES)
        ended = cli("run", "leaves.py")
        assert ended.code == ExitCode.SUSPENDED
        assert "Suspended" in ended.out
        assert "raflow resume leaves-" in ended.out
        assert "--follow" not in ended.out

    def test_quiet_says_so_too(self, cli: Cli, tmp_path: Path) -> None:
        (tmp_path / "leaves.py").write_text(LEAVES)
        assert "raflow resume leaves-" in cli("run", "leaves.py", "--quiet").out

    def test_it_goes_on_from_the_file_on_record(
        self, cli: Cli, leaves: str, tmp_path: Path
    ) -> None:
        ended = cli("resume", leaves, "--json")
        assert ended.code == ExitCode.OK
        shown = json.loads(ended.out)
        assert shown["flow_run"]["state"]["name"] == "Recovered"
        assert shown["flow_run"]["result"]["value"] == 10
        assert sorted((tmp_path / "effects").read_text().split()) == ["1", "2", "3", "9"]

    def test_the_progress_begins_with_what_is_done(self, cli: Cli, leaves: str) -> None:
        ended = cli("resume", "latest", "leaves.py:leaves")
        assert ended.code == ExitCode.OK
        assert "one-1" in ended.err
        assert "one-0" not in ended.err
        assert "failed" not in ended.err

    def test_a_run_that_completed(self, cli: Cli, leaves: str) -> None:
        assert cli("resume", leaves, "--quiet").code == ExitCode.OK
        ended = cli("resume", leaves)
        assert ended.code == ExitCode.USAGE
        assert "It completed" in ended.err

    def test_changed_code_needs_to_be_allowed(self, cli: Cli, leaves: str, tmp_path: Path) -> None:
        (tmp_path / "later.py").write_text(LEAVES.replace("return one(x)", "return one(x + 0)"))
        ended = cli("resume", leaves, "later.py")
        assert ended.code == ExitCode.USAGE
        assert "--allow-new-code" in ended.err
        assert cli("resume", leaves, "later.py", "--allow-new-code", "-q").code == ExitCode.OK

    def test_a_file_that_is_not_there(self, cli: Cli, leaves: str, tmp_path: Path) -> None:
        (tmp_path / "leaves.py").rename(tmp_path / "moved.py")
        ended = cli("resume", leaves)
        assert ended.code == ExitCode.USAGE
        # A long path is folded anywhere.
        said = "".join(ended.err.replace("│", "").split())
        assert f"wasstartedfrom'{tmp_path}/leaves.py:leaves'" in said
        assert "raflowresumefirstFILE:FLOW" in said

    def test_a_run_that_python_code_has_started(self, cli: Cli, record: Store) -> None:
        going(record)
        run = replace(flow_run_of(failed_run()), fingerprint="f2", flow="old")
        record.apply(RecordBatch(flow_run_id=RUN_ID, seq=7, records=(run,)))
        ended = cli("resume", RUN_ID)
        assert ended.code == ExitCode.USAGE
        assert "was not started by `raflow run`" in ended.err

    def test_no_run_at_all(self, cli: Cli) -> None:
        ended = cli("resume", "latest")
        assert ended.code == ExitCode.USAGE
        assert "none was recorded yet" in ended.err

    def test_the_codes_of_its_errors(self) -> None:
        assert exit_code(errors.FencedError()) is ExitCode.RUN_FAILED
        assert exit_code(errors.FlowRunSuspendedError()) is ExitCode.SUSPENDED
        assert exit_code(errors.RunIsAliveError()) is ExitCode.USAGE


class TestAbandoned:
    def test_a_run_whose_process_is_gone_says_so(self, cli: Cli, record: Store) -> None:
        going(record)
        shown = cli("runs", "show", "latest").out
        for said in (cli("runs", "ls").out, shown):
            told = " ".join(said.split())
            assert "has fallen silent; its last sign of life was at 20" in told
            assert "`raflow resume etl-0000cc` goes on with it" in told
            assert "`raflow reap etl-0000cc` records that it crashed" in told
        assert "--follow" not in shown
        listed = json.loads(cli("runs", "ls", "--json").out)
        assert [run["abandoned"] for run in listed] == [True, False, False]
        run = json.loads(cli("runs", "show", "latest", "--json").out)["flow_run"]
        assert run["abandoned"]
        assert (run["last_process"]["fate"], run["last_process"]["pid"]) == ("away", None)
        assert json.loads(cli("flows", "ls", "--json").out)[0]["last_run"]["abandoned"]

    def test_one_that_is_driven_is_not(self, cli: Cli, record: Store) -> None:
        run = going(record, pid=1)
        assert _standing.lost(record, run) is None
        assert "gone" not in cli("runs", "ls").out + cli("runs", "show", "latest").out

    @pytest.mark.parametrize(
        ("name", "command"),
        [
            (StateName.SUSPENDED, "raflow resume etl-0000cc"),
            (StateName.PAUSED, "raflow unpause etl-0000cc"),
            (StateName.AWAITING_INPUT, "raflow input ls --run etl-0000cc"),
        ],
    )
    def test_why_a_run_does_not_go_on(
        self, cli: Cli, record: Store, name: StateName, command: str
    ) -> None:
        run = going(record, name, pid=1)
        assert f"why: `{command}`" in cli("runs", "ls").out
        assert name.value in cli("runs", "ls").out
        assert _show.next_commands(run, [], shown=True)[0] == command

    def test_a_failed_run_can_be_resumed_but_a_subflow_cannot(self) -> None:
        run = flow_run_of(failed_run())
        assert _standing.way_on(run) == "raflow resume etl-0000aa"
        child = replace(run, parent_id="p")
        assert _standing.way_on(child) == ""
        assert _standing.way_on(child, abandoned=True) == "raflow resume p"


class TestTaskRows:
    def test_what_a_task_waits_for_and_where_a_value_came_from(
        self, cli: Cli, record: Store
    ) -> None:
        waits = State(name=StateName.AWAITING_SLOT, at=T0, reason="limit 'db' 1/1, held by x")
        cached = State(name=StateName.CACHED, at=T0, message="computed by read of run r")
        new: list[TaskRun] = [
            replace(task_run(0, -1, "read", "read-0", StateName.CACHED), state=cached),
            replace(task_run(2, -1, "total", "total-0", StateName.AWAITING_SLOT), state=waits),
        ]
        record.apply(RecordBatch(flow_run_id=RUN_ID, seq=10, records=tuple(new)))
        rows = _task_rows.task_rows(record, record.find_flow_run(RUN_ID))
        drawn = {line.split()[0]: line for line in lines_of(_task_rows.render(rows))[2:]}
        notes = dict(_task_rows.notes(rows))
        assert "Cached" in drawn["read-0"]
        assert "AwaitingSlot" in drawn["total-0"]
        assert notes == {
            "read-0": "computed by read of run r",
            "clean-0": "1 recovered",
            "total-0": "limit 'db' 1/1, held by x",
        }
        assert _task_rows.notes(rows[:1] * 12)[-1] == ("…", "and 2 more")
        out = cli("runs", "show", RUN_ID).out
        assert "limit 'db' 1/1, held by x" in out


def test_progress_takes_what_is_done() -> None:
    nodes = [
        GraphNode(id=0, key="clean-0", kind=NodeKind.MAP, name="clean", length=4),
        GraphNode(id=1, key="total-0", kind=NodeKind.TASK, name="total"),
    ]
    run = replace(flow_run_of(failed_run()), state=state(StateName.RUNNING))
    progress = _progress.Progress()
    progress.recalled(run, nodes, {0: 3})
    clean, total = progress.rows()
    assert (clean.done, clean.expected, clean.submitted) == (3, 4, 0)
    assert clean.counts[StateType.PENDING] == 1
    assert (total.done, total.expected) == (0, 1)
    last = replace(task_run(0, 3, "clean", "clean-0[3]", StateName.COMPLETED), flow_run_id=run.id)
    progress.task_run_changed(last)
    assert clean.is_done


def test_progress_counts_what_was_dropped_once() -> None:
    clean = GraphNode(id=0, key="clean-0", kind=NodeKind.MAP, name="clean", length=4)
    total = GraphNode(id=1, key="total-0", kind=NodeKind.TASK, name="total")
    run = replace(flow_run_of(failed_run()), state=state(StateName.RUNNING))
    progress = _progress.Progress()
    progress.recalled(run, [clean, total], {0: 3, 1: 1})
    for dropped in (clean, total):
        progress.node_dropped(run.id, dropped.id)
    progress.node_added(run.id, clean)
    (row,) = progress.rows()
    assert (row.done, row.expected, row.counts[StateType.PENDING]) == (0, 4, 4)
    progress.node_added(run.id, total._replace(key="sum-0", name="sum"))
    assert [(r.label, r.done, r.expected) for r in progress.rows()] == [
        ("clean-0", 0, 4),
        ("sum-0", 0, 1),
    ]


def test_plain_progress_counts_on(capsys: pytest.CaptureFixture[str]) -> None:
    from raflow.cli import _console

    node = GraphNode(id=1, key="clean-0", kind=NodeKind.MAP, name="clean", length=4)
    run = flow_run_of(failed_run())
    plain = _plain.PlainProgress(_console.err())
    plain.recalled(run, [node], {1: 3})
    assert capsys.readouterr().err == ""
    plain.task_run_changed(
        replace(task_run(1, 3, "clean", "clean-0[3]", StateName.COMPLETED), key=TaskRunKey(1, 3))
    )
    assert "4/4" in capsys.readouterr().err
    plain.node_dropped(run.id, 1)
    plain.task_run_changed(
        replace(task_run(1, 0, "clean", "clean-0[0]", StateName.FAILED), key=TaskRunKey(1, 0))
    )
    assert "1/4" in capsys.readouterr().err
