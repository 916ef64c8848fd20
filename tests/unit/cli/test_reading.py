"""Commands that read the record."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from raflow import config
from raflow.cli._runs import Level, StateFilter
from raflow.model import (
    GraphRecord,
    RecordBatch,
    Resources,
    State,
    StateChange,
    StateName,
    StateType,
)
from raflow.store import Store
from tests.unit.cli.conftest import OLD_ID, RUN_ID, T0, Cli, attempt, completed_run

READING = [
    ("runs", "ls"),
    ("runs", "show", "latest"),
    ("runs", "logs", "latest"),
    ("runs", "graph", "latest"),
    ("flows", "ls"),
]


@pytest.mark.parametrize("command", [("runs", "ls"), ("flows", "ls")])
def test_an_empty_record_says_how_to_start(cli: Cli, raflow_home: Path, command: list[str]) -> None:
    ended = cli(*command)
    assert ended.code == 0
    assert "raflow run hello.py --param name=Ada" in ended.out
    assert json.loads(cli(*command, "--json").out) == []
    assert not raflow_home.exists()


@pytest.mark.parametrize("command", ["show", "logs", "graph"])
def test_no_run_to_look_at_says_how_to_make_one(cli: Cli, command: str) -> None:
    ended = cli("runs", command, "latest")
    assert ended.code == 2
    assert "none was recorded yet" in ended.err
    assert "raflow run FILE" in ended.err


@pytest.mark.usefixtures("record")
@pytest.mark.parametrize("command", READING)
def test_every_read_command_prints_json(cli: Cli, command: list[str]) -> None:
    ended = cli(*command, "--json")
    assert ended.code == 0
    assert (
        [json.loads(line) for line in ended.out.splitlines()]
        if "logs" in command
        else json.loads(ended.out)
    )


@pytest.mark.usefixtures("record")
class TestRunsLs:
    def test_newest_first(self, cli: Cli) -> None:
        lines = cli("runs", "ls").out.splitlines()
        assert [line.split()[:2] for line in lines[2:]] == [
            ["etl-0000aa", "etl"],
            ["old-0000bb", "old"],
        ]
        assert "Failed" in lines[2]
        assert "8.0 s" in lines[2]

    def test_filters(self, cli: Cli) -> None:
        def ids(*options: str) -> list[str]:
            return [run["id"] for run in json.loads(cli("runs", "ls", "--json", *options).out)]

        assert ids() == [RUN_ID, OLD_ID]
        assert ids("--limit", "1") == [RUN_ID]
        assert ids("--flow", "old") == [OLD_ID]
        assert ids("--state", "completed") == [OLD_ID]
        assert ids("--state", "FAILED", "--state", "completed") == [RUN_ID, OLD_ID]
        assert ids("--state", "running") == []

    def test_nothing_fits(self, cli: Cli) -> None:
        assert "No flow run fits" in cli("runs", "ls", "--state", "running").out

    def test_an_unknown_flow_is_an_error_with_the_closest_name(self, cli: Cli) -> None:
        ended = cli("runs", "ls", "--flow", "elt")
        assert ended.code == 2
        assert "Did you mean 'etl'?" in ended.err


def test_the_state_filter_knows_every_type() -> None:
    assert {kind.value.upper() for kind in StateFilter} == {kind.value for kind in StateType}
    assert len(Level) == 5


@pytest.mark.usefixtures("record")
class TestRunsShow:
    @pytest.mark.parametrize("name", ["latest", "etl-0000aa", RUN_ID, "0190", "0000aa"])
    def test_a_run_is_found_by_id_name_or_part(self, cli: Cli, name: str) -> None:
        assert json.loads(cli("runs", "show", name, "--json").out)["flow_run"]["id"] == RUN_ID

    def test_unknown_and_ambiguous_runs(self, cli: Cli) -> None:
        ended = cli("runs", "show", "etl-0000ab")
        assert ended.code == 2
        assert "Did you mean 'etl-0000aa'" in ended.err
        ended = cli("runs", "show", "01")
        assert ended.code == 2
        assert "fits 2 flow runs" in ended.err

    def test_one_row_for_each_task_and_one_panel_for_each_failure(self, cli: Cli) -> None:
        out = cli("runs", "show", "latest").out
        rows = {line.split()[0]: line for line in reversed(out.splitlines()) if line.split()}
        assert "3.0 s" in rows["read-0"] or "2.0 s" in rows["read-0"]
        assert "64.0 MiB" in rows["read-0"]
        assert rows["clean-0"].split()[1:5] == ["✔", "2", "✘", "1"]
        assert "UpstreamFailed" in rows["total-0"]
        assert out.count("ValueError: bad row") == 1
        assert 'File "etl.py", line 4, in clean' in out
        assert "clean-0[1] Failed after 2 attempts" in out
        assert "total-0 UpstreamFailed" not in out  # it failed only because of the other
        assert "day='2026-01-01', n=3" in out
        assert "raflow runs logs etl-0000aa --task clean-0" in out

    def test_attempts_of_the_flow(self, cli: Cli, record: Store) -> None:
        run = record.find_flow_run(RUN_ID)
        waits = State(
            name=StateName.AWAITING_RETRY, at=T0, message="boom", reason="attempt 2 of 3 in 10 s"
        )
        again = State(name=StateName.RUNNING, at=T0 + 10, message="attempt 2 of 3")
        number = record.recall.numbers(run.id).change
        changes = [
            StateChange(flow_run_id=run.id, number=number + n, key=None, state=state)
            for n, state in enumerate((waits, again))
        ]
        running = dataclasses.replace(run, state=again, error=None)
        batch = RecordBatch(flow_run_id=run.id, seq=9, records=(running, *changes))
        record.apply(batch)
        out = cli("runs", "show", "latest").out
        assert "boom; attempt 2 of 3 in 10 s" in out
        shown = json.loads(cli("runs", "show", "latest", "--json").out)
        assert [state["reason"] for state in shown["retries"]] == [waits.reason]

    def test_all_items(self, cli: Cli) -> None:
        out = cli("runs", "show", "latest", "--all").out
        assert all(label in out for label in ("clean-0[0]", "clean-0[1]", "odd one"))
        tasks = json.loads(cli("runs", "show", "latest", "--all", "--json").out)["tasks"]
        assert [task["label"] for task in tasks] == [
            *("read-0", "clean-0[0]", "clean-0[1]", "odd one", "total-0")
        ]

    def test_the_keys_of_the_json_form(self, cli: Cli) -> None:
        shown = json.loads(cli("runs", "show", "latest", "--json").out)
        assert list(shown) == ["flow_run", "waits", "retries", "tasks", "failures"]
        assert list(shown["flow_run"]) == [
            *("id", "name", "flow", "state", "parameters", "trigger", "backend", "parent_id"),
            *("rerun_of", "created_at", "started_at", "ended_at", "duration_seconds"),
            *("fingerprint", "versions", "tags", "host", "pid", "error", "result"),
            *("abandoned", "last_process", "origin"),
        ]
        assert shown["flow_run"]["state"] == {
            "type": "FAILED",
            "name": "Failed",
            "message": "Flow 'etl' failed: clean-0[1] did not complete.",
            "reason": "",
            "at": "2026-09-21T14:13:29.000Z",
        }
        assert shown["flow_run"]["duration_seconds"] == 8.0
        assert shown["tasks"][1] == {
            "key": "clean-0",
            "label": "clean-0",
            "kind": "map",
            "task": "clean",
            "length": 3,
            "state": None,
            "states": {"COMPLETED": 2, "FAILED": 1},
            "recovered": 1,
            "attempts": 5,
            "started_at": "2026-09-21T14:13:22.000Z",
            "ended_at": "2026-09-21T14:13:24.000Z",
            "duration_seconds": 2.0,
            "cpu_seconds": 4.5,
            "peak_memory_bytes": 64 << 20,
            "memory_bytes": None,
            "memory": None,
            "child_flow_run_id": None,
            "message": None,
            "reason": None,
        }
        (failure,) = shown["failures"]
        assert failure["label"] == "clean-0[1]"
        assert (failure["node"], failure["map_index"], failure["attempts"]) == (1, 1, 2)
        assert failure["error"]["type"] == "builtins.ValueError"
        assert failure["cause"] == {
            "kind": "signal",
            "signal": 11,
            "exit_code": None,
            "host": "a",
            "pid": 7,
            "node_id": None,
            "peak_memory_bytes": None,
            "facts": {},
        }

        assert failure["memory"] == [
            {"attempt": n, "memory_bytes": None, "peak_memory_bytes": 64 << 20} for n in (1, 2)
        ]

    def test_what_attempts_asked_for_and_what_they_used(self, cli: Cli, record: Store) -> None:
        """Here the hint is 2 GiB, of a call and of a map; what ran out of that asked for more."""
        gib = 1 << 30
        hint = Resources(memory=2 * gib)
        nodes = record.graph(RUN_ID).nodes
        grown = [
            dataclasses.replace(attempt(node, item, n), peak_memory=n * gib, memory=asked)
            for node, item, n, asked in [
                *((0, -1, 2, 0), (0, -1, 3, 5 * gib), (1, 1, 3, 4 * gib)),
            ]
        ]
        part = GraphRecord(RUN_ID, [node._replace(resources=hint) for node in nodes[:2]])
        batch = RecordBatch(flow_run_id=RUN_ID, seq=9, records=(part, *grown))
        record.apply(batch)
        out = cli("runs", "show", "latest").out
        assert "3.0 GiB of 5.0 GiB" in out
        assert (
            "read-0 attempt 1 asked for 2.0 GiB, peak 64.0 MiB; attempt 2 asked for 2.0 GiB, peak "
            "2.0 GiB; attempt 3 asked for 5.0 GiB, peak 3.0 GiB clean-0 1 recovered one of"
        ) in " ".join(out.split())
        assert "one of its items: attempt 1 asked for 2.0 GiB, peak 64.0 MiB; attempt 2" in out
        shown = json.loads(cli("runs", "show", "latest", "--json").out)
        read, clean, _ = shown["tasks"]
        assert (read["memory_bytes"], clean["memory_bytes"]) == (5 * gib, 4 * gib)
        assert [use["memory_bytes"] for use in read["memory"]] == [2 * gib, 2 * gib, 5 * gib]
        assert clean["memory"][-1] == {
            "attempt": 3,
            "memory_bytes": 4 * gib,
            "peak_memory_bytes": 3 * gib,
        }
        assert shown["failures"][0]["memory"] == clean["memory"]

    def test_a_result_kept_as_json_is_in_the_json_form(self, cli: Cli) -> None:
        result = json.loads(cli("runs", "show", "old-0000bb", "--json").out)["flow_run"]["result"]
        assert result["value"] == {"rows": 3}
        out = cli("runs", "show", "old-0000bb").out
        assert "Result  rows  3" in out


@pytest.mark.usefixtures("record")
class TestRunsLogs:
    def lines(self, cli: Cli, *options: str) -> list[str]:
        ended = cli("runs", "logs", "latest", "--json", *options)
        assert ended.code == 0
        return [json.loads(line)["text"] for line in ended.out.splitlines()]

    def test_by_time_across_tasks(self, cli: Cli) -> None:
        assert self.lines(cli) == ["reading", "detail", "second try", "slow disk", "gave up"]

    @pytest.mark.parametrize(
        ("options", "texts"),
        [
            (["--task", "read"], ["reading", "slow disk"]),
            (["--task", "clean-0"], ["second try", "gave up"]),
            (["--task", "clean-0[1]"], ["second try", "gave up"]),
            (["--task", "clean-0[0]"], []),
            (["--task", "odd one"], []),
            (["--level", "warning"], ["slow disk", "gave up"]),
            (["--level", "INFO"], ["reading", "second try", "slow disk", "gave up"]),
            (["--attempt", "2"], ["second try", "gave up"]),
            (["--attempt", "1", "--level", "error"], []),
        ],
    )
    def test_filters(self, cli: Cli, options: list[str], texts: list[str]) -> None:
        assert self.lines(cli, *options) == texts

    def test_an_unknown_task_is_an_error_with_the_closest_name(self, cli: Cli) -> None:
        ended = cli("runs", "logs", "latest", "--task", "claen")
        assert ended.code == 2
        assert "Did you mean 'clean'" in ended.err

    def test_a_line_for_people_and_one_for_programs(self, cli: Cli) -> None:
        out = cli("runs", "logs", "latest").out.splitlines()
        assert out[2].endswith("clean-0[1] #2 INFO    second try")
        assert out[0].split(" ", 1)[1] == "read-0 reading"
        line = json.loads(cli("runs", "logs", "latest", "--json").out.splitlines()[2])
        assert line == {
            "at": "2026-09-21T14:13:21.200Z",
            "level": 20,
            "source": "app",
            "task_run": "clean-0[1]",
            "attempt": 2,
            "text": "second try",
        }

    def test_following_a_run_that_has_ended_ends(self, cli: Cli) -> None:
        assert len(self.lines(cli, "--follow")) == 5

    def test_no_lines(self, cli: Cli) -> None:
        assert "wrote no log lines" in cli("runs", "logs", "old-0000bb").out
        out = cli("runs", "logs", "latest", "--level", "critical").out
        assert "No log line fits" in out


@pytest.mark.usefixtures("record")
class TestRunsGraph:
    def test_text(self, cli: Cli) -> None:
        lines = cli("runs", "graph", "latest").out.splitlines()
        assert lines[3].split() == [
            "✘",
            "clean-0",
            "3",
            "items",
            "x",
            "=",
            "each",
            "of",
            "read-0",
            "etl.py:10",
        ]

    @pytest.mark.parametrize(
        ("form", "begin"), [("mermaid", "flowchart"), ("dot", "digraph"), ("json", "{")]
    )
    def test_forms(self, cli: Cli, form: str, begin: str) -> None:
        out = cli("runs", "graph", "latest", "--format", form).out
        assert out.startswith(begin)
        assert "clean-0" in out

    def test_a_run_without_tasks(self, cli: Cli) -> None:
        assert "calls no task" in cli("runs", "graph", "old-0000bb").out

    def test_states_colour_the_nodes(self, cli: Cli) -> None:
        assert "class n1,n2 FAILED" in cli("runs", "graph", "latest", "-f", "mermaid").out


@pytest.mark.usefixtures("record")
def test_flows_ls(cli: Cli) -> None:
    lines = cli("flows", "ls").out.splitlines()
    assert lines[2].split()[:3] == ["etl", "1", "etl-0000aa"]
    flows = json.loads(cli("flows", "ls", "--json").out)
    assert list(flows[0]) == ["name", "versions", "runs", "states", "last_run"]
    assert (flows[0]["name"], flows[0]["states"]) == ("etl", {"FAILED": 1})


def test_db_path_hides_the_password(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, raflow_home: Path
) -> None:
    assert cli("db", "path").out.strip() == f"sqlite:///{raflow_home}/raflow.db"
    monkeypatch.setenv("RAFLOW_DATABASE_URL", "postgresql://me:secret@db.example:5432/raflow")
    ended = cli("db", "path", "--json")
    assert json.loads(ended.out)["database"] == "postgresql://me:***@db.example:5432/raflow"


def test_db_upgrade_makes_the_database_and_then_leaves_it(cli: Cli, raflow_home: Path) -> None:
    assert "was made, at revision" in cli("db", "upgrade").out
    assert (raflow_home / "raflow.db").exists()
    assert "already" in cli("db", "upgrade").out


def test_a_broken_database_is_an_environment_error(cli: Cli, raflow_home: Path) -> None:
    raflow_home.mkdir()
    (raflow_home / "raflow.db").write_bytes(b"not a database" * 100)
    ended = cli("runs", "ls")
    assert ended.code == 3
    assert str(raflow_home / "raflow.db") in ended.err


def test_a_database_of_others_is_not_upgraded_by_looking(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAFLOW_DATABASE_URL", f"sqlite:///{tmp_path}/team.db")
    ended = cli("runs", "ls")
    assert ended.code == 3
    assert not (tmp_path / "team.db").exists()


def test_more_rows_than_fit_show_those_that_failed(cli: Cli, raflow_home: Path) -> None:
    from raflow.cli import _task_rows
    from tests.unit.cli.conftest import failed_run

    settings = config.load()
    with Store.open(settings.database, log_dir=settings.logs) as store:
        store.apply(RecordBatch(flow_run_id=RUN_ID, seq=0, records=failed_run()))
        rows = _task_rows.task_rows(store, store.find_flow_run("latest"))
    many = [rows[0]] * 100 + [rows[1]] + [rows[0]] * 100
    table = _task_rows.render(many, limit=10)
    labels = [str(cell) for cell in table.columns[0].cells]
    assert labels[-2:] == ["clean-0", "… 192 more"]
    assert len(labels) == 10


def test_the_record_of_a_finished_run_can_be_read_while_another_writes(
    cli: Cli, record: Store
) -> None:
    newer = completed_run()[0]
    record.apply(RecordBatch(flow_run_id=OLD_ID, seq=1, records=(newer,)))
    assert cli("runs", "show", "old-0000bb").code == 0
