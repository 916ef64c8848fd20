"""One batch on its way through the threads of this process."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from raflow import define, errors
from raflow.execute._alarms import Alarm, Alarms
from raflow.execute._attempt import (
    Done,
    Loaded,
    Site,
    Work,
    cancelled_before_start,
    run_attempt,
    sink_for,
    timed_out_error,
)
from raflow.execute._backend import (
    BackendEvent,
    BatchEnded,
    BatchLost,
    BatchSpec,
    Call,
    CallStarted,
    TaskFunction,
    ValueRef,
)
from raflow.execute._capture import Sink
from raflow.execute._failure import describe
from raflow.execute._inputs import resolve
from raflow.execute.local._watch import ThreadWatch
from raflow.model import BatchReport, CallReport, Outcome, encode_log

ANNOUNCE_SECONDS: Final = 0.5
"""A call that runs longer than this is told to the run."""

_log = logging.getLogger(__name__)


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
        self._site = site
        self._alarms = alarms
        self._grace = grace
        self._post = post
        self._ended = ended
        self._start = start
        self._lock = threading.Lock()
        self._position = 0
        self._over = False
        self._cancelled = False
        self._watch: ThreadWatch | None = None
        self._values: list[object] = []
        self._reports: list[CallReport] = []

    def run(self) -> None:
        """Run what has not been run; called on a thread that may be left behind."""
        while not self._over and self._position < len(self.spec.calls):
            if not self._run_one(self._position):
                return
        self._finish()

    def cancel(self) -> None:
        """Ask the running code to stop, and start nothing more."""
        with self._lock:
            self._cancelled = True
            watch = self._watch
        if watch is not None:
            watch.fire(errors.TaskInterrupted())

    def drop(self, message: str = "") -> None:
        """Leave the batch's thread behind, whatever it does.

        Args:
            message: Posted with the end of the batch; empty: nothing is posted.
        """
        self.cancel()
        with self._lock:
            if self._over:
                return
            self._over = True
        self._ended(self)
        if message:
            self._post(BatchLost(self.spec.id, Outcome.CANCELLED, message))

    def _run_one(self, position: int) -> bool:
        """Run a call; False if this thread was given up meanwhile."""
        call = self.spec.calls[position]
        work = Work.of(call)
        sink = sink_for(work, self._site.environment)
        watch = ThreadWatch(self._alarms, call.timeout_seconds)
        with self._lock:
            cancelled = self._cancelled
            self._watch = watch
        if cancelled:
            return self._take(position, Done(None, cancelled_before_start(work, self._site.place)))
        alarms = self._set_alarms(position, call, sink)
        done = run_attempt(work, lambda: _load(call), sink=sink, watch=watch, site=self._site)
        for alarm in alarms:
            alarm.cancel()
        return self._take(position, done)

    def _take(self, position: int, done: Done) -> bool:
        with self._lock:
            if self._over or self._position != position:
                return False
            self._watch = None
            self._position += 1
            self._values.append(done.value)
            self._reports.append(done.report)
            return True

    def _finish(self) -> None:
        with self._lock:
            if self._over:
                return
            self._over = True
        self._ended(self)
        report = BatchReport(batch=self.spec.id, calls=tuple(self._reports))
        self._post(BatchEnded(report, self._values))

    def _set_alarms(self, position: int, call: Call, sink: Sink) -> list[Alarm]:
        started_at = time.time()
        place = self._site.place
        event = CallStarted(self.spec.id, call.run, call.attempt, started_at, place.pid, place.host)
        alarms = [self._alarms.after(ANNOUNCE_SECONDS, lambda: self._announce(position, event))]
        if call.timeout_seconds is not None:
            patience = call.timeout_seconds + self._grace
            alarms.append(
                self._alarms.after(
                    patience, lambda: self._leave_behind(position, call, started_at, sink)
                )
            )
        return alarms

    def _announce(self, position: int, event: CallStarted) -> None:
        with self._lock:
            running = not self._over and self._position == position
        if running:
            self._post(event)

    def _leave_behind(self, position: int, call: Call, started_at: float, sink: Sink) -> None:
        """Give up a call that ignores its time limit, and go on with the rest on a new thread."""
        function = _function(call)
        error = timed_out_error(
            function.name,
            call.timeout_seconds,
            " Its thread does not stop: the local backend runs tasks in threads, which cannot be "
            "ended inside a call into C, so it goes on in the background.",
        )
        report = CallReport(
            run=call.run,
            attempt=call.attempt,
            outcome=Outcome.TIMED_OUT,
            started_at=started_at,
            ended_at=time.time(),
            pid=self._site.place.pid,
            host=self._site.place.host,
            node_id=self._site.place.node_id,
            message=error.message,
            error=describe(error, self._site.pickling),
            logs=encode_log(sink.close()),
        )
        if self._take(position, Done(None, report)):
            _log.warning("%s The Ray backend ends the process instead.", error.message)
            self._start(self.run)


def _function(call: Call) -> TaskFunction:
    function = call.function.payload
    assert isinstance(function, TaskFunction)
    return function


def _load(call: Call) -> Loaded:
    values = {hole: resolve(source, value_at) for hole, source in call.inputs.items()}
    arguments: dict[str, object] = {}
    for packed in call.arguments:
        assert isinstance(packed.payload, dict)
        arguments |= define.fill(packed.payload, values)
    return Loaded(_function(call), arguments)


def value_at(value: ValueRef) -> object:
    """Return a value of this process."""
    values = value.handle
    assert isinstance(values, list)
    return values[value.position]
