"""What the runtime tells the engine; every event carries the time, for the engine has no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from raflow.engine._pace import Learned
from raflow.model import (
    BatchReport,
    Cause,
    Chunk,
    Edge,
    NodeKind,
    Outcome,
    State,
    TaskOptions,
    TaskRunKey,
)


class Answer(NamedTuple):
    """What an earlier process of the run has left of a call, or of neighbouring items of a map."""

    start: int = -1
    """Map index of the first item; -1 for a single call."""
    stop: int = 0
    """Map index after the last item; 0 for a single call."""
    completed: bool = True
    """They have completed, and do not run again. False: attempts have begun, none completed."""
    has_value: bool = True
    """Their values can be had; otherwise they are computed again if somebody needs them."""
    attempts: int = 1
    """Attempts that each of them has begun."""
    truths: bytes = b""
    """For each `bool` of its value: 1, 0 or `UNKNOWN_TRUTH`. Empty: unknown."""
    length: int | None = None
    """`len` of the value of a single call, where that is known."""
    cached: bool = False
    """Of completed ones: nothing ran, because another flow run has left their values."""


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
    answers: tuple[Answer, ...] = ()
    """What is known of its runs already, in the order of items."""
    teardown_of: tuple[int, ...] = ()
    """Of a teardown: the calls that set up what it tears down. It has edges from them, too."""


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
    cause: Cause | None = None
    """What is known about why."""


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
    batch: int | None = None
    """Only calls of this batch were to stop. None: all."""


class FailureSeen(NamedTuple):
    """The flow's body looked at the outcome of a task run (`result`, `await`, `state`)."""

    at: float
    run: TaskRunKey


class BodyEnded(NamedTuple):
    """The flow's body returned, or raised; no more calls will be registered."""

    at: float
    raised: bool = False


class PaceKnown(NamedTuple):
    """What earlier runs of the same code have taught is known now."""

    at: float
    learned: Mapping[str, Learned]
    """By name of the task."""


class CancelAsked(NamedTuple):
    """Somebody wants the run to end: nothing new starts from here on."""

    at: float
    reason: str


class CallCancelAsked(NamedTuple):
    """The flow's body wants a call to end, or an item of a map, or all of a map."""

    at: float
    node: int
    item: int | None
    """Which item of a map. None: the single call, or every item."""
    reason: str


class PauseAsked(NamedTuple):
    """Nothing is to be sent until `UnpauseAsked`; what runs goes on."""

    at: float
    reason: str


class UnpauseAsked(NamedTuple):
    """The run is to go on."""

    at: float


class ValueAsked(NamedTuple):
    """The flow's body waits for a value of a completed run that the runtime has not got."""

    at: float
    run: TaskRunKey
    """With map index -1 for a map: all its items."""


class ValuesLost(NamedTuple):
    """Nobody has the values of these completed runs any more."""

    at: float
    chunks: Sequence[Chunk]


class ValuesFound(NamedTuple):
    """The values of these completed runs can be had again."""

    at: float
    chunks: Sequence[Chunk]


class SlotsGranted(NamedTuple):
    """A call holds the slots that it has asked for."""

    at: float
    run: TaskRunKey


class SlotsAwaited(NamedTuple):
    """A call stands in line for slots."""

    at: float
    run: TaskRunKey
    reason: str
    """Which limit, how full, held by whom."""


class SlotsRefused(NamedTuple):
    """A call will never get the slots that it has asked for: it fails."""

    at: float
    run: TaskRunKey
    message: str


class CacheVerdict(StrEnum):
    """What looking for a call's value has brought."""

    HIT = "hit"
    """It was there, and the runtime has it."""
    MISS = "miss"
    """The call has to run."""
    BUSY = "busy"
    """Somebody computes it right now: another answer follows."""
    FAILED = "failed"
    """There is no telling: the key cannot be made."""


class CacheAnswered(NamedTuple):
    """The answer to `AskCache` for one run."""

    at: float
    run: TaskRunKey
    verdict: CacheVerdict
    reason: str = ""
    """Of a hit: which run it comes from. While busy: who computes it. Failed: why."""
    length: int | None = None
    """`len` of the value, where that is known."""
    truth: bool | None = None
    """`bool` of the value, where that is known."""


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
    | PaceKnown
    | CancelAsked
    | CallCancelAsked
    | PauseAsked
    | UnpauseAsked
    | ValueAsked
    | ValuesLost
    | ValuesFound
    | SlotsGranted
    | SlotsAwaited
    | SlotsRefused
    | CacheAnswered
)
