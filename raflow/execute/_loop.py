"""Runs the calls of a batch in order, on one thread, at as little cost per call as possible."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Coroutine, Iterable, MutableSequence, Sequence
from typing import Any, Final

from raflow import define, errors
from raflow.execute._attempt import Site, Watch
from raflow.execute._backend import TaskFunction
from raflow.execute._capture import Sinking, ensure_captured
from raflow.execute._context import CallContext, new_context
from raflow.execute._course import Course, Ended, LeftBehindError, Running
from raflow.execute._inputs import Loader, NotThereError
from raflow.execute._jobs import Job
from raflow.execute._overlap import Overlap
from raflow.execute._tally import LONG_TEXT, READ_SECONDS
from raflow.execute._work import Work
from raflow.model import PLAIN_TYPES

_NUMBERS: Final = PLAIN_TYPES - {str}


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
        token = define.active_task.set(None)
        watch.enter()
        try:
            with Sinking(course.sinks, whole_process=course.site.whole_process):
                _Turn(course, watch).run()
        except LeftBehindError:
            return False
        finally:
            watch.leave()
            define.active_task.reset(token)
        return True

    def end(self) -> Ended:
        """Return what the batch leaves, once `run` has returned True."""
        return self._course.end()

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

    def running(self) -> list[Running]:
        """Return the calls that run now. For any thread."""
        return self._course.running()

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


class _Turn:
    """What one thread does for a batch."""

    def __init__(self, course: Course, watch: Watch) -> None:
        self._course = course
        self._watch = watch
        self._turn = course.turn
        self._overlap = Overlap(course, watch, self._turn)

    def run(self) -> None:
        course = self._course
        while course.next < min(course.limit, course.size) and course.now < course.deadline:
            self._run_job(course.work_at(course.next))
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
        overlaps = inspect.iscoroutinefunction(function.fn)
        first = None if overlaps else self._run_calls(work, function, context)
        if overlaps or first is not None:
            self._overlap.run(work, course.next - work.base, context, first)
        if course.tally.started[position]:
            # Loading what the calls share is part of the first of them.
            course.tally.started[position] = begun

    def _prepared(self, work: Work, position: int, context: CallContext) -> TaskFunction | None:
        """Load what the calls of a job share; None if that ended them all."""
        course, watch = self._course, self._watch
        ensure_captured()
        self._show(context)
        try:
            try:
                watch.armed = True
                if watch.fired is not None:
                    raise watch.fired
                return work.function or work.prepare()
            finally:
                self._disarm()
        except BaseException as error:
            fired = self._disarm()
            stop = work.base + work.size
            if isinstance(error, NotThereError):
                course.give_up(range(position, stop))
                course.taken, course.next = stop - 1, stop
                return None
            course.fail(position, work, context, error, fired)
            course.next = position + 1
            return None

    def _run_calls(
        self, work: Work, function: TaskFunction, context: CallContext
    ) -> Coroutine[Any, Any, object] | None:
        """Run the calls of a job from the next one on.

        Returns:
            The coroutine that a call has returned, whose function is not a coroutine function: it
            has begun, and those after it may overlap. None if there was none.
        """
        course, watch, tally, clock = self._course, self._watch, self._course.tally, time.time
        values, started, ended = tally.values, tally.started, tally.ended
        cell, sinks, set_task = course.cell, course.sinks, define.active_task.set
        seconds = work.settings.timeout_seconds
        special = work.is_special()
        call = self._special(work, function) if special else function.fn
        quick = not special and seconds is None
        position = course.next
        rows = work.rows(position - work.base)
        now, deadline = course.now, course.deadline
        ready: CallContext | None = context
        for offset in range(position - work.base, work.size):
            course.taken = position
            if position >= course.limit or now >= deadline:
                break
            cell[0] = position
            sinks.current = context = ready or new_context(work, offset)
            ready = None
            set_task(context)
            started[position] = clock()
            if seconds is not None:
                course.limited = position
                watch.limit(seconds, position)
            try:
                try:
                    watch.armed = True
                    if watch.fired is not None:
                        raise watch.fired
                    value = call(**next(rows))
                finally:
                    watch.armed = False
                    if watch.fired is not None:
                        watch.settle()
            except BaseException as error:
                fired = self._disarm()
                if fired is not None:
                    # It may have come before, or after, the arguments were taken.
                    rows = work.rows(offset + 1)
                self._unlimit(position, seconds)
                course.fail(position, work, context, error, fired)
                now = course.now
            else:
                kind = type(value)
                if (
                    quick
                    and (kind in _NUMBERS or (kind is str and len(value) <= LONG_TEXT))
                    and context.sink is None
                ):
                    values[position] = value
                    now = ended[position] = clock()
                else:
                    fired = watch.fired
                    self._unlimit(position, seconds)
                    if inspect.iscoroutine(value):
                        course.next = position
                        return value
                    course.complete(position, work, context, value, fired)
                    now = course.now
            position += 1
            if now - tally.read_at >= READ_SECONDS:
                tally.read(now, position)
                ensure_captured()
        course.next, course.now = position, now
        return None

    def _special(self, work: Work, function: TaskFunction) -> Callable[..., object]:
        sinks, fn = self._course.sinks, function.fn

        def call(**row: Any) -> object:
            context = sinks.current
            assert context is not None
            context.name = work.name(row)
            args, kwargs = work.ready(row)
            return fn(*args, **kwargs)

        return call

    def _show(self, context: CallContext) -> None:
        self._course.sinks.current = context
        define.active_task.set(context)

    def _disarm(self) -> errors.Interruption | None:
        watch = self._watch
        watch.armed = False
        if watch.fired is not None:
            watch.settle()
        return watch.fired

    def _unlimit(self, position: int, seconds: float | None) -> None:
        if seconds is not None:
            self._course.claim(position, self._turn)
            self._watch.limit(None, position)
