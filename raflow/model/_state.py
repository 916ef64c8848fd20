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
    LATE = "Late"
    """It was to begin a while ago, and no worker has taken it."""
    AWAITING_RETRY = "AwaitingRetry"
    AWAITING_SLOT = "AwaitingSlot"
    PENDING = "Pending"
    SUBMITTED = "Submitted"
    RUNNING = "Running"
    RETRYING = "Retrying"
    PAUSED = "Paused"
    SUSPENDED = "Suspended"
    AWAITING_INPUT = "AwaitingInput"
    CANCELLING = "Cancelling"
    COMPLETED = "Completed"
    CACHED = "Cached"
    RECOVERED = "Recovered"
    FAILED = "Failed"
    TIMED_OUT = "TimedOut"
    UPSTREAM_FAILED = "UpstreamFailed"
    CRASHED = "Crashed"
    OUT_OF_MEMORY = "OutOfMemory"
    LOST = "Lost"
    CANCELLED = "Cancelled"
    ROLLED_BACK = "RolledBack"
    """It completed, and was undone: what it did does not count any more."""
    SKIPPED = "Skipped"

    @property
    def type(self) -> StateType:
        """The type that this name refines."""
        return TYPE_OF[self]


TYPE_OF: Final[Mapping[StateName, StateType]] = MappingProxyType(
    {
        StateName.SCHEDULED: StateType.SCHEDULED,
        StateName.LATE: StateType.SCHEDULED,
        StateName.AWAITING_RETRY: StateType.SCHEDULED,
        StateName.AWAITING_SLOT: StateType.SCHEDULED,
        StateName.PENDING: StateType.PENDING,
        StateName.SUBMITTED: StateType.PENDING,
        StateName.RUNNING: StateType.RUNNING,
        StateName.RETRYING: StateType.RUNNING,
        StateName.PAUSED: StateType.PAUSED,
        StateName.SUSPENDED: StateType.PAUSED,
        StateName.AWAITING_INPUT: StateType.PAUSED,
        StateName.CANCELLING: StateType.CANCELLING,
        StateName.COMPLETED: StateType.COMPLETED,
        StateName.CACHED: StateType.COMPLETED,
        StateName.RECOVERED: StateType.COMPLETED,
        StateName.FAILED: StateType.FAILED,
        StateName.TIMED_OUT: StateType.FAILED,
        StateName.UPSTREAM_FAILED: StateType.FAILED,
        StateName.CRASHED: StateType.CRASHED,
        StateName.OUT_OF_MEMORY: StateType.CRASHED,
        StateName.LOST: StateType.CRASHED,
        StateName.CANCELLED: StateType.CANCELLED,
        StateName.ROLLED_BACK: StateType.CANCELLED,
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

    SLOT_AWAITED = auto()
    SLOT_GRANTED = auto()
    SUBMITTED = auto()
    HANDED_BACK = auto()
    STARTED = auto()
    SUCCEEDED = auto()
    RECOVERED = auto()
    CACHED = auto()
    """Its value was there already: nothing ran."""
    RECOMPUTED = auto()
    """It completed, but nobody has its value any more, and somebody needs it."""
    FAILED = auto()
    TIMED_OUT = auto()
    CRASHED = auto()
    RAN_OUT_OF_MEMORY = auto()
    LOST = auto()
    RETRY_PLANNED = auto()
    UPSTREAM_FAILED = auto()
    SKIPPED = auto()
    CANCELLED = auto()
    ROLLED_BACK = auto()
    """It completed, and its flow run failed: what it did was undone."""


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
        (name.PENDING, event.LOST): name.LOST,
        (name.PENDING, event.SUCCEEDED): name.COMPLETED,
        (name.PENDING, event.CACHED): name.CACHED,
        (name.PENDING, event.SLOT_AWAITED): name.AWAITING_SLOT,
        (name.AWAITING_RETRY, event.SLOT_AWAITED): name.AWAITING_SLOT,
        (name.AWAITING_SLOT, event.SLOT_AWAITED): name.AWAITING_SLOT,
        (name.AWAITING_SLOT, event.SLOT_GRANTED): name.PENDING,
        (name.AWAITING_SLOT, event.HANDED_BACK): name.PENDING,
        (name.AWAITING_SLOT, event.CANCELLED): name.CANCELLED,
        (name.AWAITING_SLOT, event.FAILED): name.FAILED,
        (name.COMPLETED, event.RECOMPUTED): name.PENDING,
        (name.CACHED, event.RECOMPUTED): name.PENDING,
        (name.RECOVERED, event.RECOMPUTED): name.PENDING,
        (name.COMPLETED, event.ROLLED_BACK): name.ROLLED_BACK,
        (name.RECOVERED, event.ROLLED_BACK): name.ROLLED_BACK,
        (name.AWAITING_RETRY, event.SUBMITTED): name.SUBMITTED,
        (name.AWAITING_RETRY, event.CANCELLED): name.CANCELLED,
        (name.AWAITING_RETRY, event.HANDED_BACK): name.PENDING,
        (name.AWAITING_RETRY, event.FAILED): name.FAILED,
        (name.AWAITING_RETRY, event.LOST): name.LOST,
        (name.AWAITING_RETRY, event.UPSTREAM_FAILED): name.UPSTREAM_FAILED,
        (name.AWAITING_RETRY, event.SKIPPED): name.SKIPPED,
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

    BECAME_LATE = auto()
    """It was to begin a while ago."""
    CLAIMED = auto()
    """A worker has taken it, and nothing of it has begun."""
    GIVEN_BACK = auto()
    """The worker that had taken it does not begin it."""
    STARTED = auto()
    RESUMED = auto()
    """A new process goes on with it."""
    COMPLETED = auto()
    RECOVERED = auto()
    """It completed after it was resumed."""
    FAILED = auto()
    TIMED_OUT = auto()
    CRASHED = auto()
    RETRY_PLANNED = auto()
    """It failed, and is tried again after a while."""
    RETRIED = auto()
    """The while is over."""
    PAUSED = auto()
    UNPAUSED = auto()
    SUSPENDED = auto()
    INPUT_ASKED = auto()
    INPUT_GIVEN = auto()
    CANCEL_ASKED = auto()
    CANCELLED = auto()


def _flow_run_table() -> Mapping[tuple[StateName, FlowRunEvent], StateName]:
    name, event = StateName, FlowRunEvent
    endings = {
        event.FAILED: name.FAILED,
        event.TIMED_OUT: name.TIMED_OUT,
        event.CRASHED: name.CRASHED,
        event.RETRY_PLANNED: name.AWAITING_RETRY,
    }
    table = {
        (name.PENDING, event.STARTED): name.RUNNING,
        (name.PENDING, event.FAILED): name.FAILED,
        (name.PENDING, event.CRASHED): name.CRASHED,
        (name.PENDING, event.CANCELLED): name.CANCELLED,
        (name.RUNNING, event.COMPLETED): name.COMPLETED,
        (name.RUNNING, event.RECOVERED): name.RECOVERED,
        (name.RUNNING, event.PAUSED): name.PAUSED,
        (name.PAUSED, event.PAUSED): name.PAUSED,
        (name.PAUSED, event.UNPAUSED): name.RUNNING,
        (name.PAUSED, event.COMPLETED): name.COMPLETED,
        (name.PAUSED, event.RECOVERED): name.RECOVERED,
        (name.RUNNING, event.INPUT_ASKED): name.AWAITING_INPUT,
        (name.AWAITING_INPUT, event.INPUT_ASKED): name.AWAITING_INPUT,
        (name.PAUSED, event.INPUT_ASKED): name.AWAITING_INPUT,
        (name.AWAITING_INPUT, event.PAUSED): name.PAUSED,
        (name.AWAITING_INPUT, event.INPUT_GIVEN): name.RUNNING,
        (name.CANCELLING, event.CANCEL_ASKED): name.CANCELLING,
        (name.CANCELLING, event.CANCELLED): name.CANCELLED,
        (name.CANCELLING, event.TIMED_OUT): name.TIMED_OUT,
        (name.CANCELLING, event.RETRY_PLANNED): name.AWAITING_RETRY,
        (name.AWAITING_RETRY, event.RETRIED): name.RUNNING,
        (name.CANCELLING, event.CRASHED): name.CRASHED,
        (name.SUSPENDED, event.CANCELLED): name.CANCELLED,
        (name.SUSPENDED, event.CRASHED): name.CRASHED,
    }
    for under_way in (name.RUNNING, name.PAUSED, name.AWAITING_INPUT, name.AWAITING_RETRY):
        table |= {(under_way, what): then for what, then in endings.items()}
        table[under_way, event.CANCEL_ASKED] = name.CANCELLING
        table[under_way, event.SUSPENDED] = name.SUSPENDED
    known = {state for state, _ in table} | set(table.values())
    for ended in known - {name.COMPLETED, name.RECOVERED}:
        table[ended, event.RESUMED] = name.RUNNING
    return MappingProxyType({**table, **_before_the_beginning()})


def _before_the_beginning() -> Mapping[tuple[StateName, FlowRunEvent], StateName]:
    """Return what can happen to a flow run that waits for a worker: there is nothing to resume."""
    name, event = StateName, FlowRunEvent
    table = {
        (name.SCHEDULED, event.BECAME_LATE): name.LATE,
        (name.SUBMITTED, event.GIVEN_BACK): name.SCHEDULED,
        (name.SUBMITTED, event.STARTED): name.RUNNING,
        (name.SUBMITTED, event.CRASHED): name.CRASHED,
    }
    for waiting in (name.SCHEDULED, name.LATE):
        table[waiting, event.CLAIMED] = name.SUBMITTED
    for waiting in (name.SCHEDULED, name.LATE, name.SUBMITTED):
        table[waiting, event.FAILED] = name.FAILED
        table[waiting, event.CANCELLED] = name.CANCELLED
    return table


FLOW_RUN_TRANSITIONS: Final[Mapping[tuple[StateName, FlowRunEvent], StateName]] = _flow_run_table()
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
