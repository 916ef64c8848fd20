"""What the driver of a flow run is told, besides what happens to batches."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple, TypeAlias

from raflow import engine, errors, execute
from raflow.model import Chunk, LogLine, TaskRunKey
from raflow.runtime.calls import ItemsTaken
from raflow.runtime.desk import CacheFound
from raflow.runtime.recall import Recall


class Wake(NamedTuple):
    """The body made calls, or dropped futures."""


class ChildStarted(NamedTuple):
    """The child flow run of a subflow call exists."""

    run: TaskRunKey
    flow_run_id: str


class ChildEnded(NamedTuple):
    """The child flow run of a subflow call is final."""

    event: engine.SubflowEnded
    value: object
    error: BaseException | None


class ValueWanted(NamedTuple):
    """The body wants a value that is on record no more, or was never kept."""

    run: TaskRunKey
    there: Future[None]
    """Done once there is a value, or an error."""


class ValuesRead(NamedTuple):
    """What the record has of values that are needed again."""

    chunks: tuple[Chunk, ...]
    recall: Recall | None
    """None: it could not be read."""
    damaged: frozenset[Chunk] = frozenset()
    """Those of which the record has values that cannot be read."""


class PauseWanted(NamedTuple):
    """The run is to pause: nothing more is started until it is to go on."""

    reason: str
    over: Future[None] | None = None
    """Done once the run goes on again."""


class GoOn(NamedTuple):
    """A run that pauses is to go on."""

    told: Future[str] | None = None
    """Done with what came of it, for whoever has asked."""


class InputAwaited(NamedTuple):
    """The body waits for people."""

    reason: str


class InputGiven(NamedTuple):
    """The body waits for people no more."""

    reason: str
    """Why it did."""


class SuspendWanted(NamedTuple):
    """The run is to end here, and to go on in another process later."""

    reason: str


class TryAgain(NamedTuple):
    """A flow run that failed has waited long enough for its next attempt."""

    name: str
    """Which attempt it is, in words."""
    turn: Future[None]
    """Done once the body may begin."""


class BodyLeft(NamedTuple):
    """The body has ended because the run is suspended."""


class ChildLeft(NamedTuple):
    """The child run of a subflow call is suspended."""

    run: TaskRunKey


class Handled(NamedTuple):
    """Asks to be told once all messages before this one have been handled."""

    done: Future[None]


class Fenced(NamedTuple):
    """Another process drives the run by now."""

    error: errors.FencedError


class LogWritten(NamedTuple):
    """The body wrote a line of log."""

    line: LogLine


class SlotsTold(NamedTuple):
    """There is news of slots that a call has asked for."""

    take: Callable[[execute.SlotAnswer], None]
    """Takes it, on the driver's thread."""
    answer: execute.SlotAnswer


class SlotsNoted(NamedTuple):
    """The body has lost slots, or holds them again."""

    text: str


class TimeIsUp(NamedTuple):
    """The time limit of the flow is over."""


class TakeLog(NamedTuple):
    """It is time to record the lines that the body wrote."""


Message: TypeAlias = (
    engine.Event
    | execute.BackendEvent
    | Wake
    | ItemsTaken
    | ChildStarted
    | ChildEnded
    | CacheFound
    | ValueWanted
    | ValuesRead
    | PauseWanted
    | GoOn
    | InputAwaited
    | InputGiven
    | SuspendWanted
    | TryAgain
    | BodyLeft
    | ChildLeft
    | Handled
    | Fenced
    | SlotsTold
    | SlotsNoted
    | LogWritten
    | TimeIsUp
    | TakeLog
)
