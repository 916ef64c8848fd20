"""Processes of this machine, as the kernel tells of them, and how they are ended."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_CLOCK_SLACK: Final = 0.001
"""Two clocks are not read at the same instant."""
_LOOK_SECONDS: Final = 0.2
"""A process that is being ended may start others: after how long to look for those."""
_GONE: Final = frozenset("ZX")


class Process(NamedTuple):
    """One process for ever: pids are used again, a pid with a start time is not."""

    pid: int
    started: int
    """Ticks of the kernel since the machine was booted."""
    parent: int = 0
    state: str = ""
    """One letter: `R` runs, `S` waits, `T` was stopped, ..."""

    @property
    def started_at(self) -> float:
        """Seconds since the Unix epoch."""
        return _booted_at() + self.started / _TICKS

    @property
    def is_there(self) -> bool:
        """Whether it still runs."""
        now = process(self.pid)
        return now is not None and now.started == self.started


def process(pid: int) -> Process | None:
    """Describe a process; None if there is none, or only its exit status is left."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
    except OSError:
        return None
    state = fields[0].decode()
    return None if state in _GONE else Process(pid, int(fields[19]), int(fields[1]), state)


def cpu_seconds(one: Process) -> float | None:
    """Return how long a process has used the CPU; None if it is gone."""
    try:
        fields = Path(f"/proc/{one.pid}/stat").read_bytes().rpartition(b") ")[2].split()
    except OSError:
        return None
    same = int(fields[19]) == one.started
    return (int(fields[11]) + int(fields[12])) / _TICKS if same else None


def processes() -> Iterator[Process]:
    """Describe the processes that this one can see; none where the system is not Linux."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return
    for name in names:
        if name.isdigit():
            found = process(int(name))
            if found is not None:
                yield found


def started_since(at: float) -> list[Process]:
    """Return the processes that began at a time, or later: seconds since the Unix epoch.

    The kernel counts ticks of a hundredth of a second: those that began just before are among them.
    """
    first = int((at - _booted_at() - _CLOCK_SLACK) * _TICKS)
    return [found for found in processes() if found.started >= first]


def with_descendants(roots: Iterable[Process], among: Iterable[Process]) -> list[Process]:
    """Return processes, and those that they have started, and those that these have."""
    children: dict[int, list[Process]] = {}
    for one in among:
        children.setdefault(one.parent, []).append(one)
    found: dict[int, Process] = {}
    waiting = list(roots)
    while waiting:
        one = waiting.pop()
        if one.pid not in found:
            found[one.pid] = one
            waiting += children.get(one.pid, ())
    return list(found.values())


def send(one: Process, number: int) -> bool:
    """Send a signal to exactly this process; False if it is gone, or not ours."""
    try:
        file = os.pidfd_open(one.pid)
    except OSError:
        return False
    try:
        if not one.is_there:
            return False
        signal.pidfd_send_signal(file, number)
    except OSError:
        return False
    finally:
        os.close(file)
    return True


def kill(one: Process) -> None:
    """End a process at once; returns when it is gone, after a second at most."""
    send(one, signal.SIGKILL)
    _wait([one], 1.0)


def wait_until_gone(pid: int, seconds: float) -> bool:
    """Wait until a process of this machine that is about to end is gone; False if it is not."""
    found = process(pid)
    return found is None or not _wait([found], seconds)


def end(victims: Iterable[Process], grace: float) -> None:
    """End processes, and what they have started: SIGTERM, and after `grace` seconds SIGKILL.

    Returns when they are gone, `grace` and a second later at most.
    """
    victims = list(victims)
    for one in victims:
        send(one, signal.SIGTERM)
        send(one, signal.SIGCONT)
    left = _wait(victims, grace)
    if left:
        left = with_descendants(left, processes())
        for one in left:
            send(one, signal.SIGKILL)
        _wait(left, 1.0)


def _booted_at() -> float:
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.time() - time.clock_gettime(clock)


def _wait(victims: list[Process], seconds: float) -> list[Process]:
    """Wait until processes are gone; returns those that are not."""
    deadline = time.monotonic() + seconds
    left = victims
    while left := [one for one in left if one.is_there]:
        wait = min(_LOOK_SECONDS, deadline - time.monotonic())
        if wait <= 0:
            break
        _wait_for_one(left[0], wait)
    return left


def _wait_for_one(one: Process, seconds: float) -> None:
    with contextlib.suppress(OSError):
        file = os.pidfd_open(one.pid)
        try:
            select.select([file], [], [], seconds)
        finally:
            os.close(file)
