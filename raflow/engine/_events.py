"""What the runtime tells the engine; every event carries the time, for the engine has no clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from raflow.model import BatchReport, Edge, NodeKind, Outcome, State, TaskOptions, TaskRunKey


class CallMade(NamedTuple):
    """The flow's body made a call: a task, a map or a subflow."""

    at: float
    node: int
    """Id of the new node; the ids of a run count up from 0 in the order of calls."""
    kind: NodeKind
    name: str
    """Name of the task or flow."""
    key: str
    """Readable key of the node, such as `extract-0`."""
    options: TaskOptions
    edges: tuple[Edge, ...] = ()
    """What the call depends on; all sources were registered before."""
    length: int | None = None
    """Number of items of a map whose length is known; None otherwise."""
    runnable: bool = True
    """For `run_if=False` given as a plain value: the call ends SKIPPED."""
    streamed: bool = False
    """The items of a map come one after the other (`ItemsArrived`): the number is not known."""


class CallsRegistered(NamedTuple):
    """The body made calls, in this order."""

    at: float
    calls: Sequence[CallMade]


class ItemsArrived(NamedTuple):
    """A streamed map got more items, or came to its end."""

    at: float
    node: int
    length: int
    """How many items there are now."""
    complete: bool = False
    """There will be no more."""
    error: str = ""
    """Why the items end too early: the last of them is none, and ends FAILED with this message."""


class FuturesDropped(NamedTuple):
    """The body can ask for the values of these nodes no more, nor pass them on."""

    at: float
    nodes: Sequence[int]


class CallBegan(NamedTuple):
    """A submitted call has been running for a while."""

    at: float
    """When it began."""
    run: TaskRunKey
    attempt: int


class CallsReturned(NamedTuple):
    """A batch that goes on running handed back calls that it has not started, and will not."""

    at: float
    batch: int
    positions: Sequence[int]


class BatchFinished(NamedTuple):
    """A batch ended with a report."""

    at: float
    report: BatchReport


class BatchDied(NamedTuple):
    """A batch ended without a report: what it had done is lost."""

    at: float
    batch: int
    outcome: Outcome
    message: str
    running: Sequence[int] | None = None
    """Positions of the calls that ran when it died: theirs is the attempt, the others are innocent.
    Empty: none had begun. None: that is not known."""


class SendDue(NamedTuple):
    """It is time to send what was held back to be sent together."""

    at: float


class SubflowEnded(NamedTuple):
    """The child flow run of a subflow call reached a final state."""

    at: float
    run: TaskRunKey
    state: State
    length: int | None = None
    """`len` of its value, where that is known."""
    truth: bool | None = None
    """`bool` of its value, where that is known."""


class RetryDue(NamedTuple):
    """The delay before a retry is over."""

    at: float
    run: TaskRunKey


class GraceOver(NamedTuple):
    """What runs after a cancel has had its time to stop."""

    at: float


class FailureSeen(NamedTuple):
    """The flow's body looked at the outcome of a task run (`result`, `await`, `state`)."""

    at: float
    run: TaskRunKey


class BodyEnded(NamedTuple):
    """The flow's body returned, or raised; no more calls will be registered."""

    at: float
    raised: bool = False


class CancelAsked(NamedTuple):
    """Somebody wants the run to end: nothing new starts from here on."""

    at: float
    reason: str


Event: TypeAlias = (
    CallsRegistered
    | ItemsArrived
    | FuturesDropped
    | CallBegan
    | CallsReturned
    | BatchFinished
    | BatchDied
    | SendDue
    | SubflowEnded
    | RetryDue
    | GraceOver
    | FailureSeen
    | BodyEnded
    | CancelAsked
)
