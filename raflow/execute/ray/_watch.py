"""Ends user code in a worker process of Ray's, where it runs on the main thread."""

from __future__ import annotations

import asyncio
import faulthandler
import signal
import threading
from collections.abc import Callable
from types import CodeType, FrameType, FunctionType
from typing import Any, Final, TypeVar

from raflow import errors
from raflow.execute._importing import PUT_OFF_SECONDS, is_importing
from raflow.execute.ray._mail import MARK

T = TypeVar("T")

_SIGNALS: Final = (signal.SIGINT, signal.SIGUSR2, signal.SIGALRM)
"""Ray's own soft cancel, ours, and the time limit."""
_INSIST_SECONDS: Final = 0.3


class SignalWatch:
    """Watches one attempt by signals, which also end a wait in C such as `time.sleep`.

    What does not come back to Python at all is ended together with its process: a timer of the C
    library, which needs no lock of the interpreter's, writes where the code hangs and exits.
    """

    def __init__(
        self,
        timeout: float | None,
        *,
        grace: float,
        last_words: int | None,
        is_meant: Callable[[], bool],
    ) -> None:
        """Prepare it.

        Args:
            timeout: The time limit in seconds.
            grace: Seconds after the limit before the process is ended.
            last_words: Where the process writes why it ends: a file descriptor.
            is_meant: Whether the cancel that has just come is for this attempt.
        """
        self.fired: errors.Interruption | None = None
        self._timeout = timeout
        self._grace = grace
        self._last_words = last_words
        self._is_meant = is_meant
        self._task: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._put_off: int | None = None

    def __enter__(self) -> SignalWatch:
        _Active.watch = self
        if self._timeout is not None:
            signal.setitimer(signal.ITIMER_REAL, self._timeout)
            hard = self._timeout + self._grace
            if self._last_words is not None:
                faulthandler.dump_traceback_later(hard, exit=True, file=self._last_words)
            else:
                faulthandler.dump_traceback_later(hard, exit=True)
        return self

    def __exit__(self, *exc: object) -> None:
        _Active.watch = None
        if self._timeout is not None or self.fired is not None or self._put_off is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if self._timeout is not None:
            faulthandler.cancel_dump_traceback_later()
        self._task = None

    def hand_over(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        """From now on stop the attempt by cancelling this task."""
        self._task = (loop, task)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Stop the attempt; called on the main thread, between any two steps of its code."""
        if number == signal.SIGUSR2 and not self._is_meant():
            return
        if is_importing(frame):
            self._put_off = self._put_off or number
            signal.setitimer(signal.ITIMER_REAL, PUT_OFF_SECONDS)
            return
        number, self._put_off = self._put_off or number, None
        if self.fired is None:
            limit = number == signal.SIGALRM
            self.fired = errors.TimeLimitReached() if limit else errors.TaskInterrupted()
            self._stop(self.fired)
        elif self._task is not None and not self._task[1].cancelling():
            # The event loop is blocked, so that the cancelling was not even begun.
            raise self.fired

    def _stop(self, reason: errors.Interruption) -> None:
        if self._task is None:
            raise reason
        loop, task = self._task
        loop.call_soon_threadsafe(task.cancel)
        signal.setitimer(signal.ITIMER_REAL, _INSIST_SECONDS, _INSIST_SECONDS)


class _Active:
    watch: SignalWatch | None = None


def install() -> None:
    """Take over the signals of this process; called before each batch, on the main thread.

    User code may have left handlers of its own behind. A signal that comes between two calls is
    ignored: a cancel may arrive a moment after its call has ended.
    """
    for number in _SIGNALS:
        signal.signal(number, _on_signal)


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _Active.watch is not None:
        _Active.watch.on_signal(number, frame)


def interrupt_main_thread() -> None:
    """Deliver a soft cancel to the watch on the main thread."""
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
