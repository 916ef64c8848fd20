"""raflow: ordinary Python functions as flows on Ray, recorded and cheap.

The public names are loaded when they are first used, so that `import raflow` costs almost nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raflow.define import (
        DEFAULT,
        FLOW_PARAMETERS,
        INPUTS,
        NO_CACHE,
        RUN_ID,
        TASK_SOURCE,
        CacheKeyFnPolicy,
        CachePolicy,
        Flow,
        MapFuture,
        Task,
        TaskFuture,
        TaskRunContext,
        allow_failure,
        concurrency,
        flow,
        get_run_context,
        get_run_logger,
        pause_run,
        pause_run_async,
        run_deployment,
        run_deployment_async,
        serve,
        suspend_run,
        suspend_run_async,
        task,
        unmapped,
        wait_for_input,
        wait_for_input_async,
    )
    from raflow.errors import SkipTask
    from raflow.model import FlowGraph, ScheduleSpec, State, exponential_backoff
    from raflow.model.schedule import (
        CatchUp,
        Cron,
        Interval,
        Once,
        Overlap,
        Policy,
        RRule,
        Schedule,
    )

__version__ = "0.1.0"

_HOME = {
    "CacheKeyFnPolicy": "raflow.define",
    "CachePolicy": "raflow.define",
    "CatchUp": "raflow.model.schedule",
    "Cron": "raflow.model.schedule",
    "DEFAULT": "raflow.define",
    "FLOW_PARAMETERS": "raflow.define",
    "Flow": "raflow.define",
    "FlowGraph": "raflow.model",
    "INPUTS": "raflow.define",
    "Interval": "raflow.model.schedule",
    "MapFuture": "raflow.define",
    "NO_CACHE": "raflow.define",
    "Once": "raflow.model.schedule",
    "Overlap": "raflow.model.schedule",
    "Policy": "raflow.model.schedule",
    "RRule": "raflow.model.schedule",
    "RUN_ID": "raflow.define",
    "Schedule": "raflow.model.schedule",
    "ScheduleSpec": "raflow.model",
    "SkipTask": "raflow.errors",
    "State": "raflow.model",
    "TASK_SOURCE": "raflow.define",
    "Task": "raflow.define",
    "TaskFuture": "raflow.define",
    "TaskRunContext": "raflow.define",
    "allow_failure": "raflow.define",
    "concurrency": "raflow.define",
    "exponential_backoff": "raflow.model",
    "flow": "raflow.define",
    "get_run_context": "raflow.define",
    "get_run_logger": "raflow.define",
    "pause_run": "raflow.define",
    "pause_run_async": "raflow.define",
    "run_deployment": "raflow.define",
    "run_deployment_async": "raflow.define",
    "serve": "raflow.define",
    "suspend_run": "raflow.define",
    "suspend_run_async": "raflow.define",
    "task": "raflow.define",
    "unmapped": "raflow.define",
    "wait_for_input": "raflow.define",
    "wait_for_input_async": "raflow.define",
}

__all__ = [
    "DEFAULT",
    "FLOW_PARAMETERS",
    "INPUTS",
    "NO_CACHE",
    "RUN_ID",
    "TASK_SOURCE",
    "CacheKeyFnPolicy",
    "CachePolicy",
    "CatchUp",
    "Cron",
    "Flow",
    "FlowGraph",
    "Interval",
    "MapFuture",
    "Once",
    "Overlap",
    "Policy",
    "RRule",
    "Schedule",
    "ScheduleSpec",
    "SkipTask",
    "State",
    "Task",
    "TaskFuture",
    "TaskRunContext",
    "__version__",
    "allow_failure",
    "concurrency",
    "exponential_backoff",
    "flow",
    "get_run_context",
    "get_run_logger",
    "pause_run",
    "pause_run_async",
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


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'raflow' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
