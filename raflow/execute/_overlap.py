"""Runs the calls of an async function on one event loop, so that their waiting overlaps."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from collections.abc import Coroutine, Mapping
from typing import Any, Final

from raflow import define, errors
from raflow.execute._attempt import Watch
from raflow.execute._backend import InBatch
from raflow.execute._context import CallContext, new_context
from raflow.execute._course import LANES, LEFT, Course, LeftBehindError
from raflow.execute._jobs import Singles
from raflow.execute._work import Work

_INSIST_SECONDS: Final = 0.3
"""How much later than its time limit a call is stopped that blocks the event loop."""


class Overlap:
    """The event loop of a batch, made when it is needed."""

    def __init__(self, course: Course, watch: Watch, turn: int) -> None:
        """Prepare it for a batch, as the thread that runs it sees it."""
        self._course = course
        self._watch = watch
        self._turn = turn
        self._runner: asyncio.Runner | None = None
        self._lanes: list[int] = []
        self._freed: asyncio.Event
        self._tasks: dict[asyncio.Task[Any], int] = {}
        self._due: dict[int, float] = {}
        """When the time of a running call is over, by position and in that order."""

    def run(
        self,
        work: Work,
        start: int,
        context: CallContext | None,
        begun: Coroutine[Any, Any, object] | None,
    ) -> None:
        """Run the calls of a job from an offset on.

        Args:
            work: The job.
            start: The offset.
            context: Of the first call.
            begun: The coroutine of the first call, if it has been made already.
        """
        course = self._course
        assert context is not None
        course.tally.read(time.time(), course.next)
        if self._runner is None:
            self._runner = asyncio.Runner()
        self._lanes = list(range(LANES - 1, -1, -1))
        self._freed = asyncio.Event()
        course.overlap = self
        try:
            self._runner.run(self._all(work, start, context, begun))
        except BaseException as error:
            course.site.heed(error)  # while the calls are still there to be seen
            self._disarm()
            self._end_rest(work, error)
            if course.next == work.base + start and not course.cancelled:
                course.fail(course.next, work, context, error, self._watch.fired)
                course.next += 1
        finally:
            course.overlap = None
        if course.turn != self._turn:
            raise LeftBehindError
        course.tally.read(time.time(), course.next)

    def current(self) -> int:
        """Return the position of the call whose code is executed now; -1 if there is none.

        A call that is being cancelled already needs no more than time.
        """
        runner = self._runner
        task = asyncio.current_task(runner.get_loop()) if runner is not None else None
        return -1 if task is None or task.cancelling() else self._tasks.get(task, -1)

    def stop(self, position: int) -> None:
        """Cancel a call once it waits for something; called on any thread."""
        runner = self._runner
        if runner is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed just now
                runner.get_loop().call_soon_threadsafe(self._cancel, position)

    def _cancel(self, position: int) -> None:
        for task, its_position in self._tasks.items():
            if its_position == position and self._watch.aimed != position:
                task.cancel()

    def close(self) -> None:
        """End the event loop, and what user code has left on it."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        if self._course.turn == self._turn:
            self._course.cell[0] = self._course.taken
        with contextlib.suppress(BaseException):  # whatever it is, the calls are over
            runner.close()

    async def _all(
        self,
        work: Work,
        start: int,
        context: CallContext,
        begun: Coroutine[Any, Any, object] | None,
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        watch = self._watch
        watch.on_loop(asyncio.get_running_loop(), task)
        try:
            watch.armed = True
            watch.forget()
            if watch.fired is None:
                await self._overlap(work, start, context, begun)
            elif begun is not None:
                begun.close()
        finally:
            watch.armed = False
            watch.off_loop()
            self._disarm()

    async def _overlap(
        self,
        work: Work,
        start: int,
        context: CallContext,
        begun: Coroutine[Any, Any, object] | None,
    ) -> None:
        course = self._course
        width = max(1, work.settings.concurrency)
        async with asyncio.TaskGroup() as group:
            for offset in range(start, work.size):
                position = work.base + offset
                while len(course.together) >= width or self._must_wait(work, offset):
                    self._freed.clear()
                    await self._freed.wait()
                if not course.take(position):
                    if begun is not None and offset == start:
                        begun.close()
                    if course.next == position and course.pass_over():
                        continue
                    break
                course.next = position + 1
                if offset > start:
                    context, begun = new_context(work, offset), None
                course.together[position] = context
                child = group.create_task(self._one(work, position, context, begun))
                self._tasks[child] = position
                child.add_done_callback(self._tasks.pop)

    def _must_wait(self, work: Work, offset: int) -> bool:
        """Tell whether a call needs the value of one that still runs."""
        if not isinstance(work.job, Singles):
            return False
        sources = work.job.calls.inputs.get(work.job.first + offset, {}).values()
        return any(isinstance(s, InBatch) and s.position in self._course.together for s in sources)

    async def _one(
        self,
        work: Work,
        position: int,
        context: CallContext,
        begun: Coroutine[Any, Any, object] | None,
    ) -> None:
        """Run a call; raises nothing, so that the others go on."""
        course = self._course
        define.active_task.set(context)
        course.sinks.current = context
        lane = self._lanes.pop() if self._lanes else LANES
        course.cell[lane] = position if lane < LANES else course.cell[lane] + 1
        course.tally.started[position] = time.time()
        value: object = None
        failure: BaseException | None = None
        scope = asyncio.timeout(work.settings.timeout_seconds)
        try:
            self._begin_limit(position, work.settings.timeout_seconds)
            async with scope:
                value = await (begun or self._call(work, position - work.base, context))
        except BaseException as error:
            failure = error
        self._end_limit(position)
        try:
            course.claim(position, self._turn)
            self._take(work, position, context, value, failure, late=scope.expired())
        except LeftBehindError:
            return
        finally:
            if lane < LANES:
                course.cell[lane] = LEFT
                self._lanes.append(lane)
            else:
                course.cell[lane] -= 1
            self._freed.set()

    async def _call(self, work: Work, offset: int, context: CallContext) -> object:
        function = work.function
        assert function is not None
        row: Mapping[str, Any] = work.row(offset)
        context.name = work.name(row)
        args, kwargs = work.ready(row)
        made = function.fn(*args, **kwargs)
        return await made if inspect.iscoroutine(made) else made

    def _take(
        self,
        work: Work,
        position: int,
        context: CallContext,
        value: object,
        failure: BaseException | None,
        *,
        late: bool,
    ) -> None:
        fired: errors.Interruption | None = self._watch.fired
        if late or isinstance(failure, errors.TimeLimitReached):
            fired = errors.TimeLimitReached()
        elif self._watch.aimed is not None or not isinstance(fired, errors.TaskInterrupted):
            fired = None
        if failure is None:
            self._course.complete(position, work, context, value, fired)
        else:
            self._course.fail(position, work, context, failure, fired)
        if self._watch.aimed == position:
            self._watch.forget()

    def _end_rest(self, work: Work, error: BaseException) -> None:
        """End the calls that an exception has torn out of the event loop."""
        course = self._course
        self.close()
        for position, context in list(course.together.items()):
            course.claim(position, self._turn)
            if not course.tally.ended[position]:
                course.tally.started[position] = course.tally.started[position] or time.time()
                course.fail(position, work, context, error, self._watch.fired)
        if isinstance(self._watch.fired, errors.TaskInterrupted) and self._watch.aimed is None:
            course.cancel()

    def _begin_limit(self, position: int, seconds: float | None) -> None:
        if seconds is not None:
            self._due[position] = time.monotonic() + seconds
            if len(self._due) == 1:
                self._watch_oldest()

    def _end_limit(self, position: int) -> None:
        if position in self._due:
            oldest = next(iter(self._due)) == position
            del self._due[position]
            if oldest:
                self._watch_oldest()

    def _watch_oldest(self) -> None:
        """Have a call stopped that blocks the event loop, so that its time-out cannot come."""
        position, due = next(iter(self._due.items()), (-1, None))
        if due is None:
            self._watch.limit(None, position)
        else:
            seconds = max(0.0, due - time.monotonic()) + _INSIST_SECONDS
            self._watch.limit(seconds, position, self._may_stop)

    def _may_stop(self) -> bool:
        """Tell whether a call runs on the event loop now whose time is over."""
        runner = self._runner
        task = asyncio.current_task(runner.get_loop()) if runner is not None else None
        if task is None:
            return False
        due = self._due.get(self._tasks.get(task, -1))
        return due is None or due <= time.monotonic()

    def _disarm(self) -> None:
        self._watch.armed = False
        if self._watch.fired is not None:
            self._watch.settle()
