"""States of flow runs and task runs, and the two tables of their transitions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum, auto, unique
from types import MappingProxyType
from typing import Final

from raflow import errors


@unique
class StateType(StrEnum):
    """What kind of state it is; decides what may happen next."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CRASHED = "CRASHED"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"

    @property
    def is_final(self) -> bool:
        """Whether nothing can follow."""
        return self in FINAL_TYPES


FINAL_TYPES: Final = frozenset(
    {
        StateType.COMPLETED,
        StateType.FAILED,
        StateType.CRASHED,
        StateType.CANCELLED,
        StateType.SKIPPED,
    }
)


@unique
class StateName(StrEnum):
    """What people read; refines the type."""

    SCHEDULED = "Scheduled"
    AWAITING_RETRY = "AwaitingRetry"
    PENDING = "Pending"
    SUBMITTED = "Submitted"
    RUNNING = "Running"
    RETRYING = "Retrying"
    CANCELLING = "Cancelling"
    COMPLETED = "Completed"
    RECOVERED = "Recovered"
    FAILED = "Failed"
    TIMED_OUT = "TimedOut"
    UPSTREAM_FAILED = "UpstreamFailed"
    CRASHED = "Crashed"
    OUT_OF_MEMORY = "OutOfMemory"
    LOST = "Lost"
    CANCELLED = "Cancelled"
    SKIPPED = "Skipped"

    @property
    def type(self) -> StateType:
        """The type that this name refines."""
        return TYPE_OF[self]


TYPE_OF: Final[Mapping[StateName, StateType]] = MappingProxyType(
    {
        StateName.SCHEDULED: StateType.SCHEDULED,
        StateName.AWAITING_RETRY: StateType.SCHEDULED,
        StateName.PENDING: StateType.PENDING,
        StateName.SUBMITTED: StateType.PENDING,
        StateName.RUNNING: StateType.RUNNING,
        StateName.RETRYING: StateType.RUNNING,
        StateName.CANCELLING: StateType.CANCELLING,
        StateName.COMPLETED: StateType.COMPLETED,
        StateName.RECOVERED: StateType.COMPLETED,
        StateName.FAILED: StateType.FAILED,
        StateName.TIMED_OUT: StateType.FAILED,
        StateName.UPSTREAM_FAILED: StateType.FAILED,
        StateName.CRASHED: StateType.CRASHED,
        StateName.OUT_OF_MEMORY: StateType.CRASHED,
        StateName.LOST: StateType.CRASHED,
        StateName.CANCELLED: StateType.CANCELLED,
        StateName.SKIPPED: StateType.SKIPPED,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where a run stands."""

    name: StateName
    """What people read; its `type` decides what may happen next."""
    at: float
    """When the run entered the state: seconds since the Unix epoch, UTC."""
    message: str = ""
    """What happened, in words; empty when the name says it all."""
    reason: str = ""
    """While waiting: for what, in words a person can act on."""

    @property
    def type(self) -> StateType:
        """The type that the name refines."""
        return self.name.type

    @property
    def is_final(self) -> bool:
        """Whether nothing can follow."""
        return self.name.type.is_final


@unique
class TaskRunEvent(StrEnum):
    """What can happen to a task run."""

    SUBMITTED = auto()
    HANDED_BACK = auto()
    STARTED = auto()
    SUCCEEDED = auto()
    RECOVERED = auto()
    FAILED = auto()
    TIMED_OUT = auto()
    CRASHED = auto()
    RAN_OUT_OF_MEMORY = auto()
    LOST = auto()
    RETRY_PLANNED = auto()
    UPSTREAM_FAILED = auto()
    SKIPPED = auto()
    CANCELLED = auto()


def _task_run_table() -> Mapping[tuple[StateName, TaskRunEvent], StateName]:
    name, event = StateName, TaskRunEvent
    endings = {
        event.SUCCEEDED: name.COMPLETED,
        event.RECOVERED: name.RECOVERED,
        event.FAILED: name.FAILED,
        event.TIMED_OUT: name.TIMED_OUT,
        event.CRASHED: name.CRASHED,
        event.RAN_OUT_OF_MEMORY: name.OUT_OF_MEMORY,
        event.LOST: name.LOST,
        event.RETRY_PLANNED: name.AWAITING_RETRY,
        event.SKIPPED: name.SKIPPED,
        event.CANCELLED: name.CANCELLED,
    }
    table = {
        (name.PENDING, event.SUBMITTED): name.SUBMITTED,
        (name.PENDING, event.UPSTREAM_FAILED): name.UPSTREAM_FAILED,
        (name.PENDING, event.SKIPPED): name.SKIPPED,
        (name.PENDING, event.CANCELLED): name.CANCELLED,
        (name.PENDING, event.FAILED): name.FAILED,
        (name.AWAITING_RETRY, event.SUBMITTED): name.SUBMITTED,
        (name.AWAITING_RETRY, event.CANCELLED): name.CANCELLED,
        (name.AWAITING_RETRY, event.HANDED_BACK): name.PENDING,
        (name.SUBMITTED, event.STARTED): name.RUNNING,
        (name.SUBMITTED, event.HANDED_BACK): name.PENDING,
        (name.RUNNING, event.HANDED_BACK): name.PENDING,
        (name.RETRYING, event.HANDED_BACK): name.PENDING,
    }
    for running in (name.SUBMITTED, name.RUNNING, name.RETRYING):
        table |= {(running, what): then for what, then in endings.items()}
    return MappingProxyType(table)


TASK_RUN_TRANSITIONS: Final = _task_run_table()
"""Every legal change of a task run's state: `(from, event) -> to`.

`Running` becomes `Retrying` when the attempt is not the first (see `next_task_run_state`): the same
state type under the name that tells a person that this is another try.
"""


@unique
class FlowRunEvent(StrEnum):
    """What can happen to a flow run."""

    STARTED = auto()
    COMPLETED = auto()
    FAILED = auto()
    TIMED_OUT = auto()
    CRASHED = auto()
    CANCEL_ASKED = auto()
    CANCELLED = auto()


FLOW_RUN_TRANSITIONS: Final[Mapping[tuple[StateName, FlowRunEvent], StateName]] = MappingProxyType(
    {
        (StateName.PENDING, FlowRunEvent.STARTED): StateName.RUNNING,
        (StateName.PENDING, FlowRunEvent.FAILED): StateName.FAILED,
        (StateName.PENDING, FlowRunEvent.CANCELLED): StateName.CANCELLED,
        (StateName.RUNNING, FlowRunEvent.COMPLETED): StateName.COMPLETED,
        (StateName.RUNNING, FlowRunEvent.FAILED): StateName.FAILED,
        (StateName.RUNNING, FlowRunEvent.TIMED_OUT): StateName.TIMED_OUT,
        (StateName.RUNNING, FlowRunEvent.CRASHED): StateName.CRASHED,
        (StateName.RUNNING, FlowRunEvent.CANCEL_ASKED): StateName.CANCELLING,
        (StateName.CANCELLING, FlowRunEvent.CANCEL_ASKED): StateName.CANCELLING,
        (StateName.CANCELLING, FlowRunEvent.CANCELLED): StateName.CANCELLED,
        (StateName.CANCELLING, FlowRunEvent.TIMED_OUT): StateName.TIMED_OUT,
        (StateName.CANCELLING, FlowRunEvent.CRASHED): StateName.CRASHED,
    }
)
"""Every legal change of a flow run's state: `(from, event) -> to`."""


def next_task_run_state(
    current: StateName, event: TaskRunEvent, *, attempt: int, story: Iterable[str] = ()
) -> StateName:
    """Return the name of the state that follows.

    Args:
        current: Where the task run stands.
        event: What happened to it.
        attempt: The number of its current attempt, from 1.
        story: What happened to it so far, for the error.

    Raises:
        InvalidTransitionError: The table has no such pair: a bug in raflow.
    """
    following = TASK_RUN_TRANSITIONS.get((current, event))
    if following is None:
        raise _unknown_pair("task run", current, event, story)
    if following is StateName.RUNNING and attempt > 1:
        return StateName.RETRYING
    return following


def next_flow_run_state(
    current: StateName, event: FlowRunEvent, *, story: Iterable[str] = ()
) -> StateName:
    """Return the name of the state that follows; see `next_task_run_state`."""
    following = FLOW_RUN_TRANSITIONS.get((current, event))
    if following is None:
        raise _unknown_pair("flow run", current, event, story)
    return following


def _unknown_pair(
    what: str, current: StateName, event: StrEnum, story: Iterable[str]
) -> errors.InvalidTransitionError:
    told = "; ".join(story) or "nothing before"
    return errors.InvalidTransitionError(
        f"A {what} in state {current.value!r} cannot take the event {event.value!r}. Its story: "
        f"{told}. This is a bug in raflow: please report it with this message.",
        current=str(current),
        event=str(event),
    )
