"""raflow: ordinary Python functions as flows on Ray, recorded and cheap.

The public names are loaded when they are first used, so that `import raflow` costs almost nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raflow.define import (
        Flow,
        MapFuture,
        Task,
        TaskFuture,
        TaskRunContext,
        allow_failure,
        flow,
        get_run_context,
        get_run_logger,
        task,
        unmapped,
    )
    from raflow.errors import SkipTask
    from raflow.model import FlowGraph, State, exponential_backoff

__version__ = "0.1.0"

_HOME = {
    "Flow": "raflow.define",
    "FlowGraph": "raflow.model",
    "MapFuture": "raflow.define",
    "SkipTask": "raflow.errors",
    "State": "raflow.model",
    "Task": "raflow.define",
    "TaskFuture": "raflow.define",
    "TaskRunContext": "raflow.define",
    "allow_failure": "raflow.define",
    "exponential_backoff": "raflow.model",
    "flow": "raflow.define",
    "get_run_context": "raflow.define",
    "get_run_logger": "raflow.define",
    "task": "raflow.define",
    "unmapped": "raflow.define",
}

__all__ = [
    "Flow",
    "FlowGraph",
    "MapFuture",
    "SkipTask",
    "State",
    "Task",
    "TaskFuture",
    "TaskRunContext",
    "__version__",
    "allow_failure",
    "exponential_backoff",
    "flow",
    "get_run_context",
    "get_run_logger",
    "task",
    "unmapped",
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
