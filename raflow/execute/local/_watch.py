"""Ends user code that runs in a thread: as far as threads can be ended."""

from __future__ import annotations

import asyncio
import ctypes
import sys
import threading
from typing import Any, Final

from raflow import errors
from raflow.execute._alarms import Alarm, Alarms
from raflow.execute._importing import PUT_OFF_SECONDS, is_importing

_INSIST_SECONDS: Final = 0.3


class ThreadWatch:
    """Watches one attempt on the thread that enters it.

    An interruption reaches Python code at its next step. It cannot end a call into C: `time.sleep`,
    a query, a loop in a library go on until they return.
    """

    def __init__(self, alarms: Alarms, timeout: float | None) -> None:
        self.fired: errors.Interruption | None = None
        self._alarms = alarms
        self._timeout = timeout
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._alarm: Alarm | None = None
        self._async: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None

    def __enter__(self) -> ThreadWatch:
        with self._lock:
            self._thread = threading.get_ident()
            if self.fired is not None:
                raise self.fired
        if self._timeout is not None:
            limit = errors.TimeLimitReached()
            alarm = self._alarms.after(self._timeout, lambda: self.fire(limit))
            with self._lock:
                if self.fired is None:
                    self._alarm = alarm
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self._leave()
        except errors.Interruption:
            # It was fired a moment ago, when the code was already over: `fired` tells of it.
            self._leave()

    def _leave(self) -> None:
        with self._lock:
            if self._alarm is not None:
                self._alarm.cancel()
            self._thread = None
            self._async = None
        if self.fired is not None:
            # What is still on its way arrives at the next turn of a loop. It cannot be taken back:
            # in Python 3.11 that makes every traced function (debuggers, coverage) spin for ever.
            for _ in range(2):
                pass

    def hand_over(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        """From now on stop the attempt by cancelling this task."""
        with self._lock:
            self._async = (loop, task)
            if self.fired is not None:
                task.cancel()

    def fire(self, reason: errors.Interruption) -> None:
        """Ask the code to stop; the first reason counts. Called on any other thread."""
        with self._lock:
            if self.fired is not None:
                return
            if self._thread is None:
                if isinstance(reason, errors.TaskInterrupted):
                    self.fired = reason
                return
            self.fired = reason
            if self._async is not None:
                loop, task = self._async
                loop.call_soon_threadsafe(task.cancel)
                self._alarm = self._alarms.after(_INSIST_SECONDS, self._insist)
            else:
                self._interrupt(self._thread, type(reason))

    def _interrupt(self, thread: int, kind: type[errors.Interruption]) -> None:
        """Raise in the thread; while it imports something, look again a little later."""
        if is_importing(sys._current_frames().get(thread)):
            self._alarm = self._alarms.after(PUT_OFF_SECONDS, self._interrupt_later)
        else:
            _raise_in(thread, kind)

    def _interrupt_later(self) -> None:
        with self._lock:
            if self._thread is not None and self.fired is not None:
                self._interrupt(self._thread, type(self.fired))

    def _insist(self) -> None:
        """Interrupt an event loop that is blocked, so that the cancelling was not even begun."""
        with self._lock:
            blocked = self._async is not None and not self._async[1].cancelling()
            if self._thread is not None and self.fired is not None and blocked:
                self._interrupt(self._thread, type(self.fired))


def _raise_in(thread: int, kind: type[BaseException]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind))
