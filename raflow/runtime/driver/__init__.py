"""The driver of a flow run: one thread that feeds the engine and carries out its commands.

- `_driver`: the loop: it takes messages and calls of the body, and hands events to the engine.
- `_messages`: what it is told, beside what a backend says.
- `_batches`: sends batches, and takes what comes of them.
- `_subflows`: has the runs of subflow calls started.
- `_values`, `_memory`: values from the record, found again, or to be computed again.
- `_caching`, `_slots`: values that were computed before; slots of limits that calls hold.
- `_pauses`: pause, input of people, suspend, the wait for the next attempt.
- `_driven`: the driver, as all of these see it.
"""

from __future__ import annotations

from raflow.runtime.driver._driven import Driven
from raflow.runtime.driver._driver import Clock, Driver
from raflow.runtime.driver._memory import Memory
from raflow.runtime.driver._messages import (
    BodyLeft,
    ChildEnded,
    ChildLeft,
    ChildStarted,
    Fenced,
    GoOn,
    InputAwaited,
    InputGiven,
    LogWritten,
    PauseWanted,
    SlotsNoted,
    SuspendWanted,
    TimeIsUp,
    TryAgain,
    ValueWanted,
)
from raflow.runtime.driver._pauses import SUSPENDED

__all__ = [
    "SUSPENDED",
    "BodyLeft",
    "ChildEnded",
    "ChildLeft",
    "ChildStarted",
    "Clock",
    "Driven",
    "Driver",
    "Fenced",
    "GoOn",
    "InputAwaited",
    "InputGiven",
    "LogWritten",
    "Memory",
    "PauseWanted",
    "SlotsNoted",
    "SuspendWanted",
    "TimeIsUp",
    "TryAgain",
    "ValueWanted",
]
