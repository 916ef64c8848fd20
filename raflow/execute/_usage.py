"""What the calls of a batch used of their process, and which process that was."""

from __future__ import annotations

import os
import resource
import socket
import sys
import time
from typing import Final, Protocol

from raflow.model import Place

_MAXRSS_UNIT: Final = 1 if sys.platform == "darwin" else 1024


def here(node_id: str) -> Place:
    """Describe this process."""
    return Place(os.getpid(), socket.gethostname(), node_id)


class Meter(Protocol):
    """Measures the batches of a process, or of a thread."""

    def begin(self) -> None:
        """Begin a batch on this thread."""

    def cpu(self) -> float:
        """Return the CPU seconds used so far, from any beginning."""

    def peak(self) -> int:
        """Return the highest resident memory, in bytes, since the batch began."""


class ThreadMeter:
    """Measures batches that share their process with others: CPU of the thread, memory of all."""

    def begin(self) -> None:
        """Begin a batch on this thread."""

    def cpu(self) -> float:
        """Return the CPU seconds of this thread."""
        return time.thread_time()

    def peak(self) -> int:
        """Return the highest resident memory of the process so far."""
        return _peak()


class ProcessMeter:
    """Measures batches that have their process to themselves: all threads and ended children.

    Linux lets a process reset its own high-water mark of memory, so that each batch has its own.
    Where that is not permitted the peak is that of the process so far.
    """

    def __init__(self) -> None:
        self._reset = _open("/proc/self/clear_refs", os.O_WRONLY)

    def begin(self) -> None:
        """Begin a batch."""
        if self._reset is not None:
            try:
                os.write(self._reset, b"5")
            except OSError:
                self._reset = None

    def cpu(self) -> float:
        """Return the CPU seconds of this process and of its ended children."""
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + children.ru_utime + children.ru_stime

    def peak(self) -> int:
        """Return the highest resident memory since the batch began."""
        return _peak()


def _peak() -> int:
    # Not VmHWM of /proc/self/status, which is the same to within what the process was before
    # it became Python (some MB at most), and takes a hundred times as long to read.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT


def _open(path: str, flags: int) -> int | None:
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError:
        return None
