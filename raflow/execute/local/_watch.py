"""Ends user code that runs in a thread: as far as threads can be ended."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

from raflow import errors
from raflow.execute._alarms import Alarm, Alarms
from raflow.execute._importing import PUT_OFF_SECONDS, is_importing

_INSIST_SECONDS: Final = 0.3


class ThreadWatch:
    """Watches the user code of a batch on the thread that enters it; see `Watch`.

    An interruption reaches Python code at its next step. It cannot end a call into C: `time.sleep`,
    a query, a loop in a library go on until they return.
    """

    def __init__(self, alarms: Alarms, *, grace: float, ignored: Callable[[int], None]) -> None:
        """Prepare it.

        Args:
            alarms: For time limits.
            grace: Seconds that a call has to stop after its time limit.
            ignored: Told of the position of a call that did not.
        """
        self.armed = False
        self.fired: errors.Interruption | None = None
        self.aimed: int | None = None
        self._alarms = alarms
        self._grace = grace
        self._ignored = ignored
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._set: list[Alarm] = []
        self._limit: object = None
        self._may_stop: Callable[[], bool] | None = None
        self._unwanted: Callable[[], int | None] = lambda: None
        self._task: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None

    def enter(self) -> None:
        """Begin on this thread."""
        with self._lock:
            self._thread = threading.get_ident()

    def leave(self) -> None:
        """End: nothing is raised by the watch any more."""
        with self._lock:
            self._thread = None
            self._clear_limit()
        self.settle()

    def settle(self) -> None:
        """Wait out what has been fired; called unarmed, on the watched thread."""
        while True:
            try:
                with self._lock:  # whoever is about to raise something has done so then
                    pass
                # It arrives at the next turn of a loop. It cannot be taken back: in Python 3.11
                # that makes every traced function (debuggers, coverage) spin for ever.
                for _ in range(2):
                    pass
            except errors.Interruption:
                continue
            return

    def check(self, position: int) -> None:
        """Raise what was fired, if it was meant for this call."""
        with self._lock:
            if self.aimed is not None and self.aimed != position:
                self._forget()
            fired = self.fired
        if fired is not None:
            raise fired

    def forget(self) -> None:
        """Forget what was fired at a single call."""
        if self.aimed is not None:
            with self._lock:
                self._forget()

    def limit(
        self, seconds: float | None, position: int, may_stop: Callable[[], bool] | None = None
    ) -> None:
        """Begin a time limit, or (None) end it and forget that it has fired."""
        with self._lock:
            self._clear_limit()
            if isinstance(self.fired, errors.TimeLimitReached):
                self.fired = None
            if seconds is None:
                return
            limit = self._limit = object()
            self._may_stop = may_stop
            self._set = [
                self._alarms.after(seconds, lambda: self._reached(limit)),
                self._alarms.after(seconds + self._grace, lambda: self._ignored(position)),
            ]

    def on_loop(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        """From now on stop the code by cancelling this task; time limits still raise."""
        with self._lock:
            self._task = (loop, task)

    def off_loop(self) -> None:
        """From now on stop the code by raising again."""
        with self._lock:
            self._task = None

    def fire(self, reason: errors.Interruption) -> None:
        """Ask the code to stop; the first reason counts. Called on any other thread."""
        with self._lock:
            self._fire(reason)

    def fire_at(self, unwanted: Callable[[], int | None]) -> None:
        """Ask a single call to stop. Called on any other thread.

        Args:
            unwanted: The call whose code is executed now, if it is to stop.
        """
        with self._lock:
            self._unwanted = unwanted
            if self.fired is None:
                self._aim()

    def _aim(self) -> None:
        # First fire, then look again whether it is still the same call: the thread does not wait.
        while (position := self._unwanted()) is not None:
            self.fired, self.aimed = errors.TaskInterrupted(), position
            if not self.armed or self._unwanted() == position:
                self._strike(self.fired)
                return
            self._forget()

    def _forget(self) -> None:
        if self.aimed is not None:
            self.fired = self.aimed = None

    def _reached(self, limit: object) -> None:
        with self._lock:
            if self._limit is limit:
                self._fire(errors.TimeLimitReached())

    def _fire(self, reason: errors.Interruption) -> None:
        if self.fired is not None:
            if isinstance(reason, errors.TaskInterrupted):
                self.aimed = None
            return
        self.fired = reason
        if self._task is not None and isinstance(reason, errors.TaskInterrupted):
            loop, task = self._task
            with contextlib.suppress(RuntimeError):  # the loop was closed just now
                loop.call_soon_threadsafe(task.cancel)
            self._alarms.after(_INSIST_SECONDS, lambda: self._look_again(reason))
        else:
            self._strike(reason)

    def _strike(self, reason: errors.Interruption) -> None:
        """Raise in the thread; where it must not be stopped now, look again a little later."""
        if not self.armed or self._thread is None:
            return
        asked = self._may_stop if isinstance(reason, errors.TimeLimitReached) else None
        importing = is_importing(sys._current_frames().get(self._thread))
        if importing or (asked is not None and not asked()):
            self._alarms.after(PUT_OFF_SECONDS, lambda: self._look_again(reason))
        else:
            _raise_in(self._thread, type(reason))

    def _look_again(self, reason: errors.Interruption) -> None:
        with self._lock:
            # A task that is being cancelled already needs no more than time.
            cancelling = self._task is not None and self._task[1].cancelling()
            limit = isinstance(reason, errors.TimeLimitReached)
            missed = self.aimed is not None and self.aimed != self._unwanted()
            if self.fired is reason and not missed and (limit or not cancelling):
                self._strike(reason)

    def _clear_limit(self) -> None:
        self._limit = None
        self._may_stop = None
        for alarm in self._set:
            alarm.cancel()
        self._set = []


def _raise_in(thread: int, kind: type[BaseException]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind))
