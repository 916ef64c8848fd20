"""What an attempt used of its process, and which process that was."""

from __future__ import annotations

import os
import resource
import socket
import sys
import time
from typing import Final, NamedTuple, Protocol

_MAXRSS_UNIT: Final = 1 if sys.platform == "darwin" else 1024


class Place(NamedTuple):
    """Where calls run."""

    pid: int
    host: str
    node_id: str

    @classmethod
    def here(cls, node_id: str) -> Place:
        """Describe this process."""
        return cls(os.getpid(), socket.gethostname(), node_id)


class Usage(NamedTuple):
    """What one attempt used."""

    cpu_seconds: float
    peak_memory: int
    """Bytes."""


class Meter(Protocol):
    """Measures attempts, one after the other."""

    def start(self) -> float:
        """Begin an attempt; returns the CPU seconds used so far."""

    def stop(self, started: float) -> Usage:
        """End the attempt that began with `started`."""


class ThreadMeter:
    """Measures attempts that share their process with others: CPU of the thread, memory of all."""

    def start(self) -> float:
        """Begin an attempt on this thread."""
        return time.thread_time()

    def stop(self, started: float) -> Usage:
        """End it."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT
        return Usage(time.thread_time() - started, peak)


class ProcessMeter:
    """Measures attempts that have their process to themselves: all threads and ended children.

    Linux lets a process reset its own high-water mark of memory, so that each attempt has its own.
    Where that is not permitted the peak is that of the process so far.
    """

    def __init__(self) -> None:
        self._reset = _open("/proc/self/clear_refs", os.O_WRONLY)

    def start(self) -> float:
        """Begin an attempt."""
        if self._reset is not None:
            try:
                os.write(self._reset, b"5")
            except OSError:
                self._reset = None
        return _cpu_seconds()

    def stop(self, started: float) -> Usage:
        """End it."""
        # Not VmHWM of /proc/self/status, which is the same to within what the process was before
        # it became Python (some MB at most), and takes a hundred times as long to read.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT
        return Usage(_cpu_seconds() - started, peak)


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _open(path: str, flags: int) -> int | None:
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError:
        return None
