"""One attempt of one task run, from its arguments to its report; the same on every backend."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from raflow import define, errors
from raflow.execute._backend import Call, RunEnvironment, TaskFunction
from raflow.execute._capture import Sink, Sinking
from raflow.execute._failure import Pickling, describe, message_of
from raflow.execute._usage import Meter, Place
from raflow.model import (
    CallReport,
    ErrorInfo,
    Outcome,
    ResultInfo,
    ResultPolicy,
    TaskRunKey,
    encode_log,
)

_log = logging.getLogger(__name__)


class Work(NamedTuple):
    """What the process that runs an attempt has to know about it."""

    run: TaskRunKey
    attempt: int
    label: str
    result: ResultPolicy
    timeout_seconds: float | None
    log_prints: bool

    @classmethod
    def of(cls, call: Call) -> Work:
        """Take it from a call."""
        return cls(
            call.run, call.attempt, call.label, call.result, call.timeout_seconds, call.log_prints
        )


class Loaded(NamedTuple):
    """What is called, and with what."""

    function: TaskFunction
    arguments: Mapping[str, Any]
    """By parameter name, holes filled."""


class Watch(Protocol):
    """Ends an attempt from outside; a context manager around its user code."""

    fired: errors.Interruption | None
    """Why the code was asked to stop, if it was."""

    def __enter__(self) -> object:
        """Begin to watch."""

    def __exit__(self, *exc: object) -> None:
        """Stop watching: nothing is raised by the watch any more."""

    def hand_over(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        """From now on stop the attempt by cancelling this task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a process brings to the attempts that it runs for one flow run."""

    environment: RunEnvironment
    place: Place
    meter: Meter
    pickling: Pickling
    freeze: Callable[[object], object]
    """Puts a value in the form in which it leaves the process; raises if it cannot leave."""
    whole_process: bool
    """Whether the process runs one attempt at a time."""


class Done(NamedTuple):
    """What an attempt leaves."""

    value: object
    """The frozen value; None unless the attempt is COMPLETED."""
    report: CallReport


@dataclass(slots=True, kw_only=True)
class _Ending:
    outcome: Outcome
    label: str = ""
    value: object = None
    result: ResultInfo | None = None
    message: str = ""
    error: ErrorInfo | None = None
    retriable: bool = True


def sink_for(work: Work, environment: RunEnvironment) -> Sink:
    """Make the sink for an attempt's output."""
    return Sink(prints=work.log_prints, level=environment.log_level)


def run_attempt(
    work: Work, load: Callable[[], Loaded], *, sink: Sink, watch: Watch, site: Site
) -> Done:
    """Run user code and tell how it went; raises nothing that user code raised.

    Args:
        work: Which attempt this is.
        load: Makes function and arguments ready; what it raises fails the attempt.
        sink: Takes its output.
        watch: Ends the attempt at its time limit, or when it is cancelled.
        site: Where this is.
    """
    started_at = time.time()
    cpu = site.meter.start()
    with Sinking(sink, whole_process=site.whole_process):
        ending = _Attempt(work, watch, site).run(load)
    used = site.meter.stop(cpu)
    report = CallReport(
        run=work.run,
        attempt=work.attempt,
        outcome=ending.outcome,
        started_at=started_at,
        ended_at=max(started_at, time.time()),
        cpu_seconds=used.cpu_seconds,
        peak_memory=used.peak_memory,
        pid=site.place.pid,
        host=site.place.host,
        node_id=site.place.node_id,
        message=ending.message,
        error=ending.error,
        retriable=ending.retriable,
        result=ending.result,
        label=ending.label,
        logs=encode_log(sink.close()),
    )
    return Done(ending.value, report)


def cancelled_before_start(work: Work, place: Place) -> CallReport:
    """Report a call whose user code never began, because its batch was cancelled."""
    now = time.time()
    return CallReport(
        run=work.run,
        attempt=work.attempt,
        outcome=Outcome.CANCELLED,
        started_at=now,
        ended_at=now,
        pid=place.pid,
        host=place.host,
        node_id=place.node_id,
        message="it was cancelled before it started",
    )


def timed_out_error(task: str, limit: float | None, more: str = "") -> errors.TaskTimedOutError:
    """Say that a task took too long."""
    return errors.TaskTimedOutError(
        f"Task {task!r} ran longer than its timeout_seconds={limit:g} and was ended.{more} "
        "Allow more time, or make the task smaller.",
        task=task,
    )


class _Attempt:
    def __init__(self, work: Work, watch: Watch, site: Site) -> None:
        self._work = work
        self._watch = watch
        self._site = site
        self._label = ""
        self._loaded: Loaded | None = None

    def run(self, load: Callable[[], Loaded]) -> _Ending:
        try:
            with self._watch:
                self._loaded = load()
                ending = self._call(self._loaded)
        except BaseException as error:
            ending = self._failure(error)
        ending.label = self._label
        if isinstance(self._watch.fired, errors.TimeLimitReached):
            # Whatever the code made of the interruption, it ran longer than it may.
            if ending.outcome is not Outcome.TIMED_OUT:
                ending = self._timed_out(self._watch.fired)
        elif ending.outcome is Outcome.COMPLETED:
            ending = self._keep(ending)
        return ending

    def _call(self, loaded: Loaded) -> _Ending:
        function, arguments = loaded
        self._label = self._name_run(function, arguments)
        args, kwargs = function.form.apply(arguments)
        token = define.active_task.set(self._context(function))
        try:
            if function.run_if is not None and not function.run_if(*args, **kwargs):
                return _Ending(outcome=Outcome.SKIPPED, message="its run_if returned a false value")
            value = function.fn(*args, **kwargs)
            if inspect.iscoroutine(value):
                value = asyncio.run(_until_done(value, self._watch))
        finally:
            define.active_task.reset(token)
        return _Ending(outcome=Outcome.COMPLETED, value=value)

    def _name_run(self, function: TaskFunction, arguments: Mapping[str, Any]) -> str:
        if function.task_run_name is None:
            return ""
        try:
            return function.task_run_name(arguments)
        except Exception:
            _log.exception(
                "task_run_name of the task %r failed; the run keeps its default name", function.name
            )
            return ""

    def _context(self, function: TaskFunction) -> define.TaskRunContext:
        environment = self._site.environment
        return define.TaskRunContext(
            flow_run_id=environment.flow_run_id,
            flow=environment.flow,
            flow_run_name=environment.flow_run_name,
            task=function.name,
            label=self._label or self._work.label,
            run=self._work.run,
            attempt=self._work.attempt,
            parameters=environment.parameters,
        )

    def _keep(self, ending: _Ending) -> _Ending:
        value, work = ending.value, self._work
        try:
            ending.value = self._site.freeze(value)
        except Exception as error:
            return self._failed(self._unserializable(value, error))
        keeper = self._site.environment.keeper
        try:
            ending.result = keeper.keep(value, work.result, run=work.run, attempt=work.attempt)
        except errors.RaflowError as error:
            return self._failed(self._about(error, "its result could not be kept"))
        return ending

    def _about(self, error: errors.RaflowError, what: str) -> errors.RaflowError:
        named = type(error)(f"Task {self._task!r}: {what}: {error}", **error.details)
        named.__cause__ = error
        return named

    def _unserializable(self, value: object, error: Exception) -> errors.RaflowError:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        unserializable = errors.UnserializableResultError(
            f"Task {self._task!r} returned a {kind}, which cannot be sent to another process: "
            f"{message_of(error)}. Return plain data, or what is needed to make the object again "
            "(a path, a URL, parameters).",
            task=self._task,
            type=kind,
        )
        unserializable.__cause__ = error
        return unserializable

    def _failure(self, error: BaseException) -> _Ending:
        fired = self._watch.fired
        if isinstance(fired, errors.TimeLimitReached):
            return self._timed_out(error)
        if isinstance(fired, errors.TaskInterrupted) or isinstance(
            error, errors.TaskInterrupted | KeyboardInterrupt
        ):
            return _Ending(outcome=Outcome.CANCELLED, message="it was interrupted while it ran")
        if isinstance(error, errors.SkipTask):
            return _Ending(outcome=Outcome.SKIPPED, message=message_of(error))
        return self._failed(error)

    def _failed(self, error: BaseException) -> _Ending:
        info = describe(error, self._site.pickling)
        return _Ending(
            outcome=Outcome.FAILED,
            label=self._label,
            message=info.message,
            error=info,
            retriable=self._retriable(error),
        )

    def _timed_out(self, interruption: BaseException) -> _Ending:
        error = timed_out_error(self._task, self._work.timeout_seconds)
        error.__traceback__ = interruption.__traceback__
        return _Ending(
            outcome=Outcome.TIMED_OUT,
            label=self._label,
            message=error.message,
            error=describe(error, self._site.pickling),
            retriable=self._retriable(error),
        )

    def _retriable(self, error: BaseException) -> bool:
        condition = self._loaded.function.retry_condition_fn if self._loaded else None
        if condition is None:
            return True
        try:
            return bool(condition(self._task, error))
        except Exception:
            _log.exception(
                "retry_condition_fn of the task %r failed; the run is not retried", self._task
            )
            return False

    @property
    def _task(self) -> str:
        return self._loaded.function.name if self._loaded else self._work.label


async def _until_done(work: Coroutine[Any, Any, object], watch: Watch) -> object:
    task = asyncio.current_task()
    assert task is not None
    watch.hand_over(asyncio.get_running_loop(), task)
    return await work
