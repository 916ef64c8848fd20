"""`raflow rerun`: a new run with what an earlier one has left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raflow.cli._errors import ExitCode
from tests.unit.cli.conftest import Cli

SUMS = """
from pathlib import Path

from raflow import flow, task

@task
def one(x: int) -> int:
    with Path("effects").open("a") as file:
        print(x, file=file)
    return x + 1

@task
def both(parts: list[int]) -> int:
    if Path("broken").exists():
        raise ValueError("no luck")
    return sum(parts)

@flow
def sums(last: int = 3) -> int:
    return both([*one.map([1, 2]), one(last)])
"""


@pytest.fixture
def sums(cli: Cli, tmp_path: Path) -> Path:
    """Where the tasks of a run that failed note what they do."""
    (tmp_path / "sums.py").write_text(SUMS)
    (tmp_path / "broken").touch()
    assert cli("run", "sums.py", "--quiet", "--name", "first").code == ExitCode.RUN_FAILED
    (tmp_path / "broken").unlink()
    return tmp_path / "effects"


def done(effects: Path) -> list[str]:
    return sorted(effects.read_text().split())


class TestRerun:
    def test_what_failed_runs_again(self, cli: Cli, sums: Path) -> None:
        ended = cli("rerun", "first", "--failed", "--name", "second")
        assert ended.code == ExitCode.OK
        assert "Cached" in ended.err
        assert "3 task runs  reused from first (" in ended.err
        assert done(sums) == ["1", "2", "3"]
        assert "Rerun of" in cli("runs", "show", "second").out
        shown = json.loads(cli("runs", "show", "second", "--json").out)
        first = json.loads(cli("runs", "show", "first", "--json").out)
        assert shown["flow_run"]["rerun_of"] == first["flow_run"]["id"]
        assert shown["flow_run"]["result"]["value"] == 9
        assert first["flow_run"]["rerun_of"] is None

    def test_from_a_task_on_with_another_parameter(self, cli: Cli, sums: Path) -> None:
        ended = cli("rerun", "first", "--from", "both", "-p", "last=7", "--json")
        assert json.loads(ended.out)["flow_run"]["result"]["value"] == 13
        assert done(sums) == ["1", "2", "3", "7"]

    def test_it_says_what_can_be_chosen(self, cli: Cli, sums: Path) -> None:
        ended = cli("rerun", "first")
        assert ended.code == ExitCode.USAGE
        said = " ".join(ended.err.split())
        assert "--from TASK" in said
        assert "--failed" in said
        ended = cli("rerun", "first", "no_such_file.py")
        assert "by at least one of these" in " ".join(ended.err.replace("│", "").split())
        ended = cli("rerun", "first", "--from", "bot")
        assert "Did you mean 'both'" in ended.err
        assert done(sums) == ["1", "2", "3"]
        assert cli("rerun", "first", "--failed", "--name", "second").code == ExitCode.OK
        ended = cli("rerun", "second", "--failed")
        assert ended.code == ExitCode.USAGE
        assert "Nothing of flow run 'second' failed" in ended.err

    def test_with_changed_code_only_what_is_unchanged_is_reused(
        self, cli: Cli, sums: Path, tmp_path: Path
    ) -> None:
        changed = SUMS.replace("sum(parts)", "max(parts)")
        (tmp_path / "later.py").write_text(changed)
        ended = cli("rerun", "first", "later.py", "--failed")
        assert "has changed since" in " ".join(ended.err.split())
        ended = cli("rerun", "first", "later.py", "--failed", "--allow-new-code", "--json")
        assert json.loads(ended.out)["flow_run"]["result"]["value"] == 4
        assert done(sums) == ["1", "2", "3"]
        more = changed.replace("return x + 1", "return x + 2")
        (tmp_path / "last.py").write_text(more)
        ended = cli("rerun", "first", "last.py", "--failed", "--allow-new-code", "--json")
        assert json.loads(ended.out)["flow_run"]["result"]["value"] == 5
        assert done(sums) == ["1", "1", "2", "2", "3", "3"]
