"""The command line as a person uses it: real processes, real signals, a real terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RAFLOW = str(Path(sys.executable).with_name("raflow"))
SECONDS = 100

PIPELINE = """
import asyncio
import logging
import pathlib
import time

from raflow import flow, get_run_context, task, unmapped


@task
def read(day: str) -> list[int]:
    print("reading", day)
    return list(range(6))


@task(retries=1)
def clean(x: int, flaky: int) -> int:
    if x == flaky and get_run_context().attempt == 1:
        logging.getLogger("app").warning("will try again")
        raise ValueError(f"flaky {x}")
    return 2 * x


@task
def total(xs: list[int]) -> int:
    return sum(xs)


@flow
def pipeline(day: str = "2026-01-31", flaky: int = 3) -> int:
    print("body begins")
    return total(clean.map(read(day), flaky=unmapped(flaky)))


@task
def refuse(x: int) -> int:
    raise RuntimeError("no such row")


@flow
def fails() -> int:
    return total(refuse.map([1, 2]))


@task
def nap(started: str) -> None:
    pathlib.Path(started).touch()
    for _ in range(6000):
        time.sleep(0.1)


@task
async def nap_async(started: str) -> None:
    pathlib.Path(started).touch()
    await asyncio.sleep(600)


@flow
def sleeps(started: str) -> None:
    nap(started)


@flow
async def sleeps_async(started: str) -> None:
    await nap_async(started)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pipeline.py").write_text(PIPELINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAFLOW_BACKEND", "local")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("COLUMNS", raising=False)
    return tmp_path


def raflow(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RAFLOW, *args], capture_output=True, text=True, timeout=SECONDS, check=False
    )


def shown(name: str = "latest") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(raflow("runs", "show", name, "--json").stdout)
    return found


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def check_pipeline(backend: str) -> None:
    done = raflow("run", "pipeline.py:pipeline", "--backend", backend, "-p", "day=today")
    assert done.returncode == 0, done.stderr
    assert "body begins" in done.stdout
    assert re.search(r"total-0 +✔ +Completed", done.stdout)
    assert re.search(r"clean-0 +✔ +6 completed +7 ", done.stdout)
    assert re.search(r"Result +30 ", done.stdout)
    assert done.stderr.count("reading today") == 1
    assert "reading today" not in done.stdout

    (run,) = json.loads(raflow("runs", "ls", "--json").stdout)
    assert (run["state"]["name"], run["backend"]) == ("Completed", backend)
    assert run["parameters"] == {"day": "today", "flaky": 3}
    states = {task["key"]: task["states"] for task in shown(run["id"])["tasks"]}
    assert states == {
        "read-0": {"COMPLETED": 1},
        "clean-0": {"COMPLETED": 6},
        "total-0": {"COMPLETED": 1},
    }
    logs = raflow("runs", "logs", "latest").stdout
    assert "read-0 reading today" in logs
    assert "clean-0[3] WARNING will try again" in logs
    assert "total-0" in raflow("runs", "graph", "latest", "--format", "mermaid").stdout
    assert json.loads(raflow("flows", "ls", "--json").stdout)[0]["name"] == "pipeline"


@pytest.mark.usefixtures("folder")
def test_a_pipeline_and_its_record() -> None:
    check_pipeline("local")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_a_pipeline_and_its_record_on_ray() -> None:
    check_pipeline("ray")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_the_doctor_runs_a_flow_on_ray_and_leaves_no_trace() -> None:
    done = raflow("doctor", "--ray", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert found["run on ray"]["health"] == "ok"
    assert json.loads(raflow("runs", "ls", "--json").stdout) == []


@pytest.mark.usefixtures("folder")
def test_python_m_raflow_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "raflow", "run", "pipeline.py:pipeline", "--json"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    assert json.loads(done.stdout)["flow_run"]["result"]["value"] == 30


@pytest.mark.usefixtures("folder")
def test_a_failed_run_is_code_1_and_on_record() -> None:
    done = raflow("run", "pipeline.py:fails")
    assert done.returncode == 1
    assert "RuntimeError: no such row" in done.stdout
    assert done.stdout.count('raise RuntimeError("no such row")') == 1
    assert "site-packages" not in done.stdout
    found = shown()
    assert found["flow_run"]["state"]["name"] == "Failed"
    assert [failure["label"] for failure in found["failures"]] == ["refuse-0[0]", "refuse-0[1]"]
    assert raflow("runs", "show", "latest").returncode == 0


@pytest.mark.usefixtures("folder")
def test_nothing_runs_where_the_input_is_wrong() -> None:
    done = raflow("run", "pipeline.py:pipeline", "--param", "flaky=many")
    assert done.returncode == 2
    assert "flaky='many'" in done.stderr
    assert done.stdout == ""
    assert json.loads(raflow("runs", "ls", "--json").stdout) == []


def test_a_database_that_cannot_be_reached_is_code_3(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAFLOW_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/none")
    done = raflow("run", "pipeline.py:pipeline")
    assert done.returncode == 3
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("flow", ["sleeps", "sleeps_async"])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_the_run_cleanly(folder: Path, flow: str, sent: signal.Signals) -> None:
    check_cancelled_by(sent, folder, flow, "local")


@pytest.mark.ray
def test_sigterm_cancels_a_run_on_ray_cleanly(folder: Path) -> None:
    check_cancelled_by(signal.SIGTERM, folder, "sleeps", "ray")


def check_cancelled_by(sent: signal.Signals, folder: Path, flow: str, backend: str) -> None:
    started = folder / "started"
    process = subprocess.Popen(
        [RAFLOW, "run", f"pipeline.py:{flow}", "-p", f"started={started}", "--backend", backend],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(started.exists)
    process.send_signal(sent)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, err
    assert "Cancelled" in out
    assert "Traceback" not in out + err
    assert "SIGTERM received" not in err
    found = shown()
    assert found["flow_run"]["state"]["name"] == "Cancelled"
    assert found["flow_run"]["ended_at"] is not None
    assert [task["states"] for task in found["tasks"]] == [{"CANCELLED": 1}]


def test_logs_can_be_followed_while_the_run_goes_on(folder: Path) -> None:
    (folder / "talks.py").write_text(
        "import logging, pathlib, time\n"
        "from raflow import flow\n\n"
        "@flow\ndef talks() -> None:\n"
        "    logging.getLogger('app').warning('first')\n"
        "    while not pathlib.Path('go').exists():\n        time.sleep(0.02)\n"
        "    logging.getLogger('app').warning('last')\n"
    )
    run = subprocess.Popen([RAFLOW, "run", "talks.py", "--quiet"], stdout=subprocess.DEVNULL)
    wait_until(lambda: json.loads(raflow("runs", "ls", "--json").stdout) != [])
    follow = subprocess.Popen(
        [RAFLOW, "runs", "logs", "latest", "--follow"], stdout=subprocess.PIPE, text=True
    )
    assert follow.stdout is not None
    assert follow.stdout.readline().rstrip().endswith("WARNING first")
    (folder / "go").touch()
    out, _ = follow.communicate(timeout=SECONDS)
    assert out.rstrip().endswith("WARNING last")
    assert (follow.returncode, run.wait(SECONDS)) == (0, 0)


def in_a_terminal(args: list[str], columns: int) -> tuple[int, str]:
    """Run a command in a terminal of that width; return its exit code and all that it drew."""
    process, terminal = pty.fork()
    if process == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        os.environ["TERM"] = "xterm-256color"
        os.execv(args[0], args)
    drawn = b""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                drawn += os.read(terminal, 65536)
            except OSError:  # the process has closed its side
                break
    _, status = os.waitpid(process, 0)
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), drawn.decode()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("columns", [80, 120])
def test_progress_in_a_terminal(columns: int) -> None:
    code, drawn = in_a_terminal([RAFLOW, "run", "pipeline.py:pipeline"], columns)
    assert code == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn)
    lines = [line.rstrip("\r") for line in re.split(r"[\r\n]+", plain)]
    assert max(len(line) for line in lines) <= columns
    assert any("read-0 reading 2026-01-31" in line for line in lines)
    assert plain.count("body begins") == 1
    assert any(re.search(r"clean-0 +━+ +6/6", line) for line in lines)
    assert any("1 retry" in line for line in lines)
    assert any("Completed in" in line for line in lines)
    assert "\x1b[?25h" in drawn  # the cursor is back


def test_what_the_body_prints_goes_where_standard_output_goes(folder: Path) -> None:
    command = f"{RAFLOW} run pipeline.py:pipeline"
    code, drawn = in_a_terminal(["/bin/sh", "-c", f"{command} > out.txt"], 80)
    out = (folder / "out.txt").read_text()
    assert (code, out.count("body begins")) == (0, 1)
    assert "read-0 reading 2026-01-31" in drawn
    both = subprocess.run(
        f"{command} 2>&1", shell=True, capture_output=True, text=True, timeout=SECONDS, check=True
    )
    assert both.stdout.count("body begins") == 1
    assert raflow("runs", "logs", "latest").stdout.count("body begins") == 1


@pytest.mark.usefixtures("folder")
def test_a_reader_that_goes_away_is_no_error() -> None:
    raflow("run", "pipeline.py:pipeline", "-q")
    done = subprocess.run(
        f"{RAFLOW} runs show latest --json | head -c 10",
        shell=True,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    assert "Traceback" not in done.stderr


def test_output_that_cannot_show_a_sign_is_no_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = raflow("run", "pipeline.py:pipeline")
    assert done.returncode == 0, done.stderr
    assert "Completed" in done.stdout


DURABLE = """
import os
import pathlib
import signal
import time

from raflow import flow, suspend_run, task, wait_for_input


@task
def load(x: int) -> int:
    with pathlib.Path("effects").open("a") as file:
        print(x, file=file)
    return x


@flow
def dies() -> int:
    total = sum(load.map(range(5)).result())
    if not pathlib.Path("mended").exists():
        pathlib.Path("waits").touch()
        time.sleep(600)
    return load(total)


@task
def nap(x: int) -> None:
    pathlib.Path("started").touch()
    time.sleep(0.1)


@flow
def naps(n: int = 6000) -> None:
    nap.map(range(n)).wait()


@flow
def asks() -> str:
    return "published" if wait_for_input(bool, title="Publish?") else "kept"


@flow
def leaves() -> int:
    first = load(1).result()
    suspend_run()
    return load(first + 1)
"""


@pytest.fixture
def durable(folder: Path) -> Path:
    (folder / "durable.py").write_text(DURABLE)
    return folder


def start(flow: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [RAFLOW, "run", f"durable.py:{flow}", "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_run_is_resumed_without_computing_again_what_is_on_record(durable: Path) -> None:
    process = start("dies")
    wait_until((durable / "waits").exists)
    wait_until(lambda: shown()["tasks"][0]["states"] == {"COMPLETED": 5})
    process.kill()
    process.communicate(timeout=SECONDS)
    (durable / "mended").touch()
    done = raflow("resume", "latest")
    assert done.returncode == 0, done.stderr
    assert "Recovered" in done.stdout
    assert re.search(r"Result +10 ", done.stdout)
    assert sorted((durable / "effects").read_text().split()) == ["0", "1", "10", "2", "3", "4"]


def test_a_run_is_steered_by_another_process(durable: Path) -> None:
    process = start("naps")
    wait_until((durable / "started").exists)
    wait_until(lambda: json.loads(raflow("runs", "ls", "--json").stdout) != [])
    assert raflow("pause", "latest").returncode == 0
    wait_until(lambda: shown()["flow_run"]["state"]["name"] == "Paused")
    assert "raflow unpause naps-" in raflow("runs", "ls").stdout
    assert raflow("unpause", "latest").returncode == 0
    done = raflow("cancel", "latest", "--message", "wrong day")
    assert done.returncode == 0, done.stdout + done.stderr
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, err
    assert "wrong day" in out
    assert raflow("cancel", "latest").returncode == 2


@pytest.mark.usefixtures("durable")
def test_a_run_that_suspends_itself_is_cancelled_or_resumed() -> None:
    assert raflow("run", "durable.py:leaves", "--quiet").returncode == 75
    assert raflow("pause", "latest").returncode == 2
    assert raflow("cancel", "latest").returncode == 0
    assert shown()["flow_run"]["state"]["name"] == "Cancelled"
    done = raflow("resume", "latest", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["flow_run"]["result"]["value"] == 2


@pytest.mark.usefixtures("durable")
def test_a_question_is_answered_by_another_process() -> None:
    process = start("asks")
    wait_until(lambda: json.loads(raflow("input", "ls", "--json").stdout) != [])
    assert raflow("input", "answer", "latest", "0", "--json-answer", '"yes"').returncode == 2
    assert raflow("input", "answer", "latest", "0", "--json-answer", "true").returncode == 0
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    assert "'published'" in out
