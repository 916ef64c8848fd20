"""One batch on its way through the threads of this process."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from raflow import errors
from raflow.execute._alarms import Alarms
from raflow.execute._attempt import Site
from raflow.execute._backend import (
    BackendEvent,
    BatchEnded,
    BatchLost,
    BatchSpec,
    CallsReturned,
    CallStarted,
    InputSource,
    ResultKeeper,
    SlotsAsked,
    SlotsLeft,
    TaskFunction,
)
from raflow.execute._course import Running
from raflow.execute._failure import message_of
from raflow.execute._inputs import GoneError, Inputs, unreadable
from raflow.execute._jobs import jobs_of
from raflow.execute._loop import BatchLoop
from raflow.execute._minder import Minder
from raflow.execute._offspring import FORCE_GRACE_SECONDS, Offspring, of_thread
from raflow.execute._slots import BatchSlots, ClaimMade
from raflow.execute._substitute import Verdict, substitute
from raflow.execute.local._meter import BatchMeter
from raflow.execute.local._watch import ThreadWatch
from raflow.model import Outcome

_STAYS: Final = (
    " Its thread does not stop: the local backend runs tasks in threads, which cannot be ended "
    "inside a call into C, so it goes on in the background."
)

_log = logging.getLogger(__name__)


class Values:
    """The handle of the values of a batch; equal to itself only."""

    __slots__ = ("entries",)

    def __init__(self, entries: list[object]) -> None:
        self.entries = entries


class LocalBatch:
    """Runs calls in order, and goes on without a thread that does not come back."""

    def __init__(
        self,
        spec: BatchSpec,
        site: Site,
        alarms: Alarms,
        *,
        grace: float,
        post: Callable[[BackendEvent], None],
        ended: Callable[[LocalBatch], None],
        start: Callable[[Callable[[], None]], None],
    ) -> None:
        """Prepare it.

        Args:
            spec: What to run.
            site: What this process brings to the calls.
            alarms: For time limits.
            grace: Seconds that a call has between its time limit and being left behind.
            post: Told of all that happens.
            ended: Called once, when the batch needs its resources no more.
            start: Runs a job on a thread.
        """
        self.spec = spec
        self._place = site.place
        self._alarms = alarms
        self._grace = grace
        self._post = post
        self._ended = ended
        self._start = start
        self._lock = threading.Lock()
        self._over = False
        self._watch: ThreadWatch | None = None
        self._offspring = Offspring(of_thread)
        self.slots = BatchSlots(self)
        """What its calls hold of limits."""
        self._loop = BatchLoop(
            spec.id,
            jobs_of(spec.calls),
            _ByReference(),
            site=dataclasses.replace(
                site, meter=BatchMeter(), offspring=self._offspring, slots=lambda: self.slots
            ),
            budget=spec.budget,
        )
        self._minder = Minder(
            self._loop, alarms, budget=spec.budget, started=self._tell, returned=self._give_back
        )

    def run(self) -> None:
        """Run the calls; called on a thread that may be left behind."""
        with self._lock:
            if self._over:
                return
        self._minder.start()
        self._go_on()

    def cancel(self) -> None:
        """Ask the running code to stop, and start nothing more."""
        self._loop.cancel()
        with self._lock:
            watch = self._watch
        if watch is not None:
            watch.fire(errors.TaskInterrupted())

    def cancel_calls(self, positions: Sequence[int], *, force: bool) -> None:
        """End single calls; `force` leaves the batch's thread behind and hands the others back."""
        if force:
            message = "it was cancelled; its thread was left behind"
            began = {call.position: call.started_at for call in self._loop.running()}
            verdicts = {
                position: Verdict(
                    outcome=Outcome.CANCELLED, message=message, began_at=began.get(position)
                )
                for position in positions
                if position < self._loop.handed
            }
            self._drop(lambda: BatchEnded(substitute(self.spec, verdicts, self._place), ()))
            return
        self._loop.cancel_calls(positions)
        self._stop_unwanted()

    def ask(self, made: ClaimMade) -> None:
        """Ask for slots, for a call; see `SlotLine`."""
        self._tell_if_alive(SlotsAsked(self.spec.id, made))

    def leave(self, claim: int) -> None:
        """Give slots back, for a call; see `SlotLine`."""
        self._tell_if_alive(SlotsLeft(self.spec.id, claim))

    def end_call(self, position: int, error: errors.SlotLostError) -> None:
        """End a call that has lost its slots; see `SlotLine`."""
        self._loop.lose_slots(position, error)
        self._stop_unwanted()

    def _tell_if_alive(self, event: SlotsAsked | SlotsLeft) -> None:
        with self._lock:
            if not self._over:
                self._post(event)

    def _stop_unwanted(self) -> None:
        with self._lock:
            watch = self._watch
        if watch is not None:
            watch.fire_at(self._loop.unwanted_now)

    def drop(self, message: str = "") -> None:
        """Leave the batch's thread behind, whatever it does.

        Args:
            message: Posted with the end of the batch; empty: nothing is posted.
        """
        running = [call.position for call in self._loop.running()]
        lost = BatchLost(self.spec.id, Outcome.CANCELLED, message, running)
        self._drop(lambda: lost if message else None)

    def wait(self) -> None:
        """Wait until what its calls have started has ended, as far as that was begun; bounded."""
        self._offspring.wait()

    def _drop(self, end: Callable[[], BackendEvent | None]) -> None:
        first = self._is_first_end()
        self.cancel()
        if first:
            self._loop.end_offspring(FORCE_GRACE_SECONDS)
            self._ended(self)
            event = end()
            if event is not None:
                self._post(event)

    def _go_on(self) -> None:
        watch = ThreadWatch(self._alarms, grace=self._grace, ignored=self._leave_behind)
        with self._lock:
            self._watch = watch
        end: BackendEvent
        try:
            if not self._loop.run(watch):
                return
            self._minder.stop()
            self._offspring.wait()
            left = self._loop.end()
            end = BatchEnded(left.report, (Values(left.values),))
        except BaseException as error:
            # What user code raises is part of the report: this is an error of raflow's own.
            _log.exception("A batch could not be carried out")
            message = f"it could not be carried out: {message_of(error)}"
            end = BatchLost(self.spec.id, Outcome.FAILED, message, range(self.spec.size))
        if self._is_first_end():
            self._ended(self)
            self._post(end)

    def _is_first_end(self) -> bool:
        """Take note of the end of the batch; False if it has ended before."""
        with self._lock:
            first, self._over = not self._over, True
        if first:
            self._minder.stop()
        return first

    def _tell(self, call: Running) -> None:
        at, place = call.started_at, self._place
        self._post(CallStarted(self.spec.id, call.run, call.attempt, at, place.pid, place.host))

    def _give_back(self, positions: Sequence[int]) -> None:
        self._post(CallsReturned(self.spec.id, positions))

    def _leave_behind(self, position: int) -> None:
        """Give up a call that ignores its time limit, and go on with the rest on a new thread."""
        message = self._loop.leave_behind(position, _STAYS)
        if message is not None:
            _log.warning("%s The Ray backend ends the process instead.", message)
            self._start(self._go_on)


class _ByReference:
    """Everything that a batch refers to is in this process."""

    def function(self, handle: Any) -> TaskFunction:
        """Return the function of a `FunctionHandle`."""
        function = handle.payload
        assert isinstance(function, TaskFunction)
        return function

    def arguments(self, payload: Any) -> Mapping[str, Any]:
        """Return arguments, or columns of arguments."""
        assert isinstance(payload, dict)
        return payload

    def object(self, handle: Any) -> Any:
        """Return the list of values of a batch."""
        assert isinstance(handle, Values)
        return handle.entries


def value_of(source: InputSource, keeper: ResultKeeper) -> object:
    """Return a value of this process, or one that was kept.

    Raises:
        BackendError: A kept one cannot be read.
    """
    inputs = Inputs(_ByReference(), lambda entry: entry, _nothing, keeper.read)
    try:
        return inputs.value(source)
    except GoneError as error:
        raise unreadable(error) from error


def _nothing(position: int) -> object:
    raise AssertionError(f"position {position} of no batch")
