"""What the driver of a flow run is told, besides what happens to batches."""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeAlias

from raflow import engine, execute
from raflow.model import LogLine, TaskRunKey
from raflow.runtime._items import ItemsTaken


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


class LogWritten(NamedTuple):
    """The body wrote a line of log."""

    line: LogLine


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
    | LogWritten
    | TimeIsUp
    | TakeLog
)


class Subflows(Protocol):
    """How a driver has the child runs of its subflow calls started and cancelled."""

    def start(self, run: TaskRunKey) -> None:
        """Begin the child flow run of a call whose inputs are there. Does not block."""

    def cancel(self, run: TaskRunKey, reason: str) -> None:
        """Ask a child flow run to end. Does not block."""
