"""Looks after a batch while a call of it runs for long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from raflow.execute._alarms import Alarm, Alarms
from raflow.execute._course import Running
from raflow.execute._loop import BatchLoop

ANNOUNCE_SECONDS: Final = 0.5
"""A call that runs longer than this is told of."""
_SLACK_SECONDS: Final = 0.01
"""How much later than the budget calls are taken back: until then the batch may end by itself."""


class Minder:
    """Tells of calls that run for long, and takes back the calls behind them."""

    def __init__(
        self,
        loop: BatchLoop,
        alarms: Alarms,
        *,
        budget: float,
        started: Callable[[Running], None],
        returned: Callable[[Sequence[int]], None],
        may_return: Callable[[], bool] = lambda: True,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare it.

        Args:
            loop: The batch.
            alarms: Whose thread calls back.
            budget: Seconds after which the batch starts no more calls.
            started: Told, once, of each call that has run for half a second.
            returned: Told, once, of positions that were taken back.
            may_return: Asked before they are taken back whether that can be told.
            beat: Called twice a second as long as such a call runs.
        """
        self._loop = loop
        self._alarms = alarms
        self._started = started
        self._returned = returned
        self._may_return = may_return
        self._beat = beat
        self._return_after = budget + _SLACK_SECONDS if loop.size > 1 else None
        self._told: set[int] = set()
        self._lock = threading.Lock()
        self._over = False
        self._alarm: Alarm | None = None
        self._begun = 0.0

    def start(self) -> None:
        """Begin, with the batch."""
        self._begun = time.monotonic()
        first = self._return_after
        seconds = ANNOUNCE_SECONDS if first is None else min(first, ANNOUNCE_SECONDS)
        self._alarm = self._alarms.after(seconds, self._look)

    def stop(self) -> None:
        """End, with the batch: once this returns, nothing is told any more."""
        with self._lock:
            self._over = True
        if self._alarm is not None:
            self._alarm.cancel()

    def _look(self) -> None:
        # Asking may take seconds, and whoever ends the batch does not wait for that.
        take_back = self._is_due() and self._loop.has_more and self._may_return()
        with self._lock:
            if self._over:
                return
            if take_back:
                self._take_back()
            seconds = self._announce()
            self._alarm = self._alarms.after(max(0.0, seconds), self._look)
        if self._told:
            self._beat()

    def _is_due(self) -> bool:
        """Tell, once, that it is time to take calls back."""
        due = self._return_after
        if due is None or time.monotonic() - self._begun < due:
            return False
        self._return_after = None
        return True

    def _take_back(self) -> None:
        positions = self._loop.hand_back()
        if positions:
            self._returned(positions)

    def _announce(self) -> float:
        """Tell of the calls that have run long enough; returns when to look again."""
        now = time.time()
        wait = ANNOUNCE_SECONDS
        for call in self._loop.running():
            left = call.started_at + ANNOUNCE_SECONDS - now
            if left > 0:
                wait = min(wait, left)
            elif call.position not in self._told:
                self._told.add(call.position)
                self._started(call)
        if self._return_after is not None:
            wait = min(wait, self._begun + self._return_after - time.monotonic())
        return wait
