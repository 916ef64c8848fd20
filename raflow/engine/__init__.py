"""The pure core: events of one flow run go in, commands come out; no clock, no threads, no I/O."""

from __future__ import annotations

from raflow.engine._commands import (
    AttemptEnded,
    CancelBatch,
    CancelSubflow,
    Command,
    MapExpanded,
    Planned,
    RunSettled,
    SendBatch,
    SetGraceTimer,
    SetRetryTimer,
    StartSubflow,
    StateEntered,
)
from raflow.engine._core import Engine
from raflow.engine._events import (
    BatchDied,
    BatchFinished,
    BodyEnded,
    CallBegan,
    CallRegistered,
    CancelAsked,
    Event,
    FailureSeen,
    GraceOver,
    RetryDue,
    SubflowEnded,
)

__all__ = [
    "AttemptEnded",
    "BatchDied",
    "BatchFinished",
    "BodyEnded",
    "CallBegan",
    "CallRegistered",
    "CancelAsked",
    "CancelBatch",
    "CancelSubflow",
    "Command",
    "Engine",
    "Event",
    "FailureSeen",
    "GraceOver",
    "MapExpanded",
    "Planned",
    "RetryDue",
    "RunSettled",
    "SendBatch",
    "SetGraceTimer",
    "SetRetryTimer",
    "StartSubflow",
    "StateEntered",
    "SubflowEnded",
]
