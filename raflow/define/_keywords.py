"""The options that users write on flows and tasks: their names, their types, their limits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypedDict

from raflow import errors
from raflow.define._caching import CacheKeyFn, CachePolicy
from raflow.model import RetryDelay, Serializer, TriggerRule

Hook: TypeAlias = Callable[[Any, Any, Any], object]
"""Called `(task, task_run, state)` or `(flow, flow_run, state)`."""


class TaskKeywords(TypedDict, total=False):
    """What `@task` and `Task.with_options` take. None always means the default."""

    name: str | None
    """Default: the function's name."""
    description: str | None
    """Default: the function's docstring."""
    tags: Iterable[str] | None
    """Words to find its runs by."""
    version: str | None
    """A version for people; raflow tells versions apart by the code itself."""
    task_run_name: str | Callable[..., str] | None
    """Names each run: a text such as `"load-{region}"` with the task's parameters, or a function of
    some of them. Default: the task's name and a count."""
    retries: int | None
    """Further attempts after an exception or a time-out. Default: 0."""
    retry_delay_seconds: RetryDelay | None
    """Seconds before each: a number, a list (the last repeats), or a function from `retries` to a
    list, such as `exponential_backoff(2)`. Default: 0."""
    retry_jitter_factor: float | None
    """Stretches each delay by a random factor between 1 and 1 + this. Default: 0."""
    retry_condition_fn: Callable[[str, BaseException], bool] | None
    """Asked `(task_name, exception)`; false means that trying again is pointless."""
    crash_retries: int | None
    """Further attempts after the process, its node or its memory was lost. Default: 0."""
    at_most_once: bool | None
    """A call that may have begun is never run again: no retries of any kind, and its start is on
    disk before it runs. For effects that must not happen twice. Default: False."""
    memory_growth: float | None
    """A retry after running out of memory asks for so many times as much as the attempt before;
    needs `crash_retries`. Default: 1, for the same again."""
    timeout_seconds: float | None
    """Limit of one attempt, from its start. Default: none."""
    cache_policy: CachePolicy | None
    """Which calls are the same, so that one computes and the others take its value: `INPUTS`, for
    example, or several joined by `+`. The values are kept. Default: nothing is cached."""
    cache_key_fn: CacheKeyFn | None
    """Called `(parts, arguments)` to make the key; short for a `cache_policy` of it alone."""
    cache_expiration: timedelta | float | None
    """How long a value counts, in seconds or as a timedelta. Default: for ever."""
    refresh_cache: bool | None
    """Compute anew in any case, and keep that. Default: False."""
    limits: Mapping[str, int] | Sequence[str] | None
    """Named limits of which each attempt holds slots while it runs: a dict from names to slots, or
    a list of names for one slot each. Default: none."""
    strict_limits: bool | None
    """What becomes of an attempt whose slots were lost, because its flow's process was cut off from
    the database for too long. True: it ends as LOST, and `crash_retries` try again. Default: False,
    it goes on with a warning, and its slots are asked for again."""
    priority: int | None
    """Of its claims to limits: higher goes first. Default: 0."""
    persist_result: bool | None
    """Keep the value always or never. Default: if it is small enough for the database."""
    result_storage: str | os.PathLike[str] | None
    """An fsspec URL or path for values too large for the database. Default: the configured one."""
    result_serializer: Serializer | str | None
    """How a kept value is written. Default: by the kind of value."""
    log_prints: bool | None
    """Whether what the task prints is part of its log. Default: True."""
    trigger_rule: TriggerRule | str | None
    """Which outcomes of its inputs let the task run. Default: `all_success`."""
    run_if: Callable[..., bool] | None
    """A function of some of the task's parameters; false ends the run as SKIPPED."""
    teardown: bool | None
    """Whether its calls clean up: they run once what they wait for is over, whatever came of it,
    and their failure is not the flow's; see `Task.submit`. Default: False."""
    teardown_counts: bool | None
    """Whether the failure of a teardown is the flow's, after all. Default: False."""
    batch: bool | None
    """Whether its calls may share a Ray task with others, one after the other. False: each is a Ray
    task of its own, for example because it does what must not be done again, not even when a
    neighbour kills the process. Default: True."""
    concurrency_per_worker: int | None
    """How many calls of an async task overlap on the event loop of one worker process; good for
    waiting on the network. Default: 1."""
    on_running: Sequence[Hook] | None
    """Called when an attempt starts."""
    on_completion: Sequence[Hook] | None
    """Called when a run has completed."""
    on_failure: Sequence[Hook] | None
    """Called when a run has failed for good; also when it has crashed, unless `on_crashed` is
    given."""
    on_crashed: Sequence[Hook] | None
    """Called when a run has crashed for good: its process, its node or its memory was lost."""
    on_cancellation: Sequence[Hook] | None
    """Called when a run was cancelled."""
    on_rollback: Sequence[Hook] | None
    """Called for each completed run if the flow run fails, the last one first."""
    num_cpus: float | None
    """CPU cores. Default: 1."""
    num_gpus: float | None
    """GPUs; fractions share one. Default: 0."""
    memory: str | float | None
    """Memory that must be free on the node: bytes, or a text such as `"2GiB"`. Default: any."""
    resources: Mapping[str, float] | None
    """Amounts of named resources that nodes declare."""
    accelerator_type: str | None
    """A type of accelerator, by Ray's name for it."""
    label_selector: Mapping[str, str] | None
    """Labels that the node must carry."""
    scheduling_strategy: object | None
    """`"DEFAULT"`, `"SPREAD"` or one of Ray's strategy objects."""
    runtime_env: Mapping[str, object] | None
    """Ray's `runtime_env`: packages, environment variables, files."""


class FlowKeywords(TypedDict, total=False):
    """What `@flow` and `Flow.with_options` take. None always means the default."""

    name: str | None
    """Default: the function's name."""
    version: str | None
    """A version for people; raflow tells versions apart by the code itself."""
    description: str | None
    """Default: the function's docstring."""
    tags: Iterable[str] | None
    """Words to find its runs by."""
    flow_run_name: str | Callable[..., str] | None
    """Names each run: a text such as `"load-{day}"` with the flow's parameters, or a function of
    some of them. Default: a name made up by raflow."""
    retries: int | None
    """Further attempts of a run that failed: it goes on, and repeats nothing. Default: none."""
    retry_delay_seconds: RetryDelay | None
    """Seconds before each; see `TaskKeywords`. Default: none."""
    timeout_seconds: float | None
    """Limit of a run, from its start. Default: none."""
    validate_parameters: bool | None
    """Check and coerce the parameters by their types before anything runs. Default: True."""
    persist_result: bool | None
    """Keep the value always or never. Default: if it is small enough for the database."""
    result_storage: str | os.PathLike[str] | None
    """An fsspec URL or path for values too large for the database. Default: the configured one."""
    result_serializer: Serializer | str | None
    """How a kept value is written. Default: by the kind of value."""
    log_prints: bool | None
    """Whether what the flow's body prints is part of its log. Default: True."""
    backend: Literal["ray", "local"] | None
    """Where the tasks run. Default: the configured one, which is Ray unless changed."""
    refresh_cache: bool | None
    """Compute what is cached anew, in the whole run, and keep that. Default: False."""
    durability: Literal["group", "task"] | None
    """When a result is on disk: `"group"`, together with others while what follows goes on already;
    `"task"`, before anything that needs it starts. Default: `"group"`."""
    on_running: Sequence[Hook] | None
    """Called when a run starts."""
    on_completion: Sequence[Hook] | None
    """Called when a run has completed."""
    on_failure: Sequence[Hook] | None
    """Called when a run has failed."""
    on_cancellation: Sequence[Hook] | None
    """Called when a run was cancelled."""
    on_crashed: Sequence[Hook] | None
    """Called when a run has crashed."""


class _Rule(NamedTuple):
    accepts: Callable[[Any], bool]
    wanted: str


def check_keywords(owner: str, given: Mapping[str, Any], known: Iterable[str]) -> None:
    """Check the names and the values of options.

    Args:
        owner: Whose they are, for errors: `Task 'load'`.
        given: The options as the user wrote them.
        known: The names that exist.

    Raises:
        DefinitionError: An option does not exist, or its value cannot be used.
    """
    known = list(known)
    for name, value in given.items():
        if name not in known:
            near = errors.closest(name, known)
            hint = f"Did you mean {near[0]!r}?" if near else f"It has: {', '.join(sorted(known))}."
            raise errors.DefinitionError(f"{owner} has no option {name!r}. {hint}", closest=near)
        rule = _RULES.get(name)
        if rule is not None and value is not None and not rule.accepts(value):
            raise errors.DefinitionError(f"{owner}: {name}={value!r} is not {rule.wanted}.")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_texts(value: object) -> bool:
    return (
        isinstance(value, Iterable)
        and not isinstance(value, str | bytes | Mapping)
        and isinstance(value, Sequence | set | frozenset)
        and all(isinstance(item, str) for item in value)
    )


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_growth(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 1


def _is_duration(value: object) -> bool:
    return value > timedelta() if isinstance(value, timedelta) else _is_seconds(value)


def _is_limits(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(_is_text(name) and _is_count(slots) for name, slots in value.items())
    return _is_texts(value) and all(_is_text(name) for name in value)  # type: ignore[attr-defined]  # texts


def _is_functions(value: object) -> bool:
    return isinstance(value, Sequence) and all(callable(item) for item in value)


def _is_text_map(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(item, str) for pair in value.items() for item in pair
    )


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _one_of(kind: type[StrEnum]) -> _Rule:
    names = [member.value for member in kind]
    return _Rule(lambda value: value in names, f"one of {', '.join(map(repr, names))}")


_TEXT: Final = _Rule(_is_text, "a text with something in it")
_NAMING: Final = _Rule(
    lambda value: _is_text(value) or callable(value), "a text or a function that returns one"
)
_FUNCTION: Final = _Rule(callable, "a function")
_FUNCTIONS: Final = _Rule(_is_functions, "a list of functions")
_SECONDS: Final = _Rule(_is_seconds, "a number of seconds above zero")
_BOOL: Final = _Rule(_is_bool, "True or False")

_RULES: Final[Mapping[str, _Rule]] = {
    "name": _TEXT,
    "description": _Rule(lambda value: isinstance(value, str), "a text"),
    "version": _TEXT,
    "tags": _Rule(_is_texts, "a list of texts"),
    "task_run_name": _NAMING,
    "flow_run_name": _NAMING,
    "retry_condition_fn": _FUNCTION,
    "run_if": _FUNCTION,
    "timeout_seconds": _SECONDS,
    "at_most_once": _BOOL,
    "memory_growth": _Rule(_is_growth, "a factor above 1"),
    "cache_policy": _Rule(
        lambda value: isinstance(value, CachePolicy),
        "a cache policy, such as INPUTS or INPUTS + TASK_SOURCE",
    ),
    "cache_key_fn": _FUNCTION,
    "cache_expiration": _Rule(_is_duration, "a timedelta or a number of seconds, above zero"),
    "refresh_cache": _BOOL,
    "limits": _Rule(_is_limits, "a list of names, or a dict from names to slots, 1 or more each"),
    "strict_limits": _BOOL,
    "priority": _Rule(_is_whole, "a whole number"),
    "teardown": _BOOL,
    "teardown_counts": _BOOL,
    "durability": _Rule(lambda value: value in {"group", "task"}, "'group' or 'task'"),
    "batch": _BOOL,
    "concurrency_per_worker": _Rule(_is_count, "a number of calls, 1 or more"),
    "persist_result": _BOOL,
    "log_prints": _BOOL,
    "validate_parameters": _BOOL,
    "result_storage": _Rule(
        lambda value: _is_text(value) or isinstance(value, os.PathLike), "an fsspec URL or a path"
    ),
    "result_serializer": _one_of(Serializer),
    "trigger_rule": _one_of(TriggerRule),
    "backend": _Rule(lambda value: value in {"ray", "local"}, "'ray' or 'local'"),
    "on_running": _FUNCTIONS,
    "on_completion": _FUNCTIONS,
    "on_failure": _FUNCTIONS,
    "on_cancellation": _FUNCTIONS,
    "on_crashed": _FUNCTIONS,
    "on_rollback": _FUNCTIONS,
    "memory": _Rule(
        lambda value: isinstance(value, str | int | float) and not isinstance(value, bool),
        "a number of bytes or a text such as '2GiB'",
    ),
    "resources": _Rule(_is_mapping, "a dict from resource names to amounts"),
    "accelerator_type": _TEXT,
    "label_selector": _Rule(_is_text_map, "a dict from labels to values, all of them texts"),
    "scheduling_strategy": _Rule(
        lambda value: not isinstance(value, str) or value in {"DEFAULT", "SPREAD"},
        "'DEFAULT', 'SPREAD' or one of Ray's strategy objects",
    ),
    "runtime_env": _Rule(_is_mapping, "a dict as Ray's runtime_env"),
}
