"""Runs the calls of a batch in order, on one thread, at as little cost per call as possible."""

from __future__ import annotations

import inspect
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableSequence, Sequence
from enum import Enum, auto
from itertools import chain, repeat
from typing import Any, Final

from raflow import define, errors
from raflow.execute._attempt import Site, Watch
from raflow.execute._backend import TaskFunction
from raflow.execute._capture import Sinking, ensure_captured
from raflow.execute._context import CallContext, new_context
from raflow.execute._course import Course, Ended, LeftBehindError, Running
from raflow.execute._inputs import InputsLostError, Loader, NotThereError
from raflow.execute._jobs import Job
from raflow.execute._overlap import Overlap
from raflow.execute._tally import READ_SECONDS
from raflow.execute._work import Work
from raflow.model import PLAIN_TYPES

_SMALL: Final = PLAIN_TYPES - {str}


class BatchLoop:
    """Runs a batch; the same on every backend."""

    def __init__(
        self,
        batch: int,
        jobs: Iterable[Job],
        loader: Loader,
        *,
        site: Site,
        budget: float,
        own_values: int = 1,
        cell: MutableSequence[int] | None = None,
    ) -> None:
        """Prepare it.

        Args:
            batch: Its id.
            jobs: The calls, in order; see `jobs_of`.
            loader: Turns what travelled into objects.
            site: What this process brings to the calls.
            budget: Seconds after which no more calls are started.
            own_values: How many values may become objects of their own.
            cell: Where the positions that run now are noted: `LANES` and one more numbers, each -1
                at first. Default: nowhere.
        """
        self._course = Course(batch, jobs, loader, site=site, own_values=own_values, cell=cell)
        self._budget = budget

    @property
    def size(self) -> int:
        """How many calls there are."""
        return self._course.size

    def run(self, watch: Watch) -> bool:
        """Run what has not been run, on this thread; raises nothing that user code raised.

        Args:
            watch: Ends the running code; a new one for each thread.

        Returns:
            False if the batch goes on without this thread, which must leave it alone from now on.
        """
        course = self._course
        if math.isinf(course.deadline):
            course.site.meter.begin()
            course.deadline = time.time() + self._budget
        course.thread = threading.get_native_id()
        course.tally.begin()
        token = define.active_task.set(None)
        watch.enter()
        try:
            with Sinking(course.sinks, whole_process=course.site.whole_process):
                _Turn(course, watch).run()
            course.tally.read(course.now, course.next)
        except LeftBehindError:
            return False
        finally:
            watch.leave()
            define.active_task.reset(token)
        return True

    def end(self) -> Ended:
        """Return what the batch leaves, once `run` has returned True."""
        return self._course.end()

    @property
    def has_more(self) -> bool:
        """Whether there are calls after those that were taken. For any thread."""
        return self._course.taken + 1 < self._course.size

    @property
    def handed(self) -> int:
        """The first call that was taken back; the size if none was. For any thread."""
        return self._course.handed

    def hand_back(self) -> Sequence[int]:
        """Take back what has not been started: it will not be. For any thread.

        Returns:
            The positions; empty if nothing is left.
        """
        return self._course.hand_back()

    def cancel(self) -> None:
        """Start nothing more: what has not begun ends CANCELLED. For any thread.

        Does not stop what runs: for that, fire the watch.
        """
        self._course.cancel()

    def cancel_calls(self, positions: Iterable[int]) -> None:
        """Cancel single calls; those that have not begun will not. For any thread.

        Does not stop code that is being executed: for that, fire the watch at `unwanted_now`.
        """
        self._course.cancel_calls(positions)

    def lose_slots(self, position: int, error: errors.SlotLostError) -> None:
        """End a call that has lost its slots: as LOST, but otherwise as `cancel_calls` does."""
        self._course.lose_slots(position, error)

    def unwanted_now(self) -> int | None:
        """Return the call whose code is executed now, if it was cancelled. For any thread."""
        return self._course.unwanted_now()

    def running(self) -> list[Running]:
        """Return the calls that run now. For any thread."""
        return self._course.running()

    def mark(self) -> str | None:
        """Return the mark of the call that this code is part of; None if it is part of none."""
        return self._course.mark()

    def end_offspring(self, grace: float) -> None:
        """End the processes that the calls which run now have started; returns when they are gone.

        For any thread.
        """
        course = self._course
        for call in course.running():
            course.site.offspring.end(
                course.origin(call.position, course.work_at(call.position)), grace
            )
        course.site.offspring.wait()

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
        return self._course.leave_behind(position, more)


class _Kind(Enum):
    """How the calls of a job are run."""

    PLAIN = auto()
    CAREFUL = auto()
    ASYNC = auto()


class _Turn:
    """What one thread does for a batch."""

    def __init__(self, course: Course, watch: Watch) -> None:
        self._course = course
        self._watch = watch
        self._turn = course.turn
        self._overlap = Overlap(course, watch, self._turn)
        self._kinds: dict[tuple[int, float | None], _Kind] = {}

    def run(self) -> None:
        course = self._course
        try:
            while course.has_next():
                self._run_job(course.work_at(course.next))
        finally:
            self._overlap.close()

    def _run_job(self, work: Work) -> None:
        course = self._course
        position = course.next
        if not course.take(position):
            return
        begun = course.tally.started[position] = time.time()
        course.cell[0] = position
        context = new_context(work, position - work.base)
        function = self._prepared(work, position, context)
        if function is None:
            return
        coroutine: Any = None
        kind = self._kind(work, function)
        if kind is _Kind.ASYNC:
            self._overlap.run(work, position - work.base, context, None)
        elif kind is _Kind.CAREFUL:
            coroutine = self._run_careful(work, function, context)
        else:
            coroutine = self._run_calls(work, function.fn, context)
        if coroutine is not None:
            self._overlap.run(work, course.next - work.base, course.sinks.current, coroutine)
        if work.settings.timeout_seconds is not None:
            self._watch.limit(None, -1)
        if course.tally.started[position]:
            # Loading what the calls share is part of the first of them.
            course.tally.started[position] = begun

    def _kind(self, work: Work, function: TaskFunction) -> _Kind:
        known = (id(function), work.settings.timeout_seconds)
        kind = self._kinds.get(known)
        if kind is None:
            special = _Kind.CAREFUL if work.is_special() else _Kind.PLAIN
            is_async = inspect.iscoroutinefunction(function.fn)
            kind = self._kinds[known] = _Kind.ASYNC if is_async else special
        return kind

    def _prepared(self, work: Work, position: int, context: CallContext) -> TaskFunction | None:
        """Load what the calls of a job share; None if that ended them all."""
        course, watch = self._course, self._watch
        ensure_captured()
        self._show(context)
        seconds = work.settings.timeout_seconds
        if seconds is not None:
            course.limited = position
            watch.limit(seconds, position)
        try:
            try:
                watch.armed = True
                if watch.fired is not None:
                    watch.check(position)
                function = work.function or work.prepare()
            finally:
                self._disarm()
            self._end_limit(seconds, position)
            return function
        except BaseException as error:
            fired = self._disarm()
            self._end_limit(seconds, position)
            stop = work.base + work.size
            if isinstance(error, NotThereError):
                course.give_up(range(position, stop))
                course.taken, course.next = stop - 1, stop
                return None
            if isinstance(error, InputsLostError):
                for lost in range(position, stop):
                    course.lose(lost, work, error)
                course.taken, course.next = stop - 1, stop
                return None
            course.fail(position, work, context, error, fired)
            watch.forget()
            course.next = position + 1
            return None

    def _end_limit(self, seconds: float | None, position: int) -> None:
        if seconds is not None:
            self._course.claim(position, self._turn)
            self._watch.limit(None, position)

    def _run_calls(self, work: Work, fn: Callable[..., Any], first: CallContext) -> object:
        """Run the calls of a job from the next one on.

        Nothing in this loop costs more than it must: it is run for every item of a map.

        Returns:
            The coroutine that a call has returned, whose function is not a coroutine function: it
            has begun, and those after it may overlap. None if there was none.
        """
        course, watch, tally, clock = self._course, self._watch, self._course.tally, time.time
        values, started, ended = tally.values, tally.started, tally.ended
        cell, sinks, set_task = course.cell, course.sinks, define.active_task.set
        position = course.next
        calls = range(position - work.base, work.size)
        rows = work.rows(calls.start)
        contexts = chain((first,), map(new_context, repeat(work), calls[1:]))
        now, deadline = course.now, course.deadline
        for context in contexts:
            course.taken = position
            if position >= course.limit or now >= deadline:
                break
            cell[0] = position
            sinks.current = context
            set_task(context)
            started[position] = clock()
            try:
                try:
                    watch.armed = True
                    if watch.fired is not None:
                        watch.check(position)
                    value = fn(**next(rows))
                finally:
                    watch.armed = False
                    if watch.fired is not None:
                        watch.settle()
            except BaseException as error:
                rows = self._fail(work, position, context, error) or rows
                now = course.now
            else:
                if type(value) in _SMALL and context.sink is None:
                    values[position] = value
                    now = ended[position] = clock()
                elif self._is_begun(work, position, context, value):
                    return value
                else:
                    now = course.now
            position += 1
            if now - tally.read_at >= READ_SECONDS:
                tally.read(now, position)
                ensure_captured()
        course.next, course.now = position, now
        return None

    def _is_begun(self, work: Work, position: int, context: CallContext, value: object) -> bool:
        """Take what a call has returned, unless that is a coroutine."""
        if inspect.iscoroutine(value):
            self._course.next = position
            return True
        self._course.complete(position, work, context, value, None)
        return False

    def _run_careful(self, work: Work, function: TaskFunction, context: CallContext) -> object:
        """Do the same for calls with a time limit, a condition or a name of their own."""
        course, watch = self._course, self._watch
        seconds = work.settings.timeout_seconds
        first = course.next
        for position in range(first, work.base + work.size):
            course.next = position
            if not course.take(position):
                return None
            course.cell[0] = position
            if position > first:
                context = new_context(work, position - work.base)
            self._show(context)
            course.tally.started[position] = time.time()
            course.limited = position
            watch.limit(seconds, position)
            value: object = None
            failure: BaseException | None = None
            try:
                try:
                    watch.armed = True
                    if watch.fired is not None:
                        watch.check(position)
                    value = self._call(work, function, position - work.base, context)
                finally:
                    self._disarm()
            except BaseException as error:
                failure = error
            fired = self._disarm()
            if inspect.iscoroutine(value):
                course.claim(position, self._turn)
                watch.limit(None, position)
                return value
            # The limit goes on: what is raised or returned may hang while it is described.
            if failure is not None:
                course.fail(position, work, context, failure, fired, self._turn)
                watch.forget()
            else:
                course.complete(position, work, context, value, fired, self._turn)
            watch.limit(None, position)
            course.next = position + 1
            if course.now - course.tally.read_at >= READ_SECONDS:
                course.tally.read(course.now, position + 1)
        return None

    def _call(
        self, work: Work, function: TaskFunction, offset: int, context: CallContext
    ) -> object:
        row = work.row(offset)
        context.name = work.name(row)
        args, kwargs = work.ready(row)
        return function.fn(*args, **kwargs)

    def _fail(
        self, work: Work, position: int, context: CallContext, error: BaseException
    ) -> Iterator[Mapping[str, Any]] | None:
        """Take the exception of a call; returns new rows for the next ones if need be."""
        fired = self._disarm()
        self._course.fail(position, work, context, error, fired)
        self._watch.forget()
        # What was fired may have come before, or after, the arguments of the call were taken.
        return None if fired is None else work.rows(position - work.base + 1)

    def _show(self, context: CallContext) -> None:
        self._course.sinks.current = context
        define.active_task.set(context)

    def _disarm(self) -> errors.Interruption | None:
        watch = self._watch
        watch.armed = False
        if watch.fired is not None:
            watch.settle()
        return watch.fired
