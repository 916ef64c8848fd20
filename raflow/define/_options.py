"""From the options that users write to the data that the other layers read."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from raflow import errors
from raflow.define._caching import NO_CACHE, CacheKeyFnPolicy, CachePolicy
from raflow.define._keywords import FlowKeywords, Hook, TaskKeywords, check_keywords
from raflow.model import (
    CacheOptions,
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


HookTable: TypeAlias = Mapping[StateType, tuple[str, ...]]
"""Which hooks are called when a run enters a state: the first of these options that is given."""

FLOW_HOOKS: Final[HookTable] = {
    StateType.RUNNING: ("on_running",),
    StateType.COMPLETED: ("on_completion",),
    StateType.FAILED: ("on_failure",),
    StateType.CANCELLED: ("on_cancellation",),
    StateType.CRASHED: ("on_crashed",),
}

TASK_HOOKS: Final[HookTable] = {**FLOW_HOOKS, StateType.CRASHED: ("on_crashed", "on_failure")}


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowOptions:
    """How the runs of a flow behave."""

    retry: RetryPolicy = field(default_factory=RetryPolicy)
    """Whether a run that failed is tried again."""
    timeout_seconds: float | None = None
    """Seconds a run may take from its start. None: no limit."""
    validate_parameters: bool = True
    """Whether parameters are checked and coerced by their types."""
    result: ResultPolicy = field(default_factory=ResultPolicy)
    log_prints: bool = True
    """Whether what the body prints is kept in the run's log."""
    backend: Literal["ray", "local"] | None = None
    """Where the tasks run. None: the configured one."""
    durability: Literal["group", "task"] = "group"
    """Whether what needs a result may start while that is still on its way to the disk (`group`),
    or not before it is there (`task`)."""
    refresh_cache: bool = False
    """Whether all tasks of a run compute their values anew, even those that are cached."""
    tags: tuple[str, ...] = ()


def task_options(owner: str, given: Mapping[str, Any]) -> TaskOptions:
    """Check a task's options and build its data.

    Raises:
        DefinitionError: An option does not exist, or its value cannot be used; names `owner` and
            the option.
    """
    check_keywords(owner, given, TASK_OPTION_NAMES)
    _check_together(owner, given)
    try:
        retry = RetryPolicy.of(**_part(given, _RETRY))
        resources = Resources.of(**_part(given, _RESOURCES))
    except errors.DefinitionError as error:
        raise errors.DefinitionError(f"{owner}: {error}") from error
    return TaskOptions(
        retry=retry,
        timeout_seconds=given.get("timeout_seconds"),
        resources=resources,
        trigger_rule=_trigger_rule(given),
        result=_task_result_policy(given),
        log_prints=_flag(given, "log_prints"),
        tags=_tags(given),
        batch=_flag(given, "batch"),
        concurrency_per_worker=given.get("concurrency_per_worker") or 1,
        at_most_once=bool(given.get("at_most_once")),
        memory_growth=float(given.get("memory_growth") or 1),
        limits=_limits(given.get("limits") or ()),
        strict_limits=bool(given.get("strict_limits")),
        priority=given.get("priority") or 0,
        cache=_cache_options(given),
        teardown=bool(given.get("teardown")),
        teardown_counts=bool(given.get("teardown_counts")),
    )


def as_teardown(options: TaskOptions) -> TaskOptions:
    """Return the options of a call that cleans up after others."""
    return replace(options, teardown=True, trigger_rule=TriggerRule.ALL_DONE_SETUP_SUCCESS)


def cache_policy(given: Mapping[str, Any]) -> CachePolicy:
    """Return which calls of a task are the same, by what its user wrote."""
    function = given.get("cache_key_fn")
    return CacheKeyFnPolicy(function) if function else given.get("cache_policy") or NO_CACHE


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
        durability=given.get("durability") or "group",
        refresh_cache=bool(given.get("refresh_cache")),
        tags=_tags(given),
    )


def hooks_for(state: State, given: Mapping[str, Any], table: HookTable) -> tuple[Hook, ...]:
    """Return the functions to call when a run enters a state.

    A task that did not run, because one that it needs failed, has not failed itself; one that was
    undone was not cancelled.
    """
    if state.name in {StateName.UPSTREAM_FAILED, StateName.ROLLED_BACK}:
        return ()
    return next((tuple(given[name]) for name in table.get(state.type, ()) if given.get(name)), ())


class _Clash(NamedTuple):
    """Options that contradict each other."""

    happens: Callable[[Mapping[str, Any]], Any]
    told: str


_CLASHES: Final = (
    _Clash(
        lambda given: given["at_most_once"] and (given["retries"] or given["crash_retries"]),
        "at_most_once=True means that nothing is tried again, so it cannot have retries or "
        "crash_retries. Leave out the one or the others.",
    ),
    _Clash(
        lambda given: given["memory_growth"] and not given["crash_retries"],
        "memory_growth says what a retry after running out of memory asks for, but there is no "
        "such retry. Add crash_retries=1, or more.",
    ),
    _Clash(
        lambda given: given["cache_policy"] is not None and given["cache_key_fn"],
        "cache_policy and cache_key_fn both say which calls are the same. Join them: "
        "cache_policy=INPUTS + CacheKeyFnPolicy(function).",
    ),
    _Clash(
        lambda given: (
            given["cache_policy"] is None
            and not given["cache_key_fn"]
            and (given["cache_expiration"] or given["refresh_cache"])
        ),
        "cache_expiration and refresh_cache are of no use without a cache_policy, which says which "
        "calls are the same. Add one, such as cache_policy=INPUTS.",
    ),
    _Clash(
        lambda given: cache_policy(given).caches and given["persist_result"] is False,
        "values are cached by keeping them, which persist_result=False forbids. Leave that out, or "
        "say cache_policy=NO_CACHE.",
    ),
    _Clash(
        lambda given: given["teardown"] and given["trigger_rule"],
        "a teardown runs whatever became of what it waits for, so it cannot have a trigger_rule. "
        "Leave out the one or the other.",
    ),
)


def _check_together(owner: str, given: Mapping[str, Any]) -> None:
    """Refuse options that contradict each other.

    Raises:
        DefinitionError: Names `owner`, the options and the remedy.
    """
    known = defaultdict(lambda: None, given)
    for clash in _CLASHES:
        if clash.happens(known):
            raise errors.DefinitionError(f"{owner}: {clash.told}")


def _trigger_rule(given: Mapping[str, Any]) -> TriggerRule:
    if given.get("teardown"):
        return TriggerRule.ALL_DONE_SETUP_SUCCESS
    return TriggerRule(given.get("trigger_rule") or TriggerRule.ALL_SUCCESS)


def _cache_options(given: Mapping[str, Any]) -> CacheOptions | None:
    if not cache_policy(given).caches:
        return None
    expires = given.get("cache_expiration")
    seconds = expires.total_seconds() if isinstance(expires, timedelta) else expires
    return CacheOptions(expires_seconds=seconds, refresh=bool(given.get("refresh_cache")))


def _limits(given: Mapping[str, int] | Iterable[str]) -> tuple[tuple[str, int], ...]:
    amounts = given if isinstance(given, Mapping) else dict.fromkeys(given, 1)
    return tuple(sorted(amounts.items()))


def _task_result_policy(given: Mapping[str, Any]) -> ResultPolicy:
    policy = _result_policy(given)
    # A value that another run is to find must be kept at any size.
    return replace(policy, persist=True) if cache_policy(given).caches else policy


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
