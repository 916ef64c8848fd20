"""What the runtime asks of a backend, and what a backend tells the runtime.

A backend runs batches of calls. The runtime packs the arguments of a call when the user makes it
(`pack`), sends the call in a `BatchSpec` once the engine says so (`submit`), and reads back events:
`CallStarted` (for calls that run long enough to be worth telling), then one `BatchEnded` or
`BatchLost`. Values stay with the backend: the driver holds `ValueRef`s and fetches only what the
flow's body asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias

from raflow.define import CallForm
from raflow.model import (
    BatchReport,
    Capacity,
    Outcome,
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
    """The call's position in that batch."""


@dataclass(frozen=True, slots=True)
class Part:
    """One item of a list (or other sequence) that is itself a value."""

    value: ValueRef
    index: int


class Known(NamedTuple):
    """A value the driver has: an exception for `allow_failure`, or None for a skipped input."""

    value: object


class ListOf(NamedTuple):
    """A list made of other inputs: the value of a whole map."""

    items: tuple[ValueRef | Known, ...]


InputSource: TypeAlias = ValueRef | Part | Known | ListOf
"""What stands where a future stood in the arguments of a call."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One attempt of one task run, ready to run."""

    run: TaskRunKey
    attempt: int
    function: FunctionHandle
    arguments: tuple[Packed, ...]
    """Arguments by parameter name, merged in order: those that all items of a map share, then the
    item's own."""
    inputs: Mapping[int, InputSource]
    """What fills the holes of the arguments, by `define.Hole.edge`."""
    label: str
    result: ResultPolicy
    timeout_seconds: float | None = None
    log_prints: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSpec:
    """Calls with equal resources that travel together."""

    id: int
    """Unique in the flow run."""
    calls: tuple[Call, ...]
    resources: Resources


class CallStarted(NamedTuple):
    """A call has begun; told only of calls that run for a while."""

    batch: int
    run: TaskRunKey
    attempt: int
    at: float
    pid: int
    host: str


class BatchEnded(NamedTuple):
    """Every call of a batch has been run, or was found unable to run."""

    report: BatchReport
    values: object
    """Handle for the `ValueRef`s of the batch's calls."""


class BatchLost(NamedTuple):
    """A batch ended without a report."""

    batch: int
    outcome: Outcome
    """CRASHED, OUT_OF_MEMORY, LOST, TIMED_OUT (ended by force), CANCELLED, or FAILED (the call
    could not be carried out)."""
    message: str
    """What is known, for people: signal, exit code, node."""


BackendEvent: TypeAlias = CallStarted | BatchEnded | BatchLost


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

    def register(self, function: TaskFunction) -> FunctionHandle:
        """Take a task's function; called once per task and flow run."""

    def submit(self, batch: BatchSpec) -> None:
        """Start a batch as soon as its resources are free. Never blocks for long."""

    def cancel(self, batch: int, *, force: bool) -> None:
        """End a batch: ask the running code to stop, or (`force`) kill its process.

        The batch still ends with an event. Unknown and ended batches are ignored.
        """

    def fetch(self, value: ValueRef) -> object:
        """Return a value; called on the thread that asks for it.

        Raises:
            BackendError: The value is gone.
        """

    def close(self) -> None:
        """Give back what the run holds. No event follows."""


class Backend(Protocol):
    """Where task runs execute."""

    name: str
    """`ray` or `local`."""
    window: int
    """How many batches may be in flight at once."""

    def capacity(self) -> Capacity:
        """Return what there is to run on, busy or not."""

    def open(self, environment: RunEnvironment, post: Callable[[BackendEvent], None]) -> Session:
        """Begin a flow run.

        Args:
            environment: What the run's calls share.
            post: Called with each event, from any thread of the backend; must not block.
        """

    def close(self) -> None:
        """End the backend, and what it started."""
