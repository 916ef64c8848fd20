"""The rows of a flow run's history, as the recorder hands them to the store."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from raflow._util import short_id
from raflow.model._cause import Cause
from raflow.model._graph_parts import Edge, GraphNode
from raflow.model._report import Chunk, ErrorInfo, Outcome, Place, ResultInfo, TaskRunKey
from raflow.model._state import State

if TYPE_CHECKING:
    from raflow.model._origin import RunOrigin

_TAIL: Final = 6
"""So much of its id the name that raflow makes for a run ends with."""


class Trigger(StrEnum):
    """Why a flow run exists."""

    MANUAL = "manual"
    API = "api"
    SCHEDULE = "schedule"
    BACKFILL = "backfill"
    EVENT = "event"
    PARENT = "parent"
    RETRY = "retry"
    """Somebody wanted a rerun of another run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowVersion:
    """A flow as it was declared at one moment."""

    flow: str
    """Name of the flow."""
    fingerprint: str
    """Hash of the code of the flow and its tasks; equal code gives an equal fingerprint."""
    version: str = ""
    """The version its author gave it."""
    description: str = ""
    entrypoint: str = ""
    """Where it was loaded from: `file.py:flow` or `module:flow`."""
    source: str = ""
    """Source text of the flow function, where it can be read."""
    parameter_schema: Mapping[str, Any] = field(default_factory=dict)
    """JSON Schema of the parameters."""
    created_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRun:
    """One execution of a flow; the newest record of an id replaces the one before."""

    id: str
    flow: str
    fingerprint: str
    name: str
    state: State
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """JSON form of the parameters; what JSON cannot carry stands as its preview."""
    trigger: Trigger = Trigger.MANUAL
    backend: str = ""
    parent_id: str | None = None
    """The flow run whose body called this flow."""
    parent_node: int | None = None
    """The node of the parent that stands for this run."""
    created_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    tags: tuple[str, ...] = ()
    host: str = ""
    pid: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of python, raflow and ray."""
    error: ErrorInfo | None = None
    result: ResultInfo | None = None
    incarnation: int = 1
    """Which process of the run wrote this, from 1; that of its batch counts."""
    inputs: ResultInfo | None = None
    """The exact parameters, kept like a result: what a resumed run starts from."""
    rerun_of: str | None = None
    """The flow run whose values this one reuses."""
    rerun_from: tuple[str, ...] = ()
    """The tasks and calls that it does not reuse, nor what depends on them."""
    origin: RunOrigin | None = None
    """Where a run of a deployment comes from; the store keeps it as it was ordered."""

    @property
    def short_name(self) -> str:
        """The shortest text that names it for sure: its name, if that ends as its id does."""
        named = self.name.endswith(self.id[-_TAIL:]) and " " not in self.name
        return self.name if named else short_id(self.id)


class GraphRecord(NamedTuple):
    """A part of the run's graph; a node replaces an earlier one of the same id."""

    flow_run_id: str
    nodes: Sequence[GraphNode] = ()
    edges: Sequence[Edge] = ()
    dropped: Sequence[int] = ()
    """Calls of which all that was recorded before is dropped: others stand in their place now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRun:
    """One call of a task; the newest record of a key replaces the one before."""

    flow_run_id: str
    key: TaskRunKey
    task: str
    """Name of the task, or of the flow for a subflow."""
    label: str
    """Readable and unique in the flow run: `extract-0`, `extract-0[7]` or the user's own."""
    state: State
    attempts: int = 0
    """Attempts so far."""
    created_at: float = 0.0
    started_at: float | None = None
    """Start of the last attempt."""
    ended_at: float | None = None
    child_flow_run_id: str | None = None
    """The child flow run of a subflow."""
    error: ErrorInfo | None = None
    result: ResultInfo | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRunBlock:
    """Task runs that completed at their first attempt, together: what most runs are.

    A `TaskRun` record of the same key, if there is one, counts instead. The columns have an entry
    for each task run, in the order of `chunks`.
    """

    flow_run_id: str
    number: int
    """Position among the blocks of the flow run, from 0."""
    chunks: tuple[Chunk, ...]
    submitted_at: float
    started_at: array[float]
    ended_at: array[float]
    cpu_seconds: array[float]
    place: Place
    peak_memory: int = 0
    """Bytes, of the process that ran them all."""
    plain: bytes = b""
    """JSON array of the values that are plain (see `BatchReport.plain`), null for the others."""
    results: Mapping[int, ResultInfo] = field(default_factory=dict)
    """By position in the block: what is known about values that are not plain."""
    labels: Mapping[int, str] = field(default_factory=dict)
    """By position in the block: names that `task_run_name` made."""
    origin: str = ""
    """Where their values come from, in words, if nothing ran: they are Cached, without attempts,
    and the columns tell when they were taken over."""

    @property
    def size(self) -> int:
        """How many task runs it holds."""
        return len(self.started_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPace:
    """What was learned about the calls of a task, for the next run of the same code."""

    flow: str
    fingerprint: str
    task: str
    """Name of the task."""
    seconds: float
    """Mean duration of a call."""
    bytes: float
    """Mean size of its value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try of a task run that has ended."""

    flow_run_id: str
    key: TaskRunKey
    number: int
    """From 1."""
    outcome: Outcome
    submitted_at: float
    started_at: float | None
    """None if it never started, or died without telling."""
    ended_at: float
    cpu_seconds: float = 0.0
    peak_memory: int = 0
    """Bytes."""
    memory: int = 0
    """Bytes that it asked for, where that was not what its call did: after an attempt before it had
    run out of memory."""
    pid: int = 0
    host: str = ""
    node_id: str = ""
    message: str = ""
    error: ErrorInfo | None = None
    cause: Cause | None = None
    """Why it ended, where that was not the code's own doing."""

    @property
    def queue_wait(self) -> float | None:
        """Seconds between submission and start."""
        return None if self.started_at is None else max(0.0, self.started_at - self.submitted_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """A state that a run entered."""

    flow_run_id: str
    number: int
    """Position in the flow run's history, from 0: unique in the flow run."""
    key: TaskRunKey | None
    """None: the flow run itself."""
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSegment:
    """Where the log lines of one attempt, or a stretch of the flow body's own, are stored."""

    flow_run_id: str
    number: int
    """Position in the flow run's log, from 0: unique in the flow run."""
    key: TaskRunKey | None
    """None: the flow's body."""
    attempt: int
    """0 for the flow's body."""
    file: str
    """Path of the segment file below the log directory."""
    offset: int
    length: int
    """Bytes, compressed."""
    lines: int
    first_at: float
    last_at: float
    level: int
    """The highest level in it, as `logging` numbers them (see `LogLine.level`)."""


Record: TypeAlias = (
    FlowVersion
    | FlowRun
    | GraphRecord
    | TaskRun
    | TaskRunBlock
    | TaskPace
    | Attempt
    | StateChange
    | LogSegment
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordBatch:
    """A part of one flow run's history; applied whole or not at all, and at most once."""

    flow_run_id: str
    seq: int
    """Position among the batches of the flow run, from 0."""
    records: tuple[Record, ...]
    incarnation: int = 1
    """Which process of the run wrote it: once a later one has begun, the store refuses it."""
