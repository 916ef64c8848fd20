"""Flows and tasks as users declare them, and the calls that a flow's body makes."""

from __future__ import annotations

from raflow.define._call_form import CallForm
from raflow.define._definition import Definition
from raflow.define._flow import Flow, flow
from raflow.define._futures import MapFuture, TaskFuture, allow_failure, unmapped
from raflow.define._keywords import FlowKeywords, TaskKeywords
from raflow.define._lift import Lifter, fill
from raflow.define._options import FlowOptions
from raflow.define._requests import (
    CallKeys,
    CallRequest,
    Columns,
    Dependency,
    FlowContext,
    Hole,
    Registered,
    Stream,
    TaskRunContext,
    active_flow,
    active_task,
)
from raflow.define._run_context import get_run_context, get_run_logger
from raflow.define._runner import Runner, RunOutcome, register_runner
from raflow.define._task import BoundTask, Task, task

__all__ = [
    "BoundTask",
    "CallForm",
    "CallKeys",
    "CallRequest",
    "Columns",
    "Definition",
    "Dependency",
    "Flow",
    "FlowContext",
    "FlowKeywords",
    "FlowOptions",
    "Hole",
    "Lifter",
    "MapFuture",
    "Registered",
    "RunOutcome",
    "Runner",
    "Stream",
    "Task",
    "TaskFuture",
    "TaskKeywords",
    "TaskRunContext",
    "active_flow",
    "active_task",
    "allow_failure",
    "fill",
    "flow",
    "get_run_context",
    "get_run_logger",
    "register_runner",
    "task",
    "unmapped",
]
