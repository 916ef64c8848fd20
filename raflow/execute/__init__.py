"""Backends: they carry out what the engine decided, on Ray or in this process."""

from __future__ import annotations

from raflow.execute._backend import (
    Backend,
    BackendEvent,
    BatchEnded,
    BatchLost,
    BatchSpec,
    Call,
    CallStarted,
    FunctionHandle,
    InputSource,
    Known,
    ListOf,
    Packed,
    Part,
    ResultKeeper,
    RunEnvironment,
    Session,
    TaskFunction,
    ValueRef,
)
from raflow.execute._capture import Capture, Sink, Sinking

__all__ = [
    "Backend",
    "BackendEvent",
    "BatchEnded",
    "BatchLost",
    "BatchSpec",
    "Call",
    "CallStarted",
    "Capture",
    "FunctionHandle",
    "InputSource",
    "Known",
    "ListOf",
    "Packed",
    "Part",
    "ResultKeeper",
    "RunEnvironment",
    "Session",
    "Sink",
    "Sinking",
    "TaskFunction",
    "ValueRef",
]
