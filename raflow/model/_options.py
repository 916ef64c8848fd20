"""What a task's declaration says about how its calls run: data only, no user code."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from raflow.model._durable import CacheOptions
from raflow.model._resources import Resources
from raflow.model._retry import RetryPolicy


class TriggerRule(StrEnum):
    """Which states of its upstream task runs let a task run start; Airflow's names and meaning.

    "Failed" here means FAILED, CRASHED or CANCELLED.
    """

    ALL_SUCCESS = "all_success"
    ALL_FAILED = "all_failed"
    ALL_DONE = "all_done"
    ALL_DONE_MIN_ONE_SUCCESS = "all_done_min_one_success"
    ALL_SKIPPED = "all_skipped"
    ONE_SUCCESS = "one_success"
    ONE_FAILED = "one_failed"
    ONE_DONE = "one_done"
    NONE_FAILED = "none_failed"
    NONE_SKIPPED = "none_skipped"
    NONE_FAILED_MIN_ONE_SUCCESS = "none_failed_min_one_success"
    ALWAYS = "always"
    ALL_DONE_SETUP_SUCCESS = "all_done_setup_success"
    """That of teardown tasks: all is done, and what was to be set up has been."""


class Serializer(StrEnum):
    """How a result is written: by the value's kind (`auto`), or always one way."""

    AUTO = "auto"
    JSON = "json"
    ARROW = "arrow"
    PICKLE = "pickle"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultPolicy:
    """Whether and how the value of a task is kept beyond its run."""

    persist: bool | None = None
    """True: always; False: never; None: when it is small enough to be kept in the database."""
    storage: str | None = None
    """An fsspec URL or path for values that do not fit the database. None: the configured one."""
    serializer: Serializer = Serializer.AUTO
    """How the value is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """How the calls of a task run."""

    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeout_seconds: float | None = None
    """Seconds one attempt may take from its start. None: no limit."""
    resources: Resources = field(default_factory=Resources)
    trigger_rule: TriggerRule = TriggerRule.ALL_SUCCESS
    result: ResultPolicy = field(default_factory=ResultPolicy)
    log_prints: bool = True
    """Whether what the task prints is kept in its log."""
    tags: tuple[str, ...] = ()
    batch: bool = True
    """Whether its calls may share a Ray task with others."""
    concurrency_per_worker: int = 1
    """How many calls of an async task may overlap in one worker process."""
    at_most_once: bool = False
    """Whether a call that may have begun is never run again; see `raflow.task`."""
    memory_growth: float = 1.0
    """A retry after running out of memory asks for so many times as much."""
    limits: tuple[tuple[str, int], ...] = ()
    """Slots of named limits that each attempt holds."""
    strict_limits: bool = False
    """Whether an attempt ends that has lost its slots, or goes on and tries to get them again."""
    priority: int = 0
    """Of its claims to limits; higher goes first."""
    cache: CacheOptions | None = None
    """How its values are found again; None: they are not."""
    teardown: bool = False
    """Whether its calls run whatever happened, and cannot make the flow run fail."""
    teardown_counts: bool = False
    """A teardown that fails makes the flow run fail, like any other task."""
