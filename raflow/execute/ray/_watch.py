"""Ends user code in a worker process of Ray's, where it runs on the main thread."""

from __future__ import annotations

import asyncio
import faulthandler
import signal
import threading
import time
from collections.abc import Callable
from types import CodeType, FrameType, FunctionType
from typing import Any, Final, TypeVar

from raflow import errors
from raflow.execute._importing import PUT_OFF_SECONDS, is_importing
from raflow.execute.ray._mail import MARK

T = TypeVar("T")

_SIGNALS: Final = (signal.SIGINT, signal.SIGUSR2, signal.SIGALRM)
"""Ray's own soft cancel, ours, and what is due at a set time."""
_INSIST_SECONDS: Final = 0.3
_ASK_AGAIN_SECONDS: Final = 0.05
_AGAIN_SECONDS: Final = 0.02
"""Linux may give a signal to any thread, and Python may not notice before the next one."""
_INSIST_TIMES: Final = 10
"""Twice as long between any two of them as before: 20 seconds in all, more than most graces."""
_HARD_SLACK_SECONDS: Final = 0.5
"""How much later than it must the process is ended: its timer is set once for many short calls."""


class SignalWatch:
    """Watches a batch by signals, which also end a wait in C such as `time.sleep`.

    What does not come back to Python at all is ended together with its process: a timer of the C
    library, which needs no lock of the interpreter's, writes where the code hangs and exits.
    """

    def __init__(
        self,
        *,
        grace: float,
        last_words: Callable[[], int | None],
        is_meant: Callable[[], bool],
        unwanted: Callable[[], int | None] = lambda: None,
    ) -> None:
        """Prepare it.

        Args:
            grace: Seconds after a time limit before the process is ended.
            last_words: Returns where the process writes why it ends: a file descriptor.
            is_meant: Whether the cancel that has just come is for this batch.
            unwanted: The call whose code is executed now, if it alone was cancelled.
        """
        self.armed = False
        self.fired: errors.Interruption | None = None
        self.aimed: int | None = None
        self._grace = grace
        self._last_words = last_words
        self._is_meant = is_meant
        self._unwanted = unwanted
        self._task: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._wanted: errors.Interruption | None = None
        self._limit_at: float | None = None
        self._may_stop: Callable[[], bool] | None = None
        self._hard_at = 0.0

    def enter(self) -> None:
        """Begin on the main thread."""
        _Active.watch = self

    def leave(self) -> None:
        """End."""
        _Active.watch = None
        self.limit(None, -1)
        signal.setitimer(signal.ITIMER_REAL, 0)

    def settle(self) -> None:
        """Nothing is on its way: signals are handled where they arrive."""

    def check(self, position: int) -> None:
        """Raise what was fired, if it was meant for this call."""
        if self.aimed is not None and self.aimed != position:
            self.forget()
        if self.fired is not None:
            raise self.fired

    def forget(self) -> None:
        """Forget what was fired at a single call."""
        if self.aimed is not None:
            self.fired = self.aimed = None

    def limit(
        self, seconds: float | None, position: int, may_stop: Callable[[], bool] | None = None
    ) -> None:
        """Begin a time limit, or end it; a position of -1 says that no other one follows soon."""
        if isinstance(self.fired, errors.TimeLimitReached):
            self.fired = None
        if isinstance(self._wanted, errors.TimeLimitReached):
            self._wanted = None
        if seconds is not None:
            self._limit_at = time.monotonic() + seconds
            self._may_stop = may_stop
            self._set_hard_limit(self._limit_at + self._grace)
            _ring(seconds)
        elif self._limit_at is not None:
            self._limit_at = self._may_stop = None
            signal.setitimer(signal.ITIMER_REAL, PUT_OFF_SECONDS if self._wanted else 0)
        if position < 0 and seconds is None and self._hard_at:
            self._hard_at = 0.0
            faulthandler.cancel_dump_traceback_later()

    def on_loop(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        """From now on stop the code by cancelling this task."""
        self._task = (loop, task)

    def off_loop(self) -> None:
        """From now on stop it by raising."""
        self._task = None

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Stop the code; called on the main thread, between any two steps of it."""
        if number == signal.SIGALRM:
            self._look_at_limit()
        elif number == signal.SIGINT or self._is_meant():
            self._wanted = self._wanted or errors.TaskInterrupted()
            self.aimed = None
        if self._wanted is not None:
            self._stop(self._wanted, frame)
        elif self.fired is None:
            self._stop_one(self._unwanted(), frame)

    def _stop_one(self, position: int | None, frame: FrameType | None) -> None:
        if position is None:
            return
        if self.armed and is_importing(frame):
            _ring(PUT_OFF_SECONDS)
            return
        self.fired, self.aimed = errors.TaskInterrupted(), position
        if self.armed:
            raise self.fired

    def _look_at_limit(self) -> None:
        left = 0.0 if self._limit_at is None else self._limit_at - time.monotonic()
        if left > 0.0:
            _ring(left)
        elif self._limit_at is not None:
            self._wanted = self._wanted or errors.TimeLimitReached()

    def _stop(self, reason: errors.Interruption, frame: FrameType | None) -> None:
        if not self.armed:
            self.fired = self.fired or reason
        elif is_importing(frame):
            _ring(PUT_OFF_SECONDS)
        elif self._task is not None and isinstance(reason, errors.TaskInterrupted):
            self._cancel(*self._task, reason)
        elif self._may_stop is not None and not self._may_stop():
            _ring(_ASK_AGAIN_SECONDS)
        elif self.fired is None:
            self.fired = reason
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise reason

    def _cancel(
        self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any], reason: errors.Interruption
    ) -> None:
        if not isinstance(self.fired, errors.TaskInterrupted):
            self.fired = reason
            loop.call_soon_threadsafe(task.cancel)
            _ring(_INSIST_SECONDS, again=_INSIST_SECONDS)
        elif not task.cancelling():
            # The event loop is blocked, so that the cancelling was not even begun.
            raise reason

    def _set_hard_limit(self, at: float) -> None:
        if self._hard_at >= at:
            return
        self._hard_at = at + _HARD_SLACK_SECONDS
        seconds = self._hard_at - time.monotonic()
        where = self._last_words()
        # The thread that this starts must not take our signals: Python would not look at them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            if where is not None:
                faulthandler.dump_traceback_later(seconds, exit=True, file=where)
            else:
                faulthandler.dump_traceback_later(seconds, exit=True)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ring(seconds: float, *, again: float = _AGAIN_SECONDS) -> None:
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-6), again)


class _Active:
    watch: SignalWatch | None = None
    heard = 0
    """How many soft cancels have reached Python."""


def install() -> None:
    """Take over the signals of this process; called before each batch, on the main thread.

    User code may have left handlers of its own behind. A signal that comes between two batches is
    ignored: a cancel may arrive a moment after its batch has ended.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) is not _on_signal:
            signal.signal(number, _on_signal)


def _on_signal(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGUSR2:
        _Active.heard += 1
    if _Active.watch is not None:
        _Active.watch.on_signal(number, frame)


def interrupt_main_thread() -> None:
    """Deliver a soft cancel to the watch on the main thread; from any other thread."""
    heard = _Active.heard
    _signal_main_thread()
    insist = threading.Thread(target=_insist, args=(heard,), name="raflow-insist", daemon=True)
    insist.start()


def _insist(heard: int) -> None:
    """Repeat a soft cancel that came after Python had last looked, and before it began to wait."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    for attempt in range(_INSIST_TIMES):
        time.sleep(_AGAIN_SECONDS * 2**attempt)
        is_ours = signal.getsignal(signal.SIGUSR2) is _on_signal
        if _Active.heard != heard or _Active.watch is None or not is_ours:
            return
        _signal_main_thread()


def _signal_main_thread() -> None:
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGUSR2)


def marked(session: int, batch: int, run: Callable[[], T]) -> T:
    """Call `run` below a frame that the last words of the process will show."""
    code: CodeType = _call.__code__.replace(co_name=MARK.format(session=session, batch=batch))
    frame: Callable[[Callable[[], T]], T] = FunctionType(code, {})
    return frame(run)


def _call(run: Callable[[], T]) -> T:
    return run()
