"""Timers of a process: one thread, however many calls arm and disarm them."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import Final

_CLOSE_SECONDS: Final = 10.0

_log = logging.getLogger(__name__)


class Alarm:
    """A callback that is due at an instant, unless it is cancelled before."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Forget the callback; it may be running at this moment."""
        self.callback = None


class Alarms:
    """Calls back at set times, on a daemon thread of its own.

    Cancelling only marks an alarm, and a new one wakes the thread only if it is the earliest. When
    the thread does wake, it sleeps again until the earliest alarm that still counts: a stream of
    short calls costs two switches of threads per limit, not two per call.
    """

    def __init__(self, name: str) -> None:
        self._due: list[tuple[float, int, Alarm]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._name = name

    def after(self, seconds: float, callback: Callable[[], None]) -> Alarm:
        """Call back once that time has passed."""
        alarm = Alarm(callback)
        due = time.monotonic() + seconds
        with self._changed:
            self._ensure_thread()
            earliest = not self._due or due < self._due[0][0]
            heapq.heappush(self._due, (due, next(self._order), alarm))
            if earliest:
                self._changed.notify()
        return alarm

    def close(self) -> None:
        """Forget all alarms and end the thread; one that is being called is waited for."""
        with self._changed:
            self._closed = True
            self._due.clear()
            self._changed.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=_CLOSE_SECONDS)

    def _ensure_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            alarm = self._next()
            if alarm is None:
                return
            callback = alarm.callback
            if callback is not None:
                self._call(callback)
            # What they hold goes now, not when the next alarm is due: it may be large.
            del alarm, callback

    def _next(self) -> Alarm | None:
        with self._changed:
            while not self._closed:
                while self._due and self._due[0][2].callback is None:
                    heapq.heappop(self._due)
                wait = self._due[0][0] - time.monotonic() if self._due else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(wait)
            return None

    @staticmethod
    def _call(callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception:
            _log.exception("A timer of raflow failed; the timers after it go on")
