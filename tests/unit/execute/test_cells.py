from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from raflow.execute._course import LANES, LEFT
from raflow.execute.ray import _cells
from raflow.execute.ray._blackbox import fault_in
from raflow.execute.ray._cells import Cell, died_otherwise, remains, running, sweep, under_way


@pytest.fixture
def token() -> Iterator[str]:
    made = secrets.token_hex(8)
    yield made
    sweep(made)


def files(token: str) -> list[Path]:
    return [Path(path) for path in _cells._files(token)]


CHILD = """
import os, sys, time
from raflow.execute.ray._cells import Cell
cell = Cell(sys.argv[1])
cell.watch()
cell.note_peak(12345678)
cell.begin(3, 14)
for position in (7, 8):
    cell.lanes[0] = position
cell.lanes[5] = 2
print("ready", flush=True)
if sys.argv[2] == "exit":
    os._exit(5)
if sys.argv[2] == "abort":
    os.abort()
if sys.argv[2] == "fork":
    if os.fork() == 0:
        os._exit(7)
    os.wait()
    os.kill(os.getpid(), 9)
if sys.argv[2] == "idle":
    cell.end()
    os.kill(os.getpid(), 9)
time.sleep(60)
"""


def killed(token: str, how: str = "kill") -> int:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, token, how], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == "ready\n"
    if how == "kill":
        child.send_signal(signal.SIGKILL)
    return child.wait()


def test_what_ran_is_known_after_the_process_was_killed(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert killed(token) == -signal.SIGKILL
    [path] = files(token)
    assert path.stat().st_mode & 0o777 == 0o600
    assert running(token, 3, 15) is None
    assert running("another", 3, 14) is None
    assert [running(token, 3, 14) for _ in range(2)] == [[2, 8], [2, 8]]
    monkeypatch.setattr(_cells, "_ANSWERED_SECONDS", -1.0)
    assert running(token, 3, 14) == [2, 8]
    assert files(token) == []
    assert running(token, 3, 14) is None


@pytest.mark.parametrize(
    ("how", "code", "number"),
    [
        ("kill", None, None),
        ("exit", 5, None),
        ("abort", None, signal.SIGABRT),
        ("fork", None, None),  # how a copy of the process ends is not how it ends itself
    ],
)
def test_what_is_left_tells_how_the_process_ended(
    token: str,
    how: str,
    code: int | None,
    number: signal.Signals | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed(token, how)
    left = remains(token, 3, 14)
    assert left is not None
    assert (left.running, left.exit_code, left.peak_memory) == ([2, 8], code, 12345678)
    fault = fault_in(left.fault)
    assert (fault.signal if fault else None) is number
    assert left.oom_kills is not None
    assert left.oom_kills[0] == left.oom_kills[1]
    monkeypatch.setattr(_cells, "_ANSWERED_SECONDS", -1.0)
    remains(token, 1, 1)
    assert list(Path(_cells._folders()[0]).glob(f"raflow-{token}-*")) == []


def test_a_living_process_answers_as_often_as_it_is_asked(token: str) -> None:
    cell = Cell(token)
    assert running(token, 1, 2) is None
    cell.begin(1, 2)
    assert running(token, 1, 2) == []
    cell.lanes[0] = 5
    assert [running(token, 1, 2) for _ in range(2)] == [[5], [5]]
    cell.end()
    assert running(token, 1, 2) is None
    cell.begin(1, 3)
    assert running(token, 1, 3) == []
    assert len(files(token)) == 1


def test_who_died_with_another_batch_or_between_two_never_began_this_one(token: str) -> None:
    cell = Cell(token)
    assert not died_otherwise(token, 1, 2)  # it lives
    killed(token)
    assert not died_otherwise(token, 3, 14)  # it ran that one
    assert died_otherwise(token, 3, 15)
    sweep(token)
    killed(token, "idle")
    assert died_otherwise(token, 3, 14)
    assert remains(token, 3, 15) is None
    for _ in range(2):
        left = remains(token, 3, 14)
    assert left is not None
    assert left.running is None  # all of it may have run
    assert died_otherwise(token, 3, 15)
    cell.begin(1, 2)
    assert under_way(token, 3) == {}


def test_what_idle_processes_left_is_removed_when_nobody_can_ask_any_more(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(token, "idle")
    monkeypatch.setattr(_cells, "_IDLE_KEPT_SECONDS", -1.0)
    remains(token, 1, 1)
    assert files(token) == []


def test_whether_none_has_begun_or_all_that_ran_are_over_is_told_apart(token: str) -> None:
    cell = Cell(token)
    cell.begin(1, 2)
    assert running(token, 1, 2) == []
    cell.lanes[0] = 3
    cell.lanes[1] = 4
    cell.lanes[0] = LEFT
    assert running(token, 1, 2) == [4]
    assert under_way(token, 1) == {2: [4]}
    cell.lanes[1] = LEFT
    assert running(token, 1, 2) is None
    cell.end()
    cell.begin(1, 3)
    assert running(token, 1, 3) == []


def test_a_folder_without_room_is_passed_over(
    token: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(_cells, "_folders", lambda: (str(tmp_path / "gone"), str(tmp_path)))
    Cell(token).begin(1, 2)
    assert running(token, 1, 2) == []
    assert files(token)[0].parent == tmp_path
    monkeypatch.setattr(_cells, "_folders", lambda: (str(tmp_path / "gone"),))
    with pytest.raises(OSError, match=r"cannot keep note of what it runs: .*gone"):
        Cell(token)


def test_too_many_are_not_told(token: str) -> None:
    cell = Cell(token)
    cell.begin(1, 2)
    cell.lanes[LANES] += 1
    assert running(token, 1, 2) is None


def test_a_file_that_is_not_ours_is_left_alone(token: str) -> None:
    path = Path(_cells._path(_cells._folders()[0], token, "1"))
    path.write_bytes(b"short")
    assert running(token, 1, 2) is None
    path.write_bytes(os.urandom(_cells._FORM.size))
    assert running(token, 1, 2) is None
    sweep(token)
    assert not path.exists()


def test_sweeping_removes_what_dead_processes_left_long_ago(token: str) -> None:
    other = secrets.token_hex(8)
    killed(other)
    mine = Cell(token)
    mine.begin(1, 1)
    sweep("nothing")
    assert len(files(other)) == 1
    for path in (*files(other), *files(token)):
        os.utime(path, (0, time.time() - 2 * 86400))
    sweep("nothing")
    assert files(other) == []
    assert len(files(token)) == 1


def test_noting_a_position_is_as_cheap_as_storing_a_number(token: str) -> None:
    lanes = Cell(token).lanes
    begun = time.process_time()
    for position in range(100_000):
        lanes[0] = position
    assert time.process_time() - begun < 0.5
