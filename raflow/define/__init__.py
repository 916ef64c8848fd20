"""Flows and tasks as users declare them, and the calls that a flow's body makes."""

from __future__ import annotations

from raflow.define._caching import (
    DEFAULT,
    FLOW_PARAMETERS,
    INPUTS,
    NO_CACHE,
    RUN_ID,
    TASK_SOURCE,
    CacheKeyFnPolicy,
    CachePolicy,
    KeyParts,
)
from raflow.define._call_form import CallForm
from raflow.define._definition import Definition
from raflow.define._deployments import run_deployment, run_deployment_async, serve
from raflow.define._flow import Flow, flow
from raflow.define._futures import MapFuture, TaskFuture, allow_failure, unmapped
from raflow.define._keywords import FlowKeywords, TaskKeywords
from raflow.define._lift import Lifter, fill
from raflow.define._locate import Found, find_flow
from raflow.define._occasions import Occasions
from raflow.define._options import FlowOptions
from raflow.define._references import code_fingerprint
from raflow.define._requests import (
    CallKeys,
    CallRequest,
    Columns,
    Dependency,
    FlowContext,
    Hole,
    Question,
    Registered,
    SlotGate,
    SlotsWanted,
    Stream,
    TaskRunContext,
    active_flow,
    active_task,
)
from raflow.define._run_context import get_run_context, get_run_logger
from raflow.define._runner import Runner, RunOutcome, register_runner
from raflow.define._task import BoundTask, Task, task
from raflow.define._verbs import (
    concurrency,
    pause_run,
    pause_run_async,
    suspend_run,
    suspend_run_async,
    wait_for_input,
    wait_for_input_async,
)

__all__ = [
    "DEFAULT",
    "FLOW_PARAMETERS",
    "INPUTS",
    "NO_CACHE",
    "RUN_ID",
    "TASK_SOURCE",
    "BoundTask",
    "CacheKeyFnPolicy",
    "CachePolicy",
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
    "Found",
    "Hole",
    "KeyParts",
    "Lifter",
    "MapFuture",
    "Occasions",
    "Question",
    "Registered",
    "RunOutcome",
    "Runner",
    "SlotGate",
    "SlotsWanted",
    "Stream",
    "Task",
    "TaskFuture",
    "TaskKeywords",
    "TaskRunContext",
    "active_flow",
    "active_task",
    "allow_failure",
    "code_fingerprint",
    "concurrency",
    "fill",
    "find_flow",
    "flow",
    "get_run_context",
    "get_run_logger",
    "pause_run",
    "pause_run_async",
    "register_runner",
    "run_deployment",
    "run_deployment_async",
    "serve",
    "suspend_run",
    "suspend_run_async",
    "task",
    "unmapped",
    "wait_for_input",
    "wait_for_input_async",
]
