"""What the engine wants done. Commands are data; the runtime carries them out in order."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from raflow.model import CallReport, Cause, Chunk, Outcome, Resources, State, TaskRunKey


class SendBatch(NamedTuple):
    """Run these calls, in this order, within a budget of time.

    The inputs of each are there, or are values of calls before it in the batch: the worker starts
    a call only if those have completed.
    """

    at: float
    batch: int
    resources: Resources
    chunks: tuple[Chunk, ...]
    budget: float
    """Seconds after which the worker starts no more calls and hands back the rest."""
    own_values: int
    """How many values may become objects of their own. A value that is to be one when all are used
    ends the batch."""
    record_first: bool = False
    """That the attempt begins has to be on record before it does: it is never repeated."""
    places: int = 0
    """How many batches of these resources can run at once; 0: that is not known."""


class CompletedChunk(NamedTuple):
    """Calls of a batch that have completed."""

    chunk: Chunk
    position: int
    """Position in the batch of the first of them; the others follow."""


class CallsCompleted(NamedTuple):
    """Task runs completed at their first attempt, as most do: attempt and final state in one."""

    batch: int
    submitted_at: float
    chunks: tuple[CompletedChunk, ...]


class ReleaseValues(NamedTuple):
    """Nobody can use these values any more."""

    chunks: tuple[Chunk, ...]


class SetSendTimer(NamedTuple):
    """Send `SendDue` at this time."""

    due: float


class CancelBatch(NamedTuple):
    """End this batch: gently, or by killing its process."""

    batch: int
    force: bool


class CancelCalls(NamedTuple):
    """End these calls of a batch: gently, or by killing its process."""

    batch: int
    positions: tuple[int, ...]
    force: bool


class StartSubflow(NamedTuple):
    """Run the child flow of this call; its inputs are there."""

    run: TaskRunKey


class CancelSubflow(NamedTuple):
    """Cancel the child flow run of this call."""

    run: TaskRunKey
    reason: str


class SetRetryTimer(NamedTuple):
    """Send `RetryDue` for this run at this time."""

    run: TaskRunKey
    due: float


class SetGraceTimer(NamedTuple):
    """Send `GraceOver` at this time."""

    due: float
    batch: int | None = None
    """To be given back."""


class MapExpanded(NamedTuple):
    """The number of items of a map is known now."""

    node: int
    length: int


class AttemptEnded(NamedTuple):
    """An attempt is over; emitted before the state change that it leads to.

    Not emitted for what `CallsCompleted` tells. An attempt that no budget is charged for (its batch
    died while another call ran) has the outcome LOST and is followed by the state PENDING.
    """

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
    cause: Cause | None = None
    """Why its process ended, where that is known."""
    memory: int = 0
    """Bytes that it asked for, if not what the options of its call say."""


class StateEntered(NamedTuple):
    """A task run changed its state.

    Not emitted for what the runtime knows anyway: PENDING by `CallsRegistered` or when a first
    attempt is handed back, SUBMITTED by `SendBatch`, COMPLETED by `CallsCompleted`.
    """

    run: TaskRunKey
    state: State
    attempts: int
    """Attempts begun so far."""


class RunSettled(NamedTuple):
    """The body has ended and every task run is final: the flow run can get its final state."""

    cancelled: bool
    unhandled: tuple[TaskRunKey, ...]
    """Failures that nobody handled, in order of calls; see `raflow.engine.Engine`."""


class FindValues(NamedTuple):
    """These values are needed again: take them from where they are kept.

    Each is answered by `ValuesFound`, or by `ValuesLost`: then its run is computed again.
    """

    chunks: tuple[Chunk, ...]


class ValueGone(NamedTuple):
    """The value that the body waits for (`ValueAsked`) is lost for good."""

    run: TaskRunKey
    message: str


class AskSlots(NamedTuple):
    """Ask for slots of limits, all or none; answered by `SlotsAwaited` and `SlotsGranted`."""

    run: TaskRunKey
    amounts: tuple[tuple[str, int], ...]
    """Slots by name of the limit."""
    priority: int


class ReleaseSlots(NamedTuple):
    """A call needs its slots no more, or does not wait for them any longer."""

    run: TaskRunKey


class AskCache(NamedTuple):
    """Look for the values of these calls, whose inputs are there; see `CacheAnswered`."""

    chunk: Chunk


class AtRest(NamedTuple):
    """The run is paused, and no batch is in flight any more; emitted once per pause."""


Command: TypeAlias = (
    SendBatch
    | CallsCompleted
    | ReleaseValues
    | SetSendTimer
    | CancelBatch
    | CancelCalls
    | StartSubflow
    | CancelSubflow
    | SetRetryTimer
    | SetGraceTimer
    | MapExpanded
    | AttemptEnded
    | StateEntered
    | FindValues
    | ValueGone
    | AskSlots
    | ReleaseSlots
    | AskCache
    | AtRest
    | RunSettled
)
