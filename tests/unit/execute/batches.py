"""Runs batches through the loop, without a backend."""

from __future__ import annotations

import functools
import inspect
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cloudpickle

from raflow import define, errors, results
from raflow.execute import (
    Call,
    CallSettings,
    FunctionHandle,
    InputSource,
    Packed,
    RunEnvironment,
    TaskFunction,
)
from raflow.execute._attempt import Site
from raflow.execute._capture import Capture
from raflow.execute._course import Ended
from raflow.execute._failure import Pickling
from raflow.execute._jobs import jobs_of
from raflow.execute._loop import BatchLoop
from raflow.execute._offspring import Offspring, of_process
from raflow.execute._usage import ProcessMeter, here
from raflow.model import CallReport, Chunk, LogLine, ResultPolicy, decode_log

SETTINGS = CallSettings(ResultPolicy())


class StillWatch:
    """Watches, and ends nothing by itself; a test may fire it."""

    def __init__(self) -> None:
        self.armed = False
        self.fired: errors.Interruption | None = None
        self.aimed: int | None = None
        self.limits: list[tuple[float | None, int]] = []

    def enter(self) -> None:
        pass

    def leave(self) -> None:
        assert not self.armed

    def settle(self) -> None:
        assert not self.armed

    def check(self, position: int) -> None:
        assert self.armed
        if self.fired is not None:
            raise self.fired

    def forget(self) -> None:
        assert self.aimed is None

    def limit(
        self, seconds: float | None, position: int, may_stop: Callable[[], bool] | None = None
    ) -> None:
        self.limits.append((seconds, position))
        if isinstance(self.fired, errors.TimeLimitReached):
            self.fired = None

    def on_loop(self, loop: object, task: object) -> None:
        pass

    def off_loop(self) -> None:
        pass


class FakeLoader:
    """Everything is in this process; handles are what they stand for."""

    def __init__(self) -> None:
        self.objects: dict[Any, Any] = {}

    def function(self, handle: Any) -> TaskFunction:
        if isinstance(handle.payload, Exception):
            raise handle.payload
        found: TaskFunction = handle.payload
        return found

    def arguments(self, payload: Any) -> Mapping[str, Any]:
        found: Mapping[str, Any] = pickle.loads(payload) if isinstance(payload, bytes) else payload
        return found

    def object(self, handle: Any) -> Any:
        return self.objects[handle]


def site(**more: Any) -> Site:
    keeper = results.Keeper(flow_run_id="run-1", storage="memory://", signing_key=b"0" * 32)
    environment = RunEnvironment(
        flow_run_id="run-1", flow="testing", flow_run_name="brave-test", keeper=keeper
    )
    given: dict[str, Any] = {
        "environment": environment,
        "place": here("node"),
        "meter": ProcessMeter(),
        "pickling": Pickling(cloudpickle.dumps, pickle.loads),
        "freeze": lambda value, _: cloudpickle.dumps(value),
        "thaw": pickle.loads,
        "size": len,
        "whole_process": True,
        "offspring": Offspring(of_process),
    }
    return Site(**given | more)


@functools.cache
def handle(fn: Callable[..., Any], **more: Any) -> FunctionHandle:
    name = getattr(fn, "__name__", "task")
    form = define.CallForm.of(inspect.signature(fn))
    return FunctionHandle(
        f"{name}{id(fn)}{more}", TaskFunction(name=name, key=name, fn=fn, form=form, **more)
    )


def single(
    node: int,
    fn: Callable[..., Any],
    arguments: Mapping[str, Any] | None = None,
    *,
    inputs: Mapping[int, InputSource] | None = None,
    settings: CallSettings = SETTINGS,
    attempt: int = 1,
    **more: Any,
) -> Call:
    """Make a single call."""
    return Call(
        Chunk(node, attempt=attempt),
        handle(fn, **more),
        Packed(dict(arguments or {})),
        None,
        inputs or {},
        f"{getattr(fn, '__name__', 'task')}-{node}",
        settings,
    )


def chunk(
    node: int,
    fn: Callable[..., Any],
    columns: Mapping[str, Sequence[Any]],
    *,
    size: int | None = None,
    start: int = 0,
    shared: Mapping[str, Any] | None = None,
    inputs: Mapping[int, InputSource] | None = None,
    settings: CallSettings = SETTINGS,
    **more: Any,
) -> Call:
    """Make a chunk of a map."""
    length = size if size is not None else len(next(iter(columns.values())))
    return Call(
        Chunk(node, start, start + length),
        handle(fn, **more),
        Packed(dict(shared or {})),
        Packed(pickle.dumps(dict(columns))) if columns else None,
        inputs or {},
        f"{getattr(fn, '__name__', 'task')}-{node}",
        settings,
    )


def loop_of(
    *calls: Call, budget: float = 60.0, loader: FakeLoader | None = None, **more: Any
) -> BatchLoop:
    given = {"site": site()} | more
    return BatchLoop(7, jobs_of(calls), loader or FakeLoader(), budget=budget, **given)


def run(*calls: Call, watch: StillWatch | None = None, **more: Any) -> Ended:
    """Run a batch to its end."""
    loop = loop_of(*calls, **more)
    with Capture(20):
        assert loop.run(watch or StillWatch())
        return loop.end()


def outcomes(ended: Ended) -> list[str]:
    """Return how each call ended; `unstarted` for those handed back."""
    report = ended.report
    told = {position: call.outcome.value for position, call in report.told.items()}
    left = set(report.unstarted)
    return [
        "unstarted" if position in left else told.get(position, "completed")
        for position in range(len(report.started_at))
    ]


def lines(report: CallReport) -> list[LogLine]:
    return decode_log(report.logs)


def texts(ended: Ended) -> dict[int, list[str]]:
    """Return what each call wrote, by position."""
    found = {position: lines(call) for position, call in ended.report.told.items()}
    return {position: [line.text for line in written] for position, written in found.items()}
