"""How far a batch has come: which calls were taken, what they left, and what is handed back."""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Iterable, MutableSequence, Sequence
from functools import partial
from typing import Final, NamedTuple

from raflow import errors
from raflow.execute._attempt import Ending, Site, ending_of, timed_out
from raflow.execute._context import CallContext, CallSinks, new_context
from raflow.execute._inputs import Inputs, Loader, NotThereError
from raflow.execute._jobs import Job
from raflow.execute._tally import Tally, is_plain
from raflow.execute._work import NotWantedError, Work
from raflow.model import BatchReport, Outcome, TaskRunKey

LANES: Final = 64
"""How many calls that run at once have a place in a cell; one more number counts the others."""


class Ended(NamedTuple):
    """What a batch leaves."""

    report: BatchReport
    values: list[object]
    """Entries by position."""
    own: list[object]
    """Entries that become objects of their own, in the order of `BatchReport.own`."""


class Running(NamedTuple):
    """A call that runs now."""

    position: int
    run: TaskRunKey
    attempt: int
    started_at: float


class LeftBehindError(BaseException):
    """The batch goes on without this thread."""


class Course:
    """Where a batch is.

    One thread runs its calls; others may look on, and take back what has not been started. They
    need no lock for that: the loop first says which call it takes and then looks at the limit, and
    whoever lowers the limit looks afterwards at what the loop has taken.
    """

    def __init__(
        self,
        batch: int,
        jobs: Iterable[Job],
        loader: Loader,
        *,
        site: Site,
        own_values: int,
        cell: MutableSequence[int] | None,
    ) -> None:
        """Prepare a batch; see `BatchLoop`."""
        self.site = site
        jobs = list(jobs)
        self.size = sum(job.size for job in jobs)
        self.tally = Tally(self.size, site, own_values)
        # Nothing here refers back to the course: large inputs must go when the batch is over, not
        # when the garbage collector comes by.
        inputs = Inputs(loader, site.thaw, partial(_value_in_batch, self.tally, site))
        self.works: list[Work] = []
        size = 0
        for job in jobs:
            self.works.append(Work(job, size, loader, inputs, site))
            size += job.size
        self.cell: MutableSequence[int] = [-1] * (LANES + 1) if cell is None else cell
        self.sinks = CallSinks()
        self.next = 0
        """The first call that has not been dealt with."""
        self.taken = -1
        """The last call that was taken, or is just being considered."""
        self.limit = size
        """The first call that may not be taken."""
        self.now = 0.0
        """When the last call ended."""
        self.deadline = float("inf")
        """When no more calls are taken."""
        self.cancelled = False
        self.together: dict[int, CallContext] = {}
        """The calls that share an event loop now."""
        self.limited = -1
        """The call with a time limit that runs now, unless it shares an event loop."""
        self.turn = 0
        """Counts the threads that were left behind."""
        self._batch = batch
        self._bases = [work.base for work in self.works]
        self._handed = size
        self._not_there: list[int] = []
        self._lock = threading.Lock()

    # --- by the thread that runs the calls ------------------------------------------------------

    def work_at(self, position: int) -> Work:
        """Return the job that a position belongs to."""
        return self.works[bisect.bisect_right(self._bases, position) - 1]

    def take(self, position: int) -> bool:
        """Take a call; False if it must not begin."""
        self.taken = position
        return position < self.limit and self.now < self.deadline

    def claim(self, position: int, turn: int) -> None:
        """Make sure that what comes of a call with a time limit still counts.

        Raises:
            LeftBehindError: It does not.
        """
        with self._lock:
            if self.turn != turn:
                raise LeftBehindError
            if self.limited == position:
                self.limited = -1
            self.together.pop(position, None)

    def complete(
        self,
        position: int,
        work: Work,
        context: CallContext,
        value: object,
        fired: errors.Interruption | None,
    ) -> None:
        """Take the value of a call."""
        tally = self.tally
        ending: Ending | None = None
        simple = is_plain(value) and not context.name and not _wrote(context)
        if isinstance(fired, errors.TimeLimitReached):
            # Whatever the code made of the interruption, it ran longer than it may.
            ending = timed_out(fired, work.who(position - work.base))
        elif simple:
            tally.values[position] = value
        else:
            slots = tally.own_left
            last = position + 1 >= self.limit and not self.together
            ending = tally.keep(position, value, work, last=last)
            if slots and not tally.own_left:
                self.limit = min(self.limit, position + 1)
        if ending is None:
            self.now = tally.ended[position] = time.time()
        elif ending.result is not None and not context.name and not _wrote(context):
            tally.result(position, ending.result)
            self.now = tally.ended[position] = time.time()
        else:
            self.land(position, work, context, ending)

    def fail(
        self,
        position: int,
        work: Work,
        context: CallContext,
        error: BaseException,
        fired: errors.Interruption | None,
    ) -> None:
        """Take the exception of a call."""
        if isinstance(error, NotThereError):
            self.give_up(range(position, position + 1))
        elif isinstance(error, NotWantedError):
            message = "its run_if returned a false value"
            self.land(position, work, context, Ending(outcome=Outcome.SKIPPED, message=message))
        else:
            if isinstance(fired, errors.TaskInterrupted):
                self.cancel()
            ending = ending_of(error, fired, work.who(position - work.base))
            self.land(position, work, context, ending)

    def land(self, position: int, work: Work, context: CallContext, ending: Ending) -> None:
        """Take the ending of a call that needs a report of its own."""
        self.tally.tell(position, work, context, ending)
        now = max(self.tally.started[position], time.time())
        self.now = self.tally.ended[position] = now

    def give_up(self, positions: range) -> None:
        """Hand back calls whose input is not there."""
        self._not_there += positions
        for position in positions:
            self.tally.started[position] = 0.0

    def end(self) -> Ended:
        """Return what the batch leaves, once its calls have been dealt with."""
        left = self.next
        if self.cancelled:
            for position in range(self.next, self._handed):
                self._cancel_unstarted(position)
            left = max(self.next, self._handed)
        rest = range(left, self.size)
        unstarted = [*self._not_there, *rest] if self._not_there else rest
        report = self.tally.report(self._batch, self.works, unstarted)
        return Ended(report, self.tally.values, self.tally.own)

    def _cancel_unstarted(self, position: int) -> None:
        work = self.work_at(position)
        self.tally.started[position] = time.time()
        ending = Ending(outcome=Outcome.CANCELLED, message="it was cancelled before it started")
        self.land(position, work, new_context(work, position - work.base), ending)

    # --- by other threads -----------------------------------------------------------------------

    def hand_back(self) -> Sequence[int]:
        """Take back what has not been started: it will not be. Returns the positions."""
        start = self.taken + 1
        self.limit = min(self.limit, start)
        if self.taken >= start:
            # The loop took more before it could see the limit.
            start = self.taken + 1
            self.limit = min(self.limit, start) if self.cancelled else start
        handed = range(start, self._handed)
        if handed:
            self._handed = start
        return handed

    def cancel(self) -> None:
        """Start nothing more: what has not begun ends CANCELLED. Does not stop what runs."""
        self.cancelled = True
        self.limit = 0

    def running(self) -> list[Running]:
        """Return the calls that run now."""
        started, ended = self.tally.started, self.tally.ended
        found = []
        for position in list(self.together) or [self.taken]:
            if 0 <= position < self.size and started[position] and not ended[position]:
                work = self.work_at(position)
                run = work.job.run(position - work.base)
                attempt = work.job.attempt(position - work.base)
                found.append(Running(position, run, attempt, started[position]))
        return found

    def leave_behind(self, position: int, more: str) -> str | None:
        """Go on without the thread that runs a call which ignores its time limit.

        The call is TIMED_OUT, calls that shared its event loop are LOST. `run` must be called on
        another thread to go on.

        Args:
            position: Of the call.
            more: What to add to the message.

        Returns:
            The message; None if the call has ended just now.
        """
        with self._lock:
            if self.limited != position and position not in self.together:
                return None
            self.turn += 1
            self.limited = -1
            alone = {position: self.sinks.current} if self.sinks.current else {}
            stuck, self.together = self.together or alone, {}
            self.next = self.taken + 1
        work = self.work_at(position)
        ending = timed_out(None, work.who(position - work.base), more)
        for other, context in stuck.items():
            lost = Ending(
                outcome=Outcome.LOST,
                message="it shared an event loop with a call that did not stop at its time limit",
            )
            self.land(other, self.work_at(other), context, ending if other == position else lost)
        return ending.message


def _wrote(context: CallContext) -> bool:
    return context.sink is not None and context.sink.has_text


def _value_in_batch(tally: Tally, site: Site, position: int) -> object:
    entry = tally.entry(position)
    return entry if is_plain(entry) else site.thaw(entry)
