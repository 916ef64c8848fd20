"""What a backend tells about the calls it ran: small, picklable, and all that the driver reads."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class TaskRunKey(NamedTuple):
    """Identifies a task run within its flow run."""

    node: int
    """Id of the graph node: the position of the call."""
    map_index: int = -1
    """Position of the item in a map; -1 for a single call."""


class Outcome(StrEnum):
    """How one attempt ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    CRASHED = "crashed"
    OUT_OF_MEMORY = "out_of_memory"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorInfo:
    """An exception as data, so that it survives any process border."""

    type: str
    """Qualified name of the class, such as `builtins.ValueError`."""
    message: str
    traceback: str = ""
    """Formatted, frames of user code only where that is possible."""
    pickled: bytes | None = None
    """The exception itself, if it can travel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultInfo:
    """What is known about a value without having it."""

    type: str
    """Qualified name of the value's class."""
    size: int
    """Bytes, estimated."""
    preview: str
    """A short text for people."""
    length: int | None = None
    """`len(value)` for lists, tuples, dicts and arrays."""
    truth: bool | None = None
    """`bool(value)` for plain values; None where asking might cost or raise."""
    serializer: str = ""
    """How `inline` or the stored object is written; empty if the value is not kept."""
    inline: bytes | None = None
    """The serialized value, if it is small."""
    url: str = ""
    """Where the serialized value is stored, if it is not inline."""
    digest: str = ""
    """SHA-256 of the serialized value; empty if it is not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallReport:
    """What happened to one attempt of one task run."""

    run: TaskRunKey
    attempt: int
    outcome: Outcome
    started_at: float
    """Seconds since the Unix epoch, by the clock of the node."""
    ended_at: float
    cpu_seconds: float = 0.0
    peak_memory: int = 0
    """Highest resident memory of the process up to the end of the attempt, in bytes."""
    pid: int = 0
    host: str = ""
    node_id: str = ""
    """The backend's id of the node."""
    message: str = ""
    error: ErrorInfo | None = None
    retriable: bool = True
    """False when `retry_condition_fn` said that trying again is pointless."""
    result: ResultInfo | None = None
    label: str = ""
    """The name of the task run, where `task_run_name` made one."""
    logs: bytes = b""
    """Log lines as a compressed segment; see `raflow.model.log_segment`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReport:
    """What happened to a batch: one report per call that ran, in order."""

    batch: int
    calls: tuple[CallReport, ...]
