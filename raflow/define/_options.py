"""From the options that users write to the data that the other layers read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from raflow import errors
from raflow.define._keywords import FlowKeywords, Hook, TaskKeywords, check_keywords
from raflow.model import (
    Resources,
    ResultPolicy,
    RetryPolicy,
    Serializer,
    State,
    StateName,
    StateType,
    TaskOptions,
    TriggerRule,
)

TASK_OPTION_NAMES: Final = tuple(TaskKeywords.__annotations__)
FLOW_OPTION_NAMES: Final = tuple(FlowKeywords.__annotations__)

_RETRY: Final = ("retries", "retry_delay_seconds", "retry_jitter_factor", "crash_retries")
_RESOURCES: Final = (
    "num_cpus",
    "num_gpus",
    "memory",
    "resources",
    "accelerator_type",
    "label_selector",
    "scheduling_strategy",
    "runtime_env",
)


TASK_HOOKS: Final[Mapping[StateType, str]] = {
    StateType.RUNNING: "on_running",
    StateType.COMPLETED: "on_completion",
    StateType.FAILED: "on_failure",
    StateType.CRASHED: "on_failure",
}
"""Which hooks of a task are called when a run enters a state."""

FLOW_HOOKS: Final[Mapping[StateType, str]] = {
    StateType.RUNNING: "on_running",
    StateType.COMPLETED: "on_completion",
    StateType.FAILED: "on_failure",
    StateType.CANCELLED: "on_cancellation",
    StateType.CRASHED: "on_crashed",
}
"""Which hooks of a flow are called when a run enters a state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowOptions:
    """How the runs of a flow behave."""

    retry: RetryPolicy = field(default_factory=RetryPolicy)
    """Whether a run that failed is followed by another."""
    timeout_seconds: float | None = None
    """Seconds a run may take from its start. None: no limit."""
    validate_parameters: bool = True
    """Whether parameters are checked and coerced by their types."""
    result: ResultPolicy = field(default_factory=ResultPolicy)
    log_prints: bool = True
    """Whether what the body prints is kept in the run's log."""
    backend: Literal["ray", "local"] | None = None
    """Where the tasks run. None: the configured one."""
    tags: tuple[str, ...] = ()


def task_options(owner: str, given: Mapping[str, Any]) -> TaskOptions:
    """Check a task's options and build its data.

    Raises:
        DefinitionError: An option does not exist, or its value cannot be used; names `owner` and
            the option.
    """
    check_keywords(owner, given, TASK_OPTION_NAMES)
    try:
        retry = RetryPolicy.of(**_part(given, _RETRY))
        resources = Resources.of(**_part(given, _RESOURCES))
    except errors.DefinitionError as error:
        raise errors.DefinitionError(f"{owner}: {error}") from error
    return TaskOptions(
        retry=retry,
        timeout_seconds=given.get("timeout_seconds"),
        resources=resources,
        trigger_rule=TriggerRule(given.get("trigger_rule") or TriggerRule.ALL_SUCCESS),
        result=_result_policy(given),
        log_prints=_flag(given, "log_prints"),
        tags=_tags(given),
        batch=_flag(given, "batch"),
        concurrency_per_worker=given.get("concurrency_per_worker") or 1,
    )


def flow_options(owner: str, given: Mapping[str, Any]) -> FlowOptions:
    """Check a flow's options and build its data; see `task_options`."""
    check_keywords(owner, given, FLOW_OPTION_NAMES)
    try:
        retry = RetryPolicy.of(**_part(given, ("retries", "retry_delay_seconds")))
    except errors.DefinitionError as error:
        raise errors.DefinitionError(f"{owner}: {error}") from error
    return FlowOptions(
        retry=retry,
        timeout_seconds=given.get("timeout_seconds"),
        validate_parameters=_flag(given, "validate_parameters"),
        result=_result_policy(given),
        log_prints=_flag(given, "log_prints"),
        backend=given.get("backend"),
        tags=_tags(given),
    )


def hooks_for(
    state: State, given: Mapping[str, Any], table: Mapping[StateType, str]
) -> tuple[Hook, ...]:
    """Return the functions to call when a run enters a state.

    A task that did not run, because one that it needs failed, has not failed itself.
    """
    name = table.get(state.type)
    if name is None or state.name is StateName.UPSTREAM_FAILED:
        return ()
    return tuple(given.get(name) or ())


def _part(given: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: given[name] for name in names if name in given}


def _flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name)
    return True if value is None else bool(value)


def _tags(given: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(given.get("tags") or ()))


def _result_policy(given: Mapping[str, Any]) -> ResultPolicy:
    storage = given.get("result_storage")
    return ResultPolicy(
        persist=given.get("persist_result"),
        storage=None if storage is None else os.fspath(storage),
        serializer=Serializer(given.get("result_serializer") or Serializer.AUTO),
    )
