"""What running code can ask about its run."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from raflow import errors
from raflow.define._requests import TaskRunContext, active_flow, active_task

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter


def get_run_context() -> TaskRunContext:
    """Return what is known about the task run that this code is part of.

    Raises:
        DefinitionError: No task is running here.
    """
    context = active_task.get()
    if context is None:
        where = "in a flow's body" if active_flow.get() is not None else "outside a run"
        raise errors.DefinitionError(
            f"get_run_context() was called {where}, but it tells only of task runs. Call it inside "
            "a task, while the task runs as part of a flow."
        )
    return context


def get_run_logger() -> _Adapter:
    """Return a logger whose lines become part of the record of the run that this code is part of.

    Outside a run it is an ordinary logger, named `raflow`.
    """
    task = active_task.get()
    if task is not None:
        extra = {
            "flow_run_id": task.flow_run_id,
            "flow": task.flow,
            "task": task.task,
            "task_run": task.label,
            "attempt": task.attempt,
        }
        return logging.LoggerAdapter(logging.getLogger("raflow.task_run"), extra)
    name = "raflow" if active_flow.get() is None else "raflow.flow_run"
    return logging.LoggerAdapter(logging.getLogger(name), {})
