"""What the engine wants done. Commands are data; the runtime carries them out in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from raflow.model import CallReport, Outcome, Resources, State, TaskRunKey


class Planned(NamedTuple):
    """One call of a batch to send."""

    run: TaskRunKey
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SendBatch:
    """Run these calls; their inputs are there."""

    batch: int
    resources: Resources
    calls: tuple[Planned, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelBatch:
    """End this batch: gently, or by killing its process."""

    batch: int
    force: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StartSubflow:
    """Run the child flow of this call; its inputs are there."""

    run: TaskRunKey


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelSubflow:
    """Cancel the child flow run of this call."""

    run: TaskRunKey
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRetryTimer:
    """Send `RetryDue` for this run at this time."""

    run: TaskRunKey
    due: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SetGraceTimer:
    """Send `GraceOver` at this time."""

    due: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MapExpanded:
    """The number of items of a map is known now."""

    node: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnded:
    """An attempt is over; emitted before the state change that it leads to."""

    run: TaskRunKey
    number: int
    outcome: Outcome
    submitted_at: float
    ended_at: float
    message: str = ""
    report: CallReport | None = None
    """None if the attempt died without one."""
    batch: int = -1
    position: int = 0
    """Which value of the batch is the call's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateEntered:
    """A task run changed its state."""

    run: TaskRunKey
    state: State
    attempts: int
    """Attempts begun so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettled:
    """The body has ended and every task run is final: the flow run can get its final state."""

    cancelled: bool
    unhandled: tuple[TaskRunKey, ...]
    """Failures that nobody handled, in order of calls; see `raflow.engine.Engine`."""


Command: TypeAlias = (
    SendBatch
    | CancelBatch
    | StartSubflow
    | CancelSubflow
    | SetRetryTimer
    | SetGraceTimer
    | MapExpanded
    | AttemptEnded
    | StateEntered
    | RunSettled
)
