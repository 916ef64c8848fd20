"""The command line as a whole: help, exit codes, errors on one screen."""

from __future__ import annotations

import contextvars
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import raflow
from raflow import errors
from raflow.cli import _console, _errors, _output
from raflow.cli._errors import ExitCode
from raflow.define import active_task
from tests.unit.cli.conftest import Cli

HELLO = """
from raflow import flow, task

@task
def greet(name: str) -> str:
    print("greeting", name)
    return f"Hello, {name}!"

@flow
def hello(name: str = "you") -> str:
    print("the body prints")
    return greet(name)

@flow
def fails() -> str:
    raise ValueError("the body is broken")
"""


@pytest.fixture
def hello(tmp_path: Path) -> str:
    (tmp_path / "hello.py").write_text(HELLO)
    return "hello.py"


def test_help_lists_the_commands_and_the_exit_codes(cli: Cli) -> None:
    ended = cli("--help")
    assert ended.code == 0
    for word in (
        "run",
        "graph",
        "runs",
        "flows",
        "db",
        "doctor",
        "version",
        "75 suspended",
        "130 cancelled",
    ):
        assert word in ended.out


@pytest.mark.parametrize(
    "command",
    [
        ["run"],
        ["rerun"],
        ["resume"],
        ["cancel"],
        ["pause"],
        ["unpause"],
        ["suspend"],
        ["limits", "ls"],
        ["limits", "set"],
        ["limits", "rm"],
        ["cache", "ls"],
        ["cache", "clear"],
        ["input", "ls"],
        ["input", "show"],
        ["input", "answer"],
        ["graph"],
        ["runs", "ls"],
        ["runs", "show"],
        ["runs", "logs"],
        ["runs", "graph"],
        ["flows", "ls"],
        ["deploy"],
        ["deployments", "ls"],
        ["deployments", "show"],
        ["deployments", "versions"],
        ["deployments", "diff"],
        ["deployments", "rollback"],
        ["deployments", "rm"],
        ["db", "path"],
        ["db", "upgrade"],
        ["server"],
        ["server", "link"],
        ["server", "openapi"],
        ["doctor"],
        ["version"],
    ],
)
def test_every_command_has_help_and_a_place_in_the_docs(cli: Cli, command: list[str]) -> None:
    assert cli(*command, "--help").code == 0
    docs = Path(raflow.__file__).parents[1] / "docs" / "cli.md"
    assert f"raflow {' '.join(command)}" in docs.read_text(encoding="utf-8")


def test_version(cli: Cli) -> None:
    assert cli("--version").out.strip() == raflow.__version__
    assert json.loads(cli("version", "--json").out)["raflow"] == raflow.__version__
    assert cli("version").out.split()[:2] == ["raflow", raflow.__version__]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["rnus"], "Did you mean 'runs'"),
        (["logs", "latest"], "No such command 'logs'. Did you mean `raflow runs logs`?"),
        (["show", "latest"], "Did you mean `raflow runs show` or `raflow deployments show` or"),
        (["runs", "shwo"], "Did you mean 'show'"),
        (["run", "hello.py", "--bakend", "local"], "--backend"),
        (["run", "hello.py", "--backend", "rai"], "'ray', 'local'"),
        (["run", "helo.py"], "Did you mean 'hello.py'"),
        (["run", "hello.py"], "hello.py:fails"),
        (["run", "hello.py:helo"], "Did you mean 'hello'"),
        (["run", "hello.py:hello", "--param", "nmae=x"], "Did you mean 'name'"),
        (["run", "hello.py:hello", "--param", "name"], "NAME=VALUE"),
        (["graph", "hello.py:hello", "--param", "nmae=x"], "Did you mean 'name'"),
        (["runs", "ls", "--limit", "0"], "--limit"),
    ],
)
def test_wrong_input_is_code_2_and_names_what_is_closest(
    cli: Cli, hello: str, args: list[str], said: str
) -> None:
    ended = cli(*args)
    assert ended.code == ExitCode.USAGE
    assert said in " ".join(ended.err.replace("│", "").split())
    assert "Traceback" not in ended.err
    assert ended.out == ""


def test_a_setting_that_cannot_be_used_is_code_3(
    cli: Cli, hello: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAFLOW_BACKEND", "dask")
    ended = cli("run", "hello.py:hello")
    assert ended.code == ExitCode.ENVIRONMENT
    assert "RAFLOW_BACKEND" in ended.err


def test_result_storage_that_cannot_be_written_stops_the_run_before_it_starts(
    cli: Cli, hello: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAFLOW_RESULT_STORAGE", "/proc/nowhere")
    ended = cli("run", "hello.py:hello", "--param", "name=x")
    assert ended.code == ExitCode.ENVIRONMENT
    assert "/proc/nowhere" in ended.err
    assert "the body prints" not in ended.out


class TestRun:
    def test_a_run_ends_with_its_tasks_its_result_and_what_to_try_next(
        self, cli: Cli, hello: str
    ) -> None:
        ended = cli("run", "hello.py:hello", "--param", "name=Ada", "--name", "first")
        assert ended.code == ExitCode.OK
        assert "the body prints" in ended.out
        assert "Completed" in ended.out
        assert "'Hello, Ada!'" in ended.out
        assert "raflow runs logs" in ended.out
        assert "greet-0 greeting Ada" in ended.err
        assert ended.out.count("greeting Ada") + ended.err.count("greeting Ada") == 1
        shown = json.loads(cli("runs", "show", "first", "--json").out)
        assert shown["flow_run"]["result"]["value"] == "Hello, Ada!"
        assert [task["label"] for task in shown["tasks"]] == ["greet-0"]

    def test_json_has_standard_output_for_itself(self, cli: Cli, hello: str) -> None:
        ended = cli("run", "hello.py:hello", "--json")
        shown = json.loads(ended.out)
        assert shown["flow_run"]["state"]["type"] == "COMPLETED"
        assert "the body prints" in ended.err
        assert shown == json.loads(cli("runs", "show", "latest", "--json").out)

    def test_quiet_shows_no_progress(self, cli: Cli, hello: str) -> None:
        ended = cli("run", "hello.py:hello", "--quiet")
        assert ended.err == ""
        assert "greeting" not in ended.out
        assert "'Hello, you!'" in ended.out

    @pytest.mark.parametrize("quiet", [[], ["--quiet"]])
    def test_a_failure_is_code_1_with_the_users_traceback_only(
        self, cli: Cli, hello: str, quiet: list[str]
    ) -> None:
        ended = cli("run", "hello.py:fails", *quiet)
        assert ended.code == ExitCode.RUN_FAILED
        assert "ValueError: the body is broken" in ended.out
        assert 'raise ValueError("the body is broken")' in ended.out
        assert "/raflow/runtime/" not in ended.out + ended.err

    @pytest.mark.parametrize("quiet", [[], ["--quiet"]])
    def test_the_task_that_failed_is_named_where_another_had_to_wait_for_it(
        self, cli: Cli, tmp_path: Path, quiet: list[str]
    ) -> None:
        (tmp_path / "chain.py").write_text(
            HELLO.partition("@flow")[0]
            + "@task\ndef bad() -> str:\n    raise KeyError('no such row')\n\n"
            "@flow\ndef chain() -> str:\n    return greet(bad())\n"
        )
        ended = cli("run", "chain.py", *quiet)
        assert ended.code == ExitCode.RUN_FAILED
        assert "bad-0 Failed" in ended.out
        assert "KeyError: 'no such row'" in ended.out
        assert "greet-0 UpstreamFailed" not in ended.out

    def test_colours_in_a_log_file_do_not_make_it_a_terminal(
        self, cli: Cli, hello: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("NO_COLOR")
        monkeypatch.setenv("FORCE_COLOR", "1")
        ended = cli("run", "hello.py:hello")
        assert ended.code == ExitCode.OK
        assert ended.err.count("greet-0") == 2  # its line of log, and its end

    def test_a_parameter_file(self, cli: Cli, hello: str, tmp_path: Path) -> None:
        (tmp_path / "p.json").write_text('{"name": "Bob"}')
        ended = cli("run", "hello.py:hello", "--params-file", "p.json", "--json")
        assert json.loads(ended.out)["flow_run"]["parameters"] == {"name": "Bob"}


def test_graph_draws_without_running(cli: Cli, hello: str) -> None:
    ended = cli("graph", "hello.py:hello", "--format", "mermaid")
    assert ended.code == ExitCode.OK
    assert "greet-0" in ended.out
    assert "greeting" not in ended.out


def test_graph_says_where_it_had_to_stop(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "stops.py").write_text(
        HELLO.partition("@flow")[0]
        + "@flow\ndef stops() -> str:\n    first = greet('a').result()\n    return greet(first)\n"
    )
    ended = cli("graph", "stops.py", "--format", "json")
    assert ended.code == ExitCode.OK
    assert [node["key"] for node in json.loads(ended.out)["nodes"]] == ["greet-0"]
    assert "stops.py:11" in " ".join(ended.err.split())


class TestErrors:
    def test_every_error_has_a_code(self) -> None:
        def walk(cls: type[errors.RaflowError]) -> list[type[errors.RaflowError]]:
            return [cls, *(found for sub in cls.__subclasses__() for found in walk(sub))]

        codes = {cls.__name__: _errors.exit_code(cls("x")) for cls in walk(errors.RaflowError)}
        assert codes["ParameterError"] is ExitCode.USAGE
        assert codes["StoreError"] is ExitCode.ENVIRONMENT
        assert codes["TaskTimedOutError"] is ExitCode.RUN_FAILED
        assert codes["FlowRunCancelledError"] is ExitCode.CANCELLED
        assert codes["InvalidTransitionError"] is ExitCode.INTERNAL

    def test_a_bug_is_told_from_a_mistake(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*args: object, **kwargs: object) -> None:
            raise KeyError("surprise")

        monkeypatch.setattr("raflow.config.load", broken)
        ended = cli("db", "path")
        assert ended.code == ExitCode.INTERNAL
        assert "This is a bug in raflow" in ended.err
        assert "RAFLOW_DEBUG=1" in ended.err
        assert "Traceback" not in ended.err
        monkeypatch.setenv("RAFLOW_DEBUG", "1")
        assert "Traceback" in cli("db", "path").err

    def test_debug_shows_where_an_error_of_raflow_comes_from(
        self, cli: Cli, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAFLOW_DEBUG", "1")
        ended = cli("run", "missing.py")
        assert ended.code == ExitCode.USAGE
        assert "Traceback" in ended.err

    def test_a_long_traceback_fits_on_a_screen(self) -> None:
        text = "\n".join(str(n) for n in range(1000))
        lines = _errors.tail(text).splitlines()
        assert len(lines) == 24
        assert lines[0] == "… 977 lines above"
        assert lines[-1] == "999"

    def test_a_traceback_that_looks_like_markup_is_shown_as_it_is(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        _errors.panel("Error", "[bold]x[/nope]", detail="a[/b]")
        err = capsys.readouterr().err
        assert "[bold]x[/nope]" in err
        assert "a[/b]" in err


class TestOutput:
    def test_what_a_task_prints_is_held_back(self) -> None:
        before, target = sys.stdout, io.StringIO()
        inside = contextvars.copy_context()
        with _output.only_the_body(stdout=target):
            print("body")
            inside.run(self.print_as_a_task)
            print("body again", file=sys.stdout)
        assert sys.stdout is before
        assert target.getvalue() == "body\nbody again\n"

    def print_as_a_task(self) -> None:
        active_task.set(raflow.define.TaskRunContext.__new__(raflow.define.TaskRunContext))
        print("task")
        sys.stdout.writelines(["more\n", "lines\n"])

    def test_a_stream_that_somebody_else_put_in_place_stays(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mine, theirs = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "stdout", mine)
        with _output.only_the_body():
            sys.stdout = theirs
        assert sys.stdout is theirs


@pytest.mark.parametrize(
    ("width", "headers", "first"),
    [
        (60, ["Task", "State", "Started", "Peak"], "a-task-of-a-long-name"),
        (38, ["Task", "State", "Started"], "a-task-of-a-long…"),
        (30, ["Task", "State"], "a-task-of-a-long-n…"),
    ],
)
def test_a_table_leaves_columns_out_where_there_is_no_room(
    width: int, headers: list[str], first: str
) -> None:
    drawn = io.StringIO()
    screen = Console(width=width, file=drawn)
    table = _console.table("Task", "State", "Started", "Peak", less=["Peak", "Started"])
    table.add_row("a-task-of-a-long-name", "Completed", "14:03:59", "130.4 MiB")
    screen.print(table)
    head, _, row = drawn.getvalue().splitlines()
    assert head.split() == headers
    assert row.split()[:2] == [first, "Completed"]


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['raflow', '--help']\n"
        "from raflow.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({'ray', 'sqlalchemy', 'pydantic', 'fsspec'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_run_may_compute_anew_what_is_cached(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "prices.py").write_text(
        """
from pathlib import Path
from raflow import INPUTS, flow, task

@task(cache_policy=INPUTS)
def price(of: str) -> int:
    with Path("journal").open("a") as file:
        file.write("computed ")
    return len(of)

@flow
def prices() -> int:
    return price("tea")
"""
    )
    for options in ((), (), ("--refresh-cache",)):
        assert cli("run", "prices.py", "--quiet", *options).code == 0
    assert (tmp_path / "journal").read_text() == "computed computed "
