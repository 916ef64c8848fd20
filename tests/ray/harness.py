"""Drives a backend as the runtime does, one batch at a time."""

from __future__ import annotations

import inspect
import itertools
import os
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from raflow import define, results
from raflow.execute import (
    Backend,
    BackendEvent,
    BackendGone,
    BatchEnded,
    BatchLost,
    BatchSpec,
    Call,
    CallSettings,
    CallsHeldUp,
    CallsReturned,
    CallStarted,
    InputSource,
    Known,
    RunEnvironment,
    TaskFunction,
    ValueRef,
)
from raflow.model import (
    BatchReport,
    CallReport,
    Chunk,
    LogLine,
    Outcome,
    Resources,
    ResultPolicy,
    TaskRunKey,
    decode_log,
)
from tests.waiting import PATIENCE_SECONDS

E = TypeVar("E", CallStarted, CallsReturned)

ROOT = Path(__file__).parents[2]
_numbers = itertools.count()


def task_of(fn: Callable[..., Any], **more: Any) -> TaskFunction:
    """Describe a plain function as a task."""
    name = getattr(fn, "__name__", "task")
    form = define.CallForm.of(inspect.signature(fn))
    return TaskFunction(name=name, key=f"{fn.__module__}.{name}", fn=fn, form=form, **more)


class Run:
    """A flow run on a backend."""

    def __init__(
        self, backend: Backend, storage: Path, sys_path: tuple[str, ...] = (str(ROOT),)
    ) -> None:
        # What a call starts is found on the whole machine, by the id of its run.
        self.id = f"run-{os.getpid()}-{next(_numbers)}"
        keeper = results.Keeper(
            flow_run_id=self.id, storage=str(storage), signing_key=b"0" * 32, base=str(storage)
        )
        shared = RunEnvironment(
            flow_run_id=self.id,
            flow="testing",
            flow_run_name="brave-test",
            keeper=keeper,
            sys_path=sys_path,
        )
        self.started: list[CallStarted] = []
        self.returned: list[CallsReturned] = []
        self.reasons: list[str] = []
        """Why calls were told to be held up; empty: not any more."""
        self._gone: list[BackendGone] = []
        self._specs: dict[int, BatchSpec] = {}
        self._events: queue.SimpleQueue[BackendEvent] = queue.SimpleQueue()
        self._ends: dict[int, BatchEnded | BatchLost] = {}
        self._ids = itertools.count()
        self._nodes = itertools.count()
        self.session = backend.open(shared, self._events.put)

    def call(
        self,
        fn: Callable[..., Any] | TaskFunction,
        arguments: Mapping[str, Any] | None = None,
        *,
        inputs: Mapping[str, InputSource] | None = None,
        items: Mapping[str, Sequence[Any]] | None = None,
        length: int = 0,
        timeout: float | None = None,
        attempt: int = 1,
        policy: ResultPolicy | None = None,
        log_prints: bool = True,
        concurrency: int = 1,
    ) -> Call:
        """Make a call; `inputs` are arguments that are futures.

        With `items`, or a `length`, it is a chunk of a map that begins at item 0.
        """
        function = fn if isinstance(fn, TaskFunction) else task_of(fn)
        holes = {name: define.Hole(edge) for edge, name in enumerate(inputs or {})}
        handle = self.session.register(function)
        packed = self.session.pack(function.name, {**(arguments or {}), **holes})
        own = self.session.pack_items(function.name, items) if items else None
        length = len(next(iter(items.values()))) if items else length
        node = next(self._nodes)
        return Call(
            chunk=Chunk(node, 0, length, attempt) if length else Chunk(node, attempt=attempt),
            function=handle,
            arguments=packed,
            items=own,
            inputs=dict(enumerate((inputs or {}).values())),
            key=function.name,
            settings=CallSettings(
                result=policy or ResultPolicy(),
                timeout_seconds=timeout,
                log_prints=log_prints,
                concurrency=concurrency,
            ),
        )

    def submit(
        self,
        *calls: Call,
        resources: Resources | None = None,
        budget: float = 3600.0,
        own_values: int = 1,
    ) -> int:
        """Send calls as one batch; returns its id."""
        spec = BatchSpec(
            id=next(self._ids),
            calls=calls,
            resources=resources or Resources(),
            budget=budget,
            own_values=own_values,
        )
        self._specs[spec.id] = spec
        self.session.submit(spec)
        return spec.id

    def end_of(self, batch: int, patience: float = PATIENCE_SECONDS) -> BatchEnded | BatchLost:
        """Wait for the end of a batch."""
        deadline = time.monotonic() + patience
        while batch not in self._ends:
            self._pump(deadline)
        return self._ends[batch]

    def start_of(self, batch: int) -> CallStarted:
        """Wait until a batch says that a call has begun."""
        return self._first(self.started, batch)

    def return_of(self, batch: int) -> CallsReturned:
        """Wait until a batch that goes on hands calls back."""
        return self._first(self.returned, batch)

    def _first(self, events: Sequence[E], batch: int) -> E:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            for event in events:
                if event.batch == batch:
                    return event
            self._pump(deadline)

    def _pump(self, deadline: float) -> None:
        event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
        match event:
            case CallStarted():
                self.started.append(event)
            case CallsReturned(batch, _):
                assert batch not in self._ends
                self.returned.append(event)
            case BatchEnded(report, _):
                assert report.batch not in self._ends
                self._ends[report.batch] = event
            case CallsHeldUp(reason):
                self.reasons.append(reason)
            case BackendGone():
                assert not self._gone
                self._gone.append(event)
            case BatchLost(batch):
                assert batch not in self._ends
                self._ends[batch] = event

    def gone(self) -> BackendGone:
        """Wait until the backend is told to be gone."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self._gone:
            self._pump(deadline)
        return self._gone[0]

    def finish(self, batch: int) -> BatchEnded:
        """Wait for the report of a batch."""
        end = self.end_of(batch)
        assert isinstance(end, BatchEnded), end
        return end

    def lose(self, batch: int) -> BatchLost:
        """Wait for a batch to end without a report."""
        end = self.end_of(batch)
        assert isinstance(end, BatchLost), end
        return end

    def quiet(self, seconds: float) -> bool:
        """Tell whether nothing ends for a while; that a call has begun may be told late."""
        ended, deadline = len(self._ends), time.monotonic() + seconds
        try:
            while len(self._ends) == ended:
                self._pump(deadline)
        except queue.Empty:
            return True
        return False

    def reports(self, batch: int) -> list[CallReport]:
        """Wait for the report of a batch, and return what it says about each call."""
        report = self.finish(batch).report
        chunks = [call.chunk for call in self._specs[batch].calls]
        runs = [(chunk.key(i), chunk.attempt) for chunk in chunks for i in range(chunk.size)]
        return [_about(report, i, run, attempt) for i, (run, attempt) in enumerate(runs)]

    def report(self, *args: Any, **kwargs: Any) -> CallReport:
        """Run one call and return its report."""
        [report] = self.reports(self.submit(self.call(*args, **kwargs)))
        return report

    def ref(self, batch: int, position: int = 0) -> ValueRef:
        """Wait for a batch and return the place of a value."""
        end = self.finish(batch)
        own = end.report.own.get(position)
        return ValueRef(end.values[0], position) if own is None else ValueRef(end.values[own], -1)

    def fetch(self, batch: int, position: int = 0) -> Any:
        """Wait for a batch and return a value."""
        return self.session.fetch(self.ref(batch, position))

    def forget(self, batch: int) -> None:
        """Drop what is known of a batch, and the handles of its values."""
        del self._ends[batch], self._specs[batch]

    def value(self, *args: Any, **kwargs: Any) -> ValueRef:
        """Run one call that succeeds and return its value's place."""
        batch = self.submit(self.call(*args, **kwargs))
        [report] = self.reports(batch)
        assert report.outcome is Outcome.COMPLETED, report
        return self.ref(batch)

    def close(self) -> None:
        """End the run."""
        self.session.close()


def _about(report: BatchReport, position: int, run: TaskRunKey, attempt: int) -> CallReport:
    assert position not in report.unstarted
    if position in report.told:
        assert report.told[position].run == run
        return report.told[position]
    return CallReport(
        run=run,
        attempt=attempt,
        outcome=Outcome.COMPLETED,
        started_at=report.started_at[position],
        ended_at=report.ended_at[position],
        cpu_seconds=report.cpu_seconds[position],
        peak_memory=report.peak_memory,
        pid=report.place.pid,
        host=report.place.host,
        node_id=report.place.node_id,
        result=report.results.get(position),
    )


def lines(report: CallReport) -> list[LogLine]:
    """Return what a call wrote."""
    return decode_log(report.logs)


def known(value: object) -> Known:
    """An input that the driver has."""
    return Known(value)
