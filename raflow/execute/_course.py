"""How far a batch has come: which calls were taken, what they left, and what is handed back."""

from __future__ import annotations

import asyncio
import bisect
import threading
import time
from collections.abc import Iterable, MutableSequence, Sequence
from functools import partial
from typing import Final, NamedTuple, Protocol

from raflow import errors
from raflow.execute._attempt import Ending, Site, ending_of, timed_out
from raflow.execute._context import CallContext, CallSinks, new_context
from raflow.execute._inputs import Inputs, InputsLostError, Loader, NotThereError
from raflow.execute._jobs import Job
from raflow.execute._offspring import Origin, mark_of
from raflow.execute._tally import Tally, is_plain
from raflow.execute._work import NotWantedError, Work
from raflow.model import BatchReport, Outcome, TaskRunKey

LANES: Final = 64
"""How many calls that run at once have a place in a cell; one more number counts the others."""
LEFT: Final = -2
"""In a lane: a call has run there, and is over."""

_STOPPED: Final = frozenset({Outcome.CANCELLED, Outcome.TIMED_OUT, Outcome.LOST})


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


class Overlapping(Protocol):
    """Calls that share an event loop, for other threads."""

    def current(self) -> int:
        """Return the position of the call whose code is executed now; -1 if there is none."""

    def stop(self, position: int) -> None:
        """Cancel a call once it waits for something."""


class Course:
    """Where a batch is.

    One thread runs its calls; others may look on, and take back what has not been started. They
    need no lock for that: the loop first says which call it takes and then looks at the limit, and
    whoever lowers the limit looks afterwards at what the loop has taken. Only the loop raises the
    limit again, behind a call that is not wanted any more.
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
        read = site.environment.keeper.read
        inputs = Inputs(loader, site.thaw, partial(_value_in_batch, self.tally, site), read)
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
        """The first call that may not be taken now."""
        self.now = 0.0
        """When the last call ended."""
        self.deadline = float("inf")
        """When no more calls are taken."""
        self.cancelled = False
        self.unwanted: set[int] = set()
        """Calls that were cancelled one by one."""
        self.slotless: dict[int, errors.SlotLostError] = {}
        """Those among them that are to end because they have lost their slots."""
        self.together: dict[int, CallContext] = {}
        """The calls that share an event loop now."""
        self.limited = -1
        """The call with a time limit that runs now, unless it shares an event loop."""
        self.turn = 0
        """Counts the threads that were left behind."""
        self.thread = 0
        """The kernel's id of the thread that runs the calls."""
        self.overlap: Overlapping | None = None
        """The event loop that calls share now."""
        self._batch = batch
        self._bases = [work.base for work in self.works]
        self._end = size
        self.handed = size
        """The first call that was taken back."""
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

    def has_next(self) -> bool:
        """Tell whether there is a call to take; ends those before it that nobody wants."""
        while self.next < self.size and self.now < self.deadline:
            if self.next < self.limit:
                return True
            if not self.pass_over():
                return False
        return False

    def pass_over(self) -> bool:
        """End the next call if nobody wants it; False if nothing more may be taken."""
        with self._lock:
            position = self.next
            if position >= self._end:
                return False
            skipped = position in self.unwanted
            if skipped:
                self.taken, self.next = position, position + 1
            self.limit = min([self._end, *(p for p in self.unwanted if p >= self.next)])
        if skipped:
            self._cancel_unstarted(position)
        return True

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
        turn: int | None = None,
    ) -> None:
        """Take the value of a call.

        Args:
            position: Of the call.
            work: The job it belongs to.
            context: Of the call.
            value: What it returned.
            fired: Why the code was asked to stop, if it was.
            turn: Claim it for this turn, once the code of the value's class has run: whoever hangs
                in that can be left behind. Default: it was claimed, or needs not to be.

        Raises:
            LeftBehindError: It does not count any more.
        """
        claim = None if turn is None else partial(self.claim, position, turn)
        tally = self.tally
        if context.sink is not None:
            context.over()
        ending: Ending | None = None
        simple = is_plain(value) and not context.name and not _wrote(context)
        if isinstance(fired, errors.TimeLimitReached):
            # Whatever the code made of the interruption, it ran longer than it may.
            ending = timed_out(fired, work.who(position - work.base))
            if claim is not None:
                claim()
            self._end_offspring(position, work)
        elif simple:
            if claim is not None:
                claim()
            tally.values[position] = value
        else:
            slots = tally.own_left
            last = position + 1 >= self._end and not self.together
            ending = tally.keep(position, value, work, last=last, claim=claim)
            if slots and not tally.own_left:
                with self._lock:
                    self._end_at(position + 1)
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
        turn: int | None = None,
    ) -> None:
        """Take the exception of a call; see `complete`."""
        self.site.heed(error)
        ending: Ending | None = None
        if not isinstance(error, NotThereError | InputsLostError | NotWantedError):
            ending = self._ending(position, work, error, fired)
        if turn is not None:
            self.claim(position, turn)
        if isinstance(error, NotThereError):
            self.give_up(range(position, position + 1))
        elif isinstance(error, InputsLostError):
            self.land(position, work, context, _without(error))
        elif ending is None:
            message = "its run_if returned a false value"
            self.land(position, work, context, Ending(outcome=Outcome.SKIPPED, message=message))
        else:
            if ending.outcome in _STOPPED:
                self._end_offspring(position, work)
            self.land(position, work, context, ending)

    def _ending(
        self,
        position: int,
        work: Work,
        error: BaseException,
        fired: errors.Interruption | None,
    ) -> Ending:
        who = work.who(position - work.base)
        lost = self.slotless.get(position)
        if lost is not None and not self.cancelled:
            if isinstance(fired, errors.TaskInterrupted):
                fired = None  # that was why; the code may have caught it, and have failed otherwise
            if isinstance(error, errors.TaskInterrupted | asyncio.CancelledError):
                error = lost
        elif position in self.unwanted and not self.cancelled:
            fired = fired or errors.TaskInterrupted()
        elif isinstance(fired, errors.TaskInterrupted):
            self.cancel()
        return ending_of(error, fired, who)

    def land(self, position: int, work: Work, context: CallContext, ending: Ending) -> None:
        """Take the ending of a call that needs a report of its own."""
        context.over()
        self.tally.tell(position, work, context, ending)
        now = max(self.tally.started[position], time.time())
        self.now = self.tally.ended[position] = now

    def lose(self, position: int, work: Work, lost: InputsLostError) -> None:
        """Take note that a call cannot run for want of an input that all of its job need."""
        self.tally.started[position] = time.time()
        self.land(position, work, new_context(work, position - work.base), _without(lost))

    def origin(self, position: int, work: Work) -> Origin:
        """Say whose offspring it is that a call has started."""
        offset = position - work.base
        run, attempt = work.job.run(offset), work.job.attempt(offset)
        mark = mark_of(self.site.environment.flow_run_id, run, attempt)
        alone = len(self.together) <= (position in self.together)
        return Origin(mark, self.tally.started[position], self.thread if alone else None)

    def mark(self) -> str | None:
        """Return the mark of the call that this code is part of; None if it is part of none."""
        context = self.sinks.context()
        return None if context is None else mark_of(*context.attempted)

    def _end_offspring(self, position: int, work: Work) -> None:
        self.site.offspring.end(self.origin(position, work))

    def give_up(self, positions: range) -> None:
        """Hand back calls whose input is not there."""
        self._not_there += positions
        for position in positions:
            self.tally.started[position] = 0.0

    def end(self) -> Ended:
        """Return what the batch leaves, once its calls have been dealt with."""
        rest: Sequence[int] = range(self.next, self.size)
        if self.cancelled or self.unwanted:
            over = [p for p in rest if p < self.handed and (self.cancelled or p in self.unwanted)]
            for position in over:
                self._cancel_unstarted(position)
            rest = sorted({*rest}.difference(over))
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
        with self._lock:
            start = self.taken + 1
            self._end_at(start)
            if self.taken >= start:
                # The loop took more before it could see the limit.
                start = self.taken + 1
                if not self.cancelled:
                    self._end = start
                    self.limit = min([start, *(p for p in self.unwanted if p >= self.taken)])
            handed = range(start, self.handed)
            if handed:
                self.handed = start
            return handed

    def cancel(self) -> None:
        """Start nothing more: what has not begun ends CANCELLED. Does not stop what runs."""
        with self._lock:
            self.cancelled = True
            self._end_at(0)

    def cancel_calls(self, positions: Iterable[int]) -> None:
        """Do not start these calls: they end CANCELLED. Also stops those that wait for something.

        Whoever stops code by raising asks `unwanted_now` afterwards.
        """
        with self._lock:
            self.unwanted.update(positions)
            self.limit = min([self.limit, *(p for p in self.unwanted if p > self.taken)])
        overlap = self.overlap
        if overlap is not None:
            for position in self.unwanted.intersection(self.together):
                overlap.stop(position)

    def lose_slots(self, position: int, error: errors.SlotLostError) -> None:
        """Do not let a call go on that has lost its slots; see `cancel_calls`."""
        self.slotless[position] = error
        self.cancel_calls([position])

    def unwanted_now(self) -> int | None:
        """Return the call whose code is executed at this moment, if it is not wanted any more."""
        if not self.unwanted:
            return None
        overlap = self.overlap
        position = self.taken if overlap is None else overlap.current()
        over = position < 0 or self.tally.ended[position]
        return position if position in self.unwanted and not over else None

    def _end_at(self, position: int) -> None:
        self._end = min(self._end, position)
        self.limit = min(self.limit, self._end)

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
        work = self.work_at(position)
        origin = self.origin(position, work)
        with self._lock:
            if self.limited != position and position not in self.together:
                return None
            self.turn += 1
            self.limited = -1
            alone = {position: self.sinks.current} if self.sinks.current else {}
            stuck, self.together = self.together or alone, {}
            self.next = self.taken + 1
        ending = timed_out(None, work.who(position - work.base), more)
        self.site.offspring.end(origin)
        for other, context in stuck.items():
            lost = Ending(
                outcome=Outcome.LOST,
                message="it shared an event loop with a call that did not stop at its time limit",
            )
            self.land(other, self.work_at(other), context, ending if other == position else lost)
        return ending.message


def _without(lost: InputsLostError) -> Ending:
    message = f"a value that it needs is gone: {lost}"
    return Ending(outcome=Outcome.LOST, message=message, lost_inputs=lost.edges)


def _wrote(context: CallContext) -> bool:
    return context.sink is not None and context.sink.has_text


def _value_in_batch(tally: Tally, site: Site, position: int) -> object:
    entry = tally.entry(position)
    return entry if is_plain(entry) else site.thaw(entry)
