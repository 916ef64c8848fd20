"""Measures a batch that more than one thread may run, one after the other."""

from __future__ import annotations

import threading
import time

from raflow.execute._usage import ThreadMeter


class BatchMeter(ThreadMeter):
    """Adds up the CPU seconds of whichever threads run a batch; each has a clock of its own."""

    def __init__(self) -> None:
        """Begin with nothing used."""
        self._thread: int | None = None
        self._read = 0.0
        self._used = 0.0

    def begin(self) -> None:
        """Begin the batch on this thread."""
        self._thread, self._read = threading.get_ident(), time.thread_time()

    def cpu(self) -> float:
        """Return the CPU seconds used so far."""
        thread, now = threading.get_ident(), time.thread_time()
        if thread == self._thread:
            self._used += max(0.0, now - self._read)
        self._thread, self._read = thread, now
        return self._used
