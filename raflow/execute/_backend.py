"""What the runtime asks of a backend, and what a backend tells the runtime.

A backend runs batches of calls. The runtime packs the arguments of a call when the user makes it
(`pack`), sends the call in a `BatchSpec` once the engine says so (`submit`), and reads back events:
`CallStarted` (for calls that run long enough to be worth telling), then one `BatchEnded` or
`BatchLost`. Values stay with the backend: the driver holds `ValueRef`s and fetches only what the
flow's body asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias

from raflow import errors
from raflow.define import CallForm
from raflow.execute._slots import ClaimMade, SlotAnswer
from raflow.model import (
    BatchReport,
    Capacity,
    Cause,
    Chunk,
    Outcome,
    ProcessInfo,
    Resources,
    ResultInfo,
    ResultPolicy,
    TaskRunKey,
)


class ValueRef(NamedTuple):
    """Where the value of one call is."""

    handle: object
    """The backend's handle of the values of a batch (on Ray: an ObjectRef of a list)."""
    position: int
    """The call's position in that batch; -1: the object that the handle stands for is the value."""


class ValueSlice(NamedTuple):
    """Where the values of neighbouring calls of one batch are."""

    handle: object
    start: int
    stop: int


class InBatch(NamedTuple):
    """The value of an earlier call of the same batch."""

    position: int


class Kept(NamedTuple):
    """A value that was kept: it is read where it is used, by `ResultKeeper.read`."""

    info: ResultInfo


class Part(NamedTuple):
    """One item of a list (or other sequence) that is itself a value."""

    value: ValueRef | Kept
    item: int


class Known(NamedTuple):
    """A value the driver has: an exception for `allow_failure`, or None for a skipped input."""

    value: object


class ListOf(NamedTuple):
    """A list made of other inputs: the value of a whole map. A slice stands for several items."""

    items: tuple[ValueRef | ValueSlice | Known | Kept, ...]


class EachOf(NamedTuple):
    """Another value for each call of a chunk, in order. A slice stands for several calls."""

    items: tuple[ValueRef | ValueSlice | Known | Kept, ...]


class EachPart(NamedTuple):
    """For the n-th call of a chunk the item `start + n` of a sequence that is itself a value."""

    value: ValueRef | Known | Kept
    start: int


InputSource: TypeAlias = ValueRef | InBatch | Part | Known | Kept | ListOf | EachOf | EachPart
"""What stands where a future stood in the arguments of a chunk. All calls of the chunk get the same
value, except of `EachOf` and `EachPart`."""


class Packed(NamedTuple):
    """The arguments of a call in the backend's own form."""

    payload: object


class FunctionHandle(NamedTuple):
    """A task's function, known to the backend."""

    key: str
    """Equal keys mean equal code: workers keep the unpacked function under it."""
    payload: object
    """The backend's own form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFunction:
    """The user code of a task: everything of it that runs in a worker process."""

    name: str
    """Name of the task."""
    key: str
    """Equal for equal code; see `FunctionHandle.key`."""
    fn: Callable[..., Any]
    """The plain function; a coroutine function is run to its end."""
    form: CallForm
    """How arguments by name become a call of `fn`."""
    run_if: Callable[..., bool] | None = None
    """Asked with the call's arguments before `fn`; false ends the run as SKIPPED."""
    retry_condition_fn: Callable[..., bool] | None = None
    """Asked `(task_name, exception)` after an exception; false means that no retry can help."""
    task_run_name: Callable[[Mapping[str, Any]], str] | None = None
    """Makes the label of a run from its arguments by name."""


class ResultKeeper(Protocol):
    """Describes the value of a call, and keeps it as its policy says; used in worker processes."""

    def keep(
        self, value: object, policy: ResultPolicy, *, run: TaskRunKey, attempt: int
    ) -> ResultInfo:
        """Describe `value`, store it if the policy asks for that, and return what is known.

        Raises:
            ResultStorageError: Storage cannot be written.
            SerializationError: `serializer` cannot write such a value.
        """

    def keep_plain(self, values: Sequence[object], policy: ResultPolicy) -> bytes | None:
        """Keep values of `model.PLAIN_TYPES` together: a JSON array, as in `BatchReport.plain`.

        Returns:
            None if they must be kept one by one: the policy says so, or JSON would change one of
            them (an infinite number, a whole number of more than 64 bits, half a surrogate pair).
        """

    def read(self, info: ResultInfo) -> object:
        """Return a value that was kept.

        Raises:
            NotFoundError: It was not kept.
            ResultStorageError: It cannot be read, or is not what was written.
            SerializationError: It cannot be turned back into a value.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnvironment:
    """What all calls of a flow run share; sent to each worker process once."""

    flow_run_id: str
    flow: str
    flow_run_name: str
    keeper: ResultKeeper
    sys_path: tuple[str, ...] = ()
    """Entries that worker processes add to `sys.path`, so that they find the user's modules."""
    log_level: int = 20
    """Lowest level of `logging` records that are kept."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """JSON form of the flow's parameters."""


class CallSettings(NamedTuple):
    """How the calls of a chunk run; equal for all calls with the same options."""

    result: ResultPolicy
    timeout_seconds: float | None = None
    log_prints: bool = True
    concurrency: int = 1
    """How many calls of an async function may overlap in one process."""


class Call(NamedTuple):
    """One attempt of each task run of a chunk, ready to run."""

    chunk: Chunk
    function: FunctionHandle
    arguments: Packed
    """By parameter name: all arguments of a single call, what the items of a map share."""
    items: Packed | None
    """For a chunk of a map whose items the body gave: their own arguments; see `pack_items`."""
    inputs: Mapping[int, InputSource]
    """What fills the holes of the arguments, by `define.Hole.edge`."""
    key: str
    """Key of the node, which is also the label of a single call; items are `key[map_index]`."""
    settings: CallSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSpec:
    """Calls with equal resources that travel together.

    The position of a call in a batch counts every call of every chunk, in order, from 0.
    """

    id: int
    """Unique in the flow run."""
    calls: tuple[Call, ...]
    resources: Resources
    budget: float
    """Seconds after which no more calls are started; those that are left are handed back, with the
    report, or (`CallsReturned`) while a long call still runs. Also handed back are calls with an
    `InBatch` input that did not complete."""
    own_values: int = 1
    """How many values may become objects of their own. A value of more than 100 KiB does, and if
    none is left for the next one, it ends the batch."""
    places: int = 0
    """How many batches of these resources can run at once; 0: that is not known. If so many are
    out, it may be kept for the first process that becomes free."""

    @property
    def size(self) -> int:
        """How many calls there are."""
        return sum(call.chunk.size for call in self.calls)


class CallStarted(NamedTuple):
    """A call has begun; told only of calls that run for a while."""

    batch: int
    run: TaskRunKey
    attempt: int
    at: float
    pid: int
    host: str


class CallsReturned(NamedTuple):
    """A batch that goes on running has handed back calls that it has not started, and will not."""

    batch: int
    positions: Sequence[int]


class SlotsAsked(NamedTuple):
    """A running call wants slots of limits; `Session.tell_slots` answers. May come again."""

    batch: int
    made: ClaimMade


class SlotsLeft(NamedTuple):
    """A running call does not want, or hold, slots any more. The end of its batch says so too."""

    batch: int
    claim: int


class BatchEnded(NamedTuple):
    """Every call of a batch has been run, was found unable to run, or was handed back."""

    report: BatchReport
    values: tuple[object, ...]
    """Handles: first of the list of values by position, then of values that are objects of their
    own, as `BatchReport.own` counts them."""
    lost: tuple[object, ...] = ()
    """Handles of objects that calls needed and that are gone; see `CallReport.lost_inputs`."""


class BatchLost(NamedTuple):
    """A batch ended without a report."""

    batch: int
    outcome: Outcome
    """CRASHED, OUT_OF_MEMORY, LOST, TIMED_OUT (ended by force), CANCELLED, or FAILED (the batch
    could not be carried out)."""
    message: str
    """What is known, for people: signal, exit code, node."""
    running: Sequence[int] | None = None
    """Positions of the calls that ran when it ended; empty: none had begun; None: not known."""
    cause: Cause | None = None
    """Why, as far as it is known; None: there is no more to say than the message does."""


class CallsHeldUp(NamedTuple):
    """Calls of the run wait for something that does not come by itself."""

    reason: str
    """What, and what can be done; empty: they do not any more."""


class BackendGone(NamedTuple):
    """The backend has died: nothing can be started any more, and what runs is not told of.

    Told once to each session, before anything that comes of it is told: calls in flight may still
    be told of as LOST afterwards.
    """

    message: str
    """What died, for people."""
    running: Sequence[tuple[TaskRunKey, int]] = ()
    """Task runs of which it is known that they ran, and their attempts."""
    error: errors.BackendError | None = None
    """What to raise. Default: a `BackendError` with the message."""


BackendEvent: TypeAlias = (
    CallStarted
    | CallsReturned
    | SlotsAsked
    | SlotsLeft
    | BatchEnded
    | BatchLost
    | CallsHeldUp
    | BackendGone
)


class Session(Protocol):
    """One flow run's use of a backend."""

    def pack(self, task: str, arguments: Mapping[str, Any]) -> Packed:
        """Take the arguments of a call as they are now; called where the user makes the call.

        Args:
            task: Name of the task, for errors.
            arguments: By parameter name; futures are already replaced by `define.Hole`s.

        Raises:
            UnserializableArgumentError: An argument cannot travel; names task and parameter.
        """

    def pack_items(self, task: str, columns: Mapping[str, Sequence[Any]]) -> Packed:
        """Take the arguments that each item of a chunk has for itself; may be called on any thread.

        Args:
            task: Name of the task, for errors.
            columns: Equally long, by parameter name: the n-th entry is for the n-th item. Futures
                inside are already replaced by `define.Hole`s.

        Raises:
            UnserializableArgumentError: An argument cannot travel; names task and parameter.
        """

    def register(self, function: TaskFunction) -> FunctionHandle:
        """Take a task's function; called once per task and flow run."""

    def submit(self, batch: BatchSpec) -> None:
        """Start a batch as soon as its resources are free. Never blocks for long."""

    def cancel(self, batch: int, *, force: bool) -> None:
        """End a batch: ask the running code to stop, or (`force`) kill its process.

        The batch still ends with an event. Unknown and ended batches are ignored.
        """

    def cancel_calls(self, batch: int, positions: Sequence[int], *, force: bool) -> None:
        """End single calls of a batch, and let the others go on.

        Calls that run get `TaskInterrupted`, calls that have not begun will not; the report tells
        of both as CANCELLED. With `force` the process is ended: the report then tells of these
        calls only, and hands all others back, also those that had completed. Where the backend
        cannot reach a batch that has not begun to speak, `force` is needed.

        Unknown and ended batches are ignored.
        """

    def tell_slots(self, batch: int, claim: int, answer: SlotAnswer) -> None:
        """Answer a running call that has asked for slots of limits (`SlotsAsked`).

        A `SlotLostError` for the claim `WHOLE_CALL` ends the call, which travels alone: as LOST.
        Unknown and ended batches are ignored.
        """

    def fetch(self, source: ValueRef | Part | Known | Kept | ListOf) -> object:
        """Return the value that a source stands for; called on the thread that asks for it.

        Raises:
            BackendError: The value is gone, or a kept one cannot be read.
        """

    def close(self) -> None:
        """Give back what the run holds. No event follows."""


class Backend(Protocol):
    """Where task runs execute."""

    name: str
    """`ray` or `local`."""
    window: int
    """How many batches may be in flight at once."""

    @property
    def is_gone(self) -> bool:
        """Whether it has died: all its sessions have been told so, and another has to be made."""

    def capacity(self) -> Capacity:
        """Return what there is to run on, busy or not."""

    def open(self, environment: RunEnvironment, post: Callable[[BackendEvent], None]) -> Session:
        """Begin a flow run.

        Args:
            environment: What the run's calls share.
            post: Called with each event, from any thread of the backend; must not block.
        """

    def processes(self) -> tuple[ProcessInfo, ...]:
        """Return the processes that the backend has started and that would outlive this one."""

    def close(self) -> None:
        """End the backend, and what it started."""
