"""What a backend tells about the calls it ran: small, picklable, and all that the driver reads."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from raflow.model._cause import Cause


class TaskRunKey(NamedTuple):
    """Identifies a task run within its flow run."""

    node: int
    """Id of the graph node: the position of the call."""
    map_index: int = -1
    """Position of the item in a map; -1 for a single call."""


class Chunk(NamedTuple):
    """Calls of one node that are treated as one: a single call, or neighbouring items of a map."""

    node: int
    start: int = -1
    """Map index of the first item; -1 for a single call."""
    stop: int = 0
    """Map index after the last item; 0 for a single call."""
    attempt: int = 1
    """Which attempt of each of them it is, from 1."""

    @property
    def size(self) -> int:
        """How many calls it stands for."""
        return self.stop - self.start

    def key(self, offset: int) -> TaskRunKey:
        """Return the task run at an offset from the first."""
        return TaskRunKey(self.node, self.start + offset)

    def runs(self) -> Iterator[TaskRunKey]:
        """Yield its task runs, in order."""
        return (TaskRunKey(self.node, item) for item in range(self.start, self.stop))


class Place(NamedTuple):
    """Where calls ran."""

    pid: int = 0
    host: str = ""
    node_id: str = ""
    """The backend's id of the node."""


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
    lost_inputs: tuple[int, ...] = ()
    """Of an attempt that is LOST because its inputs are: which of the node's edges. Its code has
    not begun."""
    cause: Cause | None = None
    """Why its process ended, where it did not end by itself."""


PLAIN_TYPES: Final = frozenset({type(None), bool, int, float, str})
"""Types whose values are described together, as one JSON array, instead of one by one."""

UNKNOWN_TRUTH: Final = 2
"""Stands in `BatchReport.truths` for a value whose truth might cost or raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReport:
    """What happened to a batch. The columns have an entry for each of its calls, by position."""

    batch: int
    place: Place
    started_at: array[float]
    """Seconds since the Unix epoch (`array("d")`); 0.0 for a call that did not start."""
    ended_at: array[float]
    cpu_seconds: array[float]
    """Measured for calls of a millisecond and more; shorter ones share what the batch used."""
    peak_memory: int = 0
    """Highest resident memory of the process up to the end of the batch, in bytes."""
    unstarted: Sequence[int] = ()
    """Positions of calls handed back, because the time was up or an input was not there. Calls
    that were handed back earlier (`CallsReturned`) are among them."""
    told: Mapping[int, CallReport] = field(default_factory=dict)
    """By position: every call that did not simply complete, and those that logged or were named.
    The rest have completed, and left nothing but their value."""
    plain: bytes = b""
    """JSON array of the values of completed calls of `PLAIN_TYPES`, null at the other positions;
    empty if there are none. What is known about the other values stands in `told` or `results`."""
    results: Mapping[int, ResultInfo] = field(default_factory=dict)
    """By position: completed calls whose value is not in `plain` and that are not in `told`."""
    truths: bytes = b""
    """For each position 1 (true), 0 (false) or `UNKNOWN_TRUTH`."""
    own: Mapping[int, int] = field(default_factory=dict)
    """By position: calls whose value is an object of its own, and which of them (from 1); the
    values of the others are object 0, a list by position."""
    mean_bytes: float = 0.0
    """Mean size of the values, estimated."""
