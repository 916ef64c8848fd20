"""What the runtime asks of the record: satisfied by the store, and by whatever stands for one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from raflow.model import (
    Awaited,
    CacheEntry,
    Edge,
    FlowRun,
    Granted,
    GraphNode,
    InputRequest,
    LimitState,
    ProcessInfo,
    RecordBatch,
    ResultInfo,
    RunLease,
    RunNumbers,
    RunRequest,
    SlotRequest,
    StateChange,
    StateType,
    TaskPace,
    TaskRun,
    TaskRunBlock,
    TaskRunKey,
)


class RunStore(Protocol):
    """The record, as far as runs need it; what it raises is what `raflow.store.Store` raises."""

    @property
    def leases(self) -> RunLeases: ...
    @property
    def requests(self) -> RunRequests: ...
    @property
    def limits(self) -> RunLimits: ...
    @property
    def cache(self) -> RunCache: ...
    @property
    def recall(self) -> Past: ...

    def is_there(self) -> bool:
        """Whether the record is still the one that was opened."""

    def close(self) -> None:
        """Close the connections to the record."""

    def apply(self, batch: RecordBatch) -> bool:
        """Write a batch, unless it has been written already."""

    def append_log(self, flow_run_id: str, blob: bytes) -> tuple[str, int]:
        """Store a log segment; return its file and offset."""

    def paces(self, flow: str, fingerprint: str) -> Mapping[str, TaskPace]:
        """Return what earlier runs of the same code have learned about its tasks, by task."""

    def find_flow_run(self, text: str) -> FlowRun:
        """Return the flow run that a person means."""

    def flow_runs(self, *, limit: int | None, parent: str) -> Sequence[FlowRun]:
        """Return the runs that the body of a flow run started, newest first."""

    def task_runs(
        self, flow_run_id: str, *, state_types: Collection[StateType] | None = None
    ) -> Sequence[TaskRun]:
        """Return task runs in the order of their keys."""

    def states(self, flow_run_id: str) -> list[StateChange]:
        """Return what a flow run itself went through, oldest first."""

    def result(self, flow_run_id: str, key: TaskRunKey | None = None) -> ResultInfo | None:
        """Return what is known about the value of a task run, or by default of the flow run."""


class RunLeases(Protocol):
    """Which process drives which flow run."""

    def begin_incarnation(
        self,
        flow_run_id: str,
        *,
        host: str,
        pid: int,
        process_started: float,
        seconds: float,
        force: bool = False,
        gone: RunLease | None = None,
    ) -> int:
        """Let a process take over a flow run; from then on nobody else can write for it."""

    def renew(
        self,
        flow_run_id: str,
        incarnation: int,
        *,
        seconds: float,
        host: str = "",
        pid: int = 0,
        process_started: float = 0.0,
    ) -> tuple[RunRequest, ...]:
        """Renew the lease of a process, or make it; return what others ask of the run."""

    def let_go(self, flow_run_id: str, incarnation: int) -> None:
        """Give a flow run back, if the process with this number still has it."""

    def get(self, flow_run_id: str) -> RunLease | None:
        """Return who drives a flow run, or did last without giving it back."""

    def is_alive(self, flow_run_id: str) -> bool:
        """Tell whether a process drives a flow run, or the run that it is a subflow of."""

    def abandoned(self) -> Sequence[FlowRun]:
        """Return flow runs that are under way and that no process drives, newest first."""

    def of_host(self, host: str) -> Sequence[RunLease]:
        """Return the leases of processes of a host, whether they are alive or not."""

    def note_processes(
        self,
        flow_run_id: str,
        processes: Iterable[ProcessInfo],
        *,
        ended: Iterable[ProcessInfo] = (),
    ) -> None:
        """Note processes that work for a flow run, and forget those that have ended."""

    def processes(self, flow_run_id: str) -> Sequence[ProcessInfo]:
        """Return the processes that were noted for a flow run."""


class RunRequests(Protocol):
    """What is asked of flow runs, and what flow runs ask of people."""

    def of(self, flow_run_id: str, *, open_only: bool = False) -> tuple[RunRequest, ...]:
        """Return what was asked of a flow run, oldest first."""

    def answered(self, request_id: int, outcome: str) -> None:
        """Note what became of a request."""

    def ask_person(self, request: InputRequest) -> InputRequest:
        """Ask people for input, or find the answer if the run has asked this before."""

    def answer_person(
        self, flow_run_id: str, number: int, *, answer: bytes, by: str
    ) -> InputRequest:
        """Answer what a flow run asks of people."""

    def input_requests(self, *, flow_run_id: str, open_only: bool) -> Sequence[InputRequest]:
        """Return what a flow run asks of people, oldest first."""


class RunLimits(Protocol):
    """Limits that all flow runs share."""

    def all(self) -> Sequence[LimitState]:
        """Return every limit with those who hold its slots and those in line."""

    def acquire(self, request: SlotRequest, *, seconds: float) -> Granted | Awaited:
        """Take slots: all that are wanted, or none, and a place in line for them."""

    def renew(self, flow_run_id: str, *, seconds: float) -> frozenset[str]:
        """Renew what a flow run holds; return the holders that still have it."""

    def release(self, holder: str) -> None:
        """Give back what a holder holds or waits for."""

    def release_all(self, flow_run_id: str) -> None:
        """Give back what a flow run holds or waits for."""


class RunCache(Protocol):
    """Values that were computed before."""

    def find(self, keys: Iterable[str]) -> Mapping[str, CacheEntry]:
        """Return what is there under these keys, by key."""

    def keep(self, entries: Iterable[CacheEntry]) -> None:
        """Keep values, instead of what was there under their keys."""

    def claim(
        self, key: str, holder: str, *, seconds: float, flow_run_id: str = "", label: str = ""
    ) -> Granted | Awaited:
        """Let one holder at a time compute the value of a key."""

    def withdraw(self, flow_run_id: str, runs: Iterable[TaskRunKey]) -> int:
        """Forget what some task runs of a flow run have computed; return how much that was."""


class Past(Protocol):
    """Reads what was recorded of a flow run."""

    def numbers(self, flow_run_id: str) -> RunNumbers:
        """Return where the record goes on counting."""

    def blocks(self, flow_run_id: str) -> Iterator[TaskRunBlock]:
        """Yield the task runs that completed at once, in blocks."""

    def rows(self, flow_run_id: str) -> Iterator[TaskRun]:
        """Yield the task runs that have a row of their own; it counts instead of a block."""

    def nodes(self, flow_run_id: str) -> list[GraphNode]:
        """Return the calls of the body, in the order of ids."""

    def edges(self, flow_run_id: str) -> list[Edge]:
        """Return what the calls depend on."""
