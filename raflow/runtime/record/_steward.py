"""What a run has to do with the record now and then, on a thread of its own."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from raflow import errors

_LOG = logging.getLogger("raflow.runtime")
_AGAIN_SECONDS: Final = 1.0
"""How soon something is tried again that the store could not do."""

Work: TypeAlias = Callable[[], float | None]
"""Something to be done; returns after how many seconds it is to be done again, None: never."""


class _Due(NamedTuple):
    at: float
    number: int
    """Decides between equals: first come, first served."""
    work: Work


class Steward:
    """Does things in the order in which they are due; starts its thread with the first."""

    def __init__(self) -> None:
        """Begin with nothing to do."""
        self._changed = threading.Condition()
        self._due: list[_Due] = []
        self._numbers = itertools.count()
        self._closed = False
        self._thread: threading.Thread | None = None

    def soon(self, work: Work) -> None:
        """Have something done as soon as possible."""
        self.after(0.0, work)

    def after(self, seconds: float, work: Work) -> None:
        """Have something done after so many seconds; never once `close` was called."""
        with self._changed:
            if self._closed:
                return
            heapq.heappush(self._due, _Due(time.monotonic() + seconds, next(self._numbers), work))
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="raflow-steward", daemon=True
                )
                self._thread.start()

    def close(self) -> None:
        """Do nothing more; wait for what is being done."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while (work := self._next()) is not None:
            again = _done(work)
            if again is not None:
                self.after(again, work)

    def _next(self) -> Work | None:
        """Wait until something is due; None once closed."""
        with self._changed:
            while not self._closed:
                if not self._due:
                    self._changed.wait()
                    continue
                wait = self._due[0].at - time.monotonic()
                if wait <= 0:
                    return heapq.heappop(self._due).work
                self._changed.wait(wait)
            return None


def _done(work: Work) -> float | None:
    try:
        return work()
    except errors.StoreError as error:
        _LOG.warning("The record cannot be reached; it is tried again: %s", error)
        return _AGAIN_SECONDS
    except Exception:
        # Whatever it is: if this thread ended, the run would lose its lease.
        _LOG.exception("A bug in raflow: please report it")
        return None
