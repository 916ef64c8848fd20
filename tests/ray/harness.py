"""Drives a backend as the runtime does, one batch at a time."""

from __future__ import annotations

import inspect
import itertools
import queue
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from raflow import define, results
from raflow.execute import (
    Backend,
    BackendEvent,
    BatchEnded,
    BatchLost,
    BatchSpec,
    Call,
    CallStarted,
    InputSource,
    Known,
    RunEnvironment,
    TaskFunction,
    ValueRef,
)
from raflow.model import CallReport, LogLine, Resources, ResultPolicy, TaskRunKey, decode_log

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0


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
        keeper = results.Keeper(
            flow_run_id="run-1", storage=str(storage), signing_key=b"0" * 32, base=str(storage)
        )
        shared = RunEnvironment(
            flow_run_id="run-1",
            flow="testing",
            flow_run_name="brave-test",
            keeper=keeper,
            sys_path=sys_path,
        )
        self.started: list[CallStarted] = []
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
        timeout: float | None = None,
        attempt: int = 1,
        policy: ResultPolicy | None = None,
        log_prints: bool = True,
    ) -> Call:
        """Make a call; `inputs` are arguments that are futures."""
        function = fn if isinstance(fn, TaskFunction) else task_of(fn)
        holes = {name: define.Hole(edge) for edge, name in enumerate(inputs or {})}
        handle = self.session.register(function)
        packed = self.session.pack(function.name, {**(arguments or {}), **holes})
        return Call(
            run=TaskRunKey(next(self._nodes)),
            attempt=attempt,
            function=handle,
            arguments=(packed,),
            inputs=dict(enumerate((inputs or {}).values())),
            label=function.name,
            result=policy or ResultPolicy(),
            timeout_seconds=timeout,
            log_prints=log_prints,
        )

    def submit(self, *calls: Call, resources: Resources | None = None) -> int:
        """Send calls as one batch; returns its id."""
        batch = next(self._ids)
        self.session.submit(BatchSpec(id=batch, calls=calls, resources=resources or Resources()))
        return batch

    def end_of(self, batch: int, patience: float = PATIENCE) -> BatchEnded | BatchLost:
        """Wait for the end of a batch."""
        deadline = time.monotonic() + patience
        while batch not in self._ends:
            self._pump(deadline)
        return self._ends[batch]

    def start_of(self, batch: int) -> CallStarted:
        """Wait until a batch says that a call has begun."""
        deadline = time.monotonic() + PATIENCE
        while True:
            for event in self.started:
                if event.batch == batch:
                    return event
            self._pump(deadline)

    def _pump(self, deadline: float) -> None:
        event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
        match event:
            case CallStarted():
                self.started.append(event)
            case BatchEnded(report, _):
                assert report.batch not in self._ends
                self._ends[report.batch] = event
            case BatchLost(batch, _, _):
                assert batch not in self._ends
                self._ends[batch] = event

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
        """Tell whether nothing comes for a while."""
        try:
            self._pump(time.monotonic() + seconds)
        except queue.Empty:
            return True
        return False

    def report(self, *args: Any, **kwargs: Any) -> CallReport:
        """Run one call and return its report."""
        [report] = self.finish(self.submit(self.call(*args, **kwargs))).report.calls
        return report

    def value(self, *args: Any, **kwargs: Any) -> ValueRef:
        """Run one call that succeeds and return its value's place."""
        end = self.finish(self.submit(self.call(*args, **kwargs)))
        assert end.report.calls[0].outcome == "completed", end.report.calls[0]
        return ValueRef(end.values, 0)

    def close(self) -> None:
        """End the run."""
        self.session.close()


def lines(report: CallReport) -> list[LogLine]:
    """Return what a call wrote."""
    return decode_log(report.logs)


def known(value: object) -> Known:
    """An input that the driver has."""
    return Known(value)
