"""The attempts of a flow run: one that failed goes on in this process, from its record."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterable
from typing import Final, NamedTuple, Protocol

from raflow import errors
from raflow.model import FlowRunEvent, RetryPolicy, State, StateName
from raflow.runtime.attempts._scope import FlowOutcome

_FAILURES: Final = frozenset({FlowRunEvent.FAILED, FlowRunEvent.TIMED_OUT})


class Retry(NamedTuple):
    """An attempt of a flow run that follows one that failed."""

    due: float
    """When it begins."""
    number: int
    """Among the attempts of the run, from 2."""
    of: int
    """How many attempts there are at most."""

    @property
    def name(self) -> str:
        """What people read of it while it goes on."""
        return f"attempt {self.number} of {self.of}"


class FlowRetries:
    """Counts the attempts of a flow run."""

    def __init__(self, policy: RetryPolicy, past: Iterable[State] = ()) -> None:
        """Begin with the first attempt, or where the record says that the run stands.

        Args:
            policy: How often the flow is tried again.
            past: The states of the run so far. A run that had ended has all its retries again.
        """
        self._policy = policy
        self._rng = random.Random()  # noqa: S311 - jitter, not a secret
        self._used = 0
        for state in past:
            if state.name is StateName.AWAITING_RETRY:
                self._used += 1
            elif state.is_final:
                self._used = 0

    def after(self, end: FlowRunEvent, at: float) -> Retry | None:
        """Return the attempt that follows one that has ended so; None if none does."""
        policy = self._policy
        if end not in _FAILURES or self._used >= policy.retries:
            return None
        self._used += 1
        due = at + policy.delay_before(self._used, self._rng)
        return Retry(due, self._used + 1, policy.retries + 1)


class Attempt(Protocol):
    """One attempt of a flow run."""

    id: str
    """Of the run."""

    @property
    def is_async(self) -> bool:
        """Whether it needs an event loop."""

    def run(self) -> FlowOutcome:
        """Run it to its end on this thread."""

    async def run_async(self) -> FlowOutcome:
        """Run it to its end on this event loop."""

    def cancel(self, reason: str) -> None:
        """Ask it to end."""

    def suspend(self, reason: str) -> None:
        """Ask it to be suspended."""

    def fence(self, error: errors.FencedError) -> None:
        """Have it end: another process drives the run by now."""

    def again(self) -> Attempt | None:
        """Return the attempt that follows this one, which is over; None if none does."""


class Attempts:
    """A flow run with all its attempts. Make it, then `run` it (or `run_async`), once."""

    def __init__(self, first: Attempt) -> None:
        """Begin with the first attempt that is made here."""
        self.id = first.id
        self._now = first
        self._lock = threading.Lock()
        self._cancelled = ""
        self._suspended = ""
        self._fenced: errors.FencedError | None = None

    def cancel(self, reason: str) -> None:
        """Ask the run to end, from any thread."""
        with self._lock:
            self._cancelled = reason
            self._now.cancel(reason)

    def suspend(self, reason: str) -> None:
        """Ask the run to be suspended, from any thread."""
        with self._lock:
            self._suspended = reason
            self._now.suspend(reason)

    def fence(self, error: errors.FencedError) -> None:
        """Have the run end here, from any thread: another process drives it by now."""
        with self._lock:
            self._fenced = error
            self._now.fence(error)

    def run(self) -> FlowOutcome:
        """Run the flow on this thread; an async one on an event loop of its own."""
        if self._now.is_async:
            return asyncio.run(self.run_async())
        outcome = self._now.run()
        while self._again():
            outcome = self._now.run()
        return outcome

    async def run_async(self) -> FlowOutcome:
        """Run an async flow on this event loop."""
        outcome = await self._now.run_async()
        while await asyncio.to_thread(self._again):
            outcome = await self._now.run_async()
        return outcome

    def _again(self) -> bool:
        """Go over to the next attempt, if there is one."""
        following = self._now.again()
        if following is None:
            return False
        with self._lock:
            self._now = following
            # It may have been asked of an attempt that was over.
            if self._fenced is not None:
                following.fence(self._fenced)
            elif self._cancelled:
                following.cancel(self._cancelled)
            elif self._suspended:
                following.suspend(self._suspended)
        return True
