"""Threads that may be left behind: a call that never returns must not hold up the exit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

_IDLE_SECONDS: Final = 10.0


class DaemonThreads:
    """Runs each job on an idle thread, or on a new one; there is no limit.

    `concurrent.futures` cannot be used: it waits for its threads when the interpreter exits.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)

    def start(self, job: Callable[[], None]) -> None:
        """Run a job soon; it must not raise."""
        self._jobs.put(job)
        if not self._idle.acquire(blocking=False):
            threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def close(self) -> None:
        """End the idle threads; those that run end after their job."""
        while self._idle.acquire(blocking=False):
            self._jobs.put(None)

    def _run(self) -> None:
        # The first job is there already; idle threads are counted in the semaphore.
        while (job := self._take()) is not None:
            job()
            del job
            self._idle.release()

    def _take(self) -> Callable[[], None] | None:
        while True:
            try:
                return self._jobs.get(timeout=_IDLE_SECONDS)
            except Empty:
                # Leave only if nobody has counted on this thread in the meantime.
                if self._idle.acquire(blocking=False):
                    return None
