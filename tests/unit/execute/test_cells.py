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

from raflow.execute._course import LANES
from raflow.execute.ray import _cells
from raflow.execute.ray._cells import Cell, running, sweep


@pytest.fixture
def token() -> Iterator[str]:
    made = secrets.token_hex(8)
    yield made
    sweep(made)


def files(token: str) -> list[Path]:
    return [Path(path) for path in _cells._files(token)]


CHILD = """
import sys, time
from raflow.execute.ray._cells import Cell
cell = Cell(sys.argv[1])
cell.begin(3, 14)
for position in (7, 8):
    cell.lanes[0] = position
cell.lanes[5] = 2
print("ready", flush=True)
time.sleep(60)
"""


def killed(token: str) -> int:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, token], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGKILL)
    return child.wait()


def test_what_ran_is_known_after_the_process_was_killed(token: str) -> None:
    assert killed(token) == -signal.SIGKILL
    [path] = files(token)
    assert path.stat().st_mode & 0o777 == 0o600
    assert running(token, 3, 15) is None
    assert running("another", 3, 14) is None
    assert running(token, 3, 14) == [2, 8]
    assert files(token) == []
    assert running(token, 3, 14) is None


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


def test_too_many_are_not_told(token: str) -> None:
    cell = Cell(token)
    cell.begin(1, 2)
    cell.lanes[LANES] += 1
    assert running(token, 1, 2) is None


def test_a_file_that_is_not_ours_is_left_alone(token: str) -> None:
    path = Path(_cells._path(_cells._folder(), token, "1"))
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
    begun = time.perf_counter()
    for position in range(100_000):
        lanes[0] = position
    assert time.perf_counter() - begun < 0.2
