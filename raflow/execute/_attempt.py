"""How one call ends: what its exception, or its value, means for the task run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from raflow import errors
from raflow.execute._backend import RunEnvironment, TaskFunction
from raflow.execute._failure import Pickling, describe, message_of
from raflow.execute._offspring import Offspring
from raflow.execute._slots import BatchSlots
from raflow.execute._usage import Meter
from raflow.model import ErrorInfo, Outcome, Place, ResultInfo

_log = logging.getLogger(__name__)


class Watch(Protocol):
    """Ends the user code of a batch from outside, on the thread that runs it.

    `armed` and `fired` are read and written without a lock: the loop arms, then looks at `fired`;
    whoever fires sets `fired`, then looks at `armed`.
    """

    armed: bool
    """Set by the loop just before user code, and reset just after."""
    fired: errors.Interruption | None
    """Why the code was asked to stop, if it was."""
    aimed: int | None
    """The only call that was asked to stop; None: all were."""

    def check(self, position: int) -> None:
        """Raise what was fired, if it was meant for this call; called armed."""

    def forget(self) -> None:
        """Forget what was fired at a single call: it has ended."""

    def enter(self) -> None:
        """Begin on this thread."""

    def leave(self) -> None:
        """End: nothing is raised by the watch any more."""

    def settle(self) -> None:
        """Wait out what has been fired; called unarmed, on the watched thread.

        On return nothing that was fired is still on its way.
        """

    def limit(
        self, seconds: float | None, position: int, may_stop: Callable[[], bool] | None = None
    ) -> None:
        """Begin a time limit, or (None) end it and forget that it has fired.

        Args:
            seconds: From now; then `TimeLimitReached` is fired.
            position: The call that it is for; with None, -1 says that no other one follows at once.
            may_stop: Asked, from any thread, whether what runs now may be stopped; if not, it is
                asked again a little later. Default: it always may.
        """

    def on_loop(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        """From now on stop the code by cancelling this task; time limits still raise."""

    def off_loop(self) -> None:
        """From now on stop the code by raising again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What a process brings to the calls that it runs for one flow run.

    An entry is a value in the form in which it leaves the process. Values of `model.PLAIN_TYPES`
    are entries as they are.
    """

    environment: RunEnvironment
    place: Place
    meter: Meter
    pickling: Pickling
    freeze: Callable[[object, bool], object]
    """Makes the entry of a value, and raises if it cannot leave. The flag says that nothing else
    will run before the entry leaves, so that it may share memory with the value."""
    thaw: Callable[[Any], object]
    """Makes a value of an entry, each time a new one."""
    size: Callable[[Any], int] | None
    """Bytes of an entry; None where values stay in the process."""
    whole_process: bool
    """Whether the process runs one batch at a time."""
    offspring: Offspring
    """Ends the processes that calls have started."""
    slots: Callable[[], BatchSlots | None] = lambda: None
    """Returns where the calls of the batch that runs now have slots of limits."""
    heed: Callable[[BaseException], None] = lambda _: None
    """Takes what has ended a call; does not return if that is meant for the whole process."""


@dataclass(slots=True, kw_only=True)
class Ending:
    """How a call ended."""

    outcome: Outcome
    message: str = ""
    error: ErrorInfo | None = None
    retriable: bool = True
    result: ResultInfo | None = None
    lost_inputs: tuple[int, ...] = ()


class Who(NamedTuple):
    """Whose ending it is."""

    task: str
    """Name of the task; of the run where the task could not be loaded."""
    function: TaskFunction | None
    timeout_seconds: float | None
    pickling: Pickling


def ending_of(error: BaseException, fired: errors.Interruption | None, who: Who) -> Ending:
    """Say what an exception of user code means.

    Args:
        error: The exception.
        fired: Why the code was asked to stop, if it was.
        who: Whose code it was.
    """
    if isinstance(fired, errors.TimeLimitReached):
        # Whatever the code made of the interruption, it ran longer than it may.
        return timed_out(error, who)
    if isinstance(fired, errors.TaskInterrupted) or isinstance(
        error, errors.TaskInterrupted | KeyboardInterrupt
    ):
        return Ending(outcome=Outcome.CANCELLED, message="it was interrupted while it ran")
    if isinstance(error, errors.SkipTask):
        return Ending(outcome=Outcome.SKIPPED, message=message_of(error))
    if isinstance(error, errors.SlotLostError):
        return slotless(error, who)
    return failed(error, who)


def slotless(error: errors.SlotLostError, who: Who) -> Ending:
    """Describe a call that could not go on because its slots were somebody else's."""
    info = describe(error, who.pickling)
    return Ending(outcome=Outcome.LOST, message=error.message, error=info)


def failed(error: BaseException, who: Who) -> Ending:
    """Describe a failure, and ask whether trying again can help."""
    info = describe(error, who.pickling)
    return Ending(
        outcome=Outcome.FAILED,
        message=info.message,
        error=info,
        retriable=_retriable(error, who),
    )


def timed_out(interruption: BaseException | None, who: Who, more: str = "") -> Ending:
    """Describe a call that took too long; `interruption` is what ended it."""
    assert who.timeout_seconds is not None
    error = errors.TaskTimedOutError(
        f"Task {who.task!r} ran longer than its timeout_seconds={who.timeout_seconds:g} and was "
        f"ended.{more} Allow more time, or make the task smaller.",
        task=who.task,
    )
    if interruption is not None:
        error.__traceback__ = interruption.__traceback__
    return Ending(
        outcome=Outcome.TIMED_OUT,
        message=error.message,
        error=describe(error, who.pickling),
        retriable=_retriable(error, who),
    )


def unserializable(value: object, error: BaseException, task: str) -> errors.RaflowError:
    """Say that a value cannot leave the process."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    made = errors.UnserializableResultError(
        f"Task {task!r} returned a {kind}, which cannot be sent to another process: "
        f"{_said(error)}. Return plain data, or what is needed to make the object again "
        "(a path, a URL, parameters).",
        task=task,
        type=kind,
    )
    made.__cause__ = error
    return made


def _said(error: BaseException) -> str:
    """Return what an exception says; with its type where that alone would tell too little."""
    message = message_of(error)
    telling = message and isinstance(error, Exception)
    return message if telling else f"{type(error).__name__} {message}".rstrip()


def not_kept(error: errors.RaflowError, task: str) -> errors.RaflowError:
    """Say whose result could not be kept."""
    named = type(error)(f"Task {task!r}: its result could not be kept: {error}", **error.details)
    named.__cause__ = error
    return named


def _retriable(error: BaseException, who: Who) -> bool:
    condition = who.function.retry_condition_fn if who.function else None
    if condition is None:
        return True
    try:
        return bool(condition(who.task, error))
    except Exception:
        _log.exception("retry_condition_fn of the task %r failed; the run is not retried", who.task)
        return False
