"""Loops in threads that look after things, and never end without a word."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from raflow import errors
from raflow.service._janitor import Janitor
from raflow.service._reaper import Reaper
from raflow.service._scheduler import Scheduler
from raflow.store import Store

SILENT_SECONDS: Final = 30.0
"""A loop that has not looked for so long is not well: its database is away, or it is stuck."""
_AGAIN_SECONDS: Final = 1.0
_END_SECONDS: Final = 10.0

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopState:
    """How a loop is."""

    name: str
    is_alive: bool
    """Whether its thread is there."""
    silent_seconds: float
    """How long ago it should have looked, and did not, or with an error; 0: all is well."""
    error: str
    """What went wrong the last time; empty: nothing."""

    @property
    def is_well(self) -> bool:
        """Whether it does what it is there for."""
        return self.is_alive and self.silent_seconds < SILENT_SECONDS


class Loop:
    """Calls something again and again in a thread of its own, whatever that raises."""

    def __init__(self, name: str, look: Callable[[], float]) -> None:
        """Take what it does.

        Args:
            name: For people.
            look: Is called; returns in how many seconds it is to be called again.
        """
        self._name = name
        self._look = look
        self._woken = threading.Event()
        self._stopping = False
        self._error = ""
        self._due_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"raflow-{name}", daemon=True)

    def start(self) -> None:
        """Begin; once."""
        self._due_at = time.monotonic()
        self._thread.start()

    def wake(self) -> None:
        """Look now; from any thread."""
        self._woken.set()

    def stop(self) -> None:
        """Look no more; does not wait for the look under way."""
        self._stopping = True
        self._woken.set()

    def join(self, seconds: float) -> bool:
        """Wait for its end, no longer than that; return whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def state(self) -> LoopState:
        """Return how it is."""
        return LoopState(
            name=self._name,
            is_alive=self._thread.is_alive(),
            silent_seconds=max(0.0, time.monotonic() - self._due_at),
            error=self._error,
        )

    def _run(self) -> None:
        while not self._stopping:
            self._woken.clear()
            seconds = self._look_once()
            if not self._stopping:
                self._woken.wait(seconds)

    def _look_once(self) -> float:
        try:
            seconds = self._look()
        except errors.StoreError as error:
            self._failed(str(error))
            return _AGAIN_SECONDS
        # A bug, or memory that has run out: whoever needs the loop needs it all the more then.
        except Exception as error:
            self._failed(f"{type(error).__name__}: {error}", error)
            return _AGAIN_SECONDS
        if self._error:
            _log.warning("The %s works again", self._name)
            self._error = ""
        self._due_at = time.monotonic() + seconds
        return seconds

    def _failed(self, text: str, bug: Exception | None = None) -> None:
        """Tell of an error once, not each second."""
        if text != self._error:
            level = logging.WARNING if bug is None else logging.ERROR
            _log.log(level, "The %s tries again each second: %s", self._name, text, exc_info=bug)
        self._error = text


class Upkeep:
    """The scheduler, the reaper and the janitor of a store, as threads of this process.

    Whoever serves a store runs it: the server, or a process that serves a flow by itself. Any
    number of processes may, at the same time: each slot is decided once, each dead run is found
    once. It starts no runs itself: it orders them, and workers take them.

    ```python
    with Upkeep(store, wake=signals.wake) as upkeep:
        ...  # upkeep.wake() after a schedule was changed in this process
    ```

    A database that is away is waited for, and what came meanwhile is caught up with.
    """

    def __init__(self, store: Store, *, wake: Callable[[str], None] = lambda _: None) -> None:
        """Take what it works on.

        Args:
            store: The record; must stay open until `stop`.
            wake: Called, on its threads, with `pool:NAME` when runs of a pool may be taken,
                `run:ID` when something is asked of a run, and `feed` when there are events.
                Default: whoever waits looks by himself.
        """
        scheduler = Scheduler(store, wake=wake)
        reaper = Reaper(store, wake=wake)
        self._scheduler = Loop("scheduler", scheduler.look)
        janitor = Janitor(store)
        self._loops = (
            self._scheduler,
            Loop("reaper", reaper.look),
            Loop("janitor", janitor.look),
        )

    def start(self) -> None:
        """Begin; once."""
        for loop in self._loops:
            loop.start()

    def wake(self) -> None:
        """Look at the schedules now: one was changed in this process; others are seen in time."""
        self._scheduler.wake()

    def stop(self) -> None:
        """End; what is under way is committed first, unless the database hangs."""
        for loop in self._loops:
            loop.stop()
        deadline = time.monotonic() + _END_SECONDS
        for loop in self._loops:
            if not loop.join(max(0.0, deadline - time.monotonic())):
                _log.warning("The %s still waits for the database", loop.state().name)

    def states(self) -> tuple[LoopState, ...]:
        """Return how the loops are."""
        return tuple(loop.state() for loop in self._loops)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
