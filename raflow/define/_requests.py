"""What a flow's body asks for, and of whom: the seam between definitions and whoever runs them.

Calling a task inside a flow makes a `CallRequest` and hands it to the active `FlowContext`: the
runtime's, which starts it, or tracing's, which only draws it.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from raflow.define._occasions import Occasions
from raflow.model import Edge, EdgeKind, NodeKind, State, TaskOptions, TaskRunKey

if TYPE_CHECKING:
    from raflow import errors
    from raflow.define._definition import Definition


NO_ARGUMENTS: Final[Mapping[str, Any]] = MappingProxyType({})


class Hole(NamedTuple):
    """Stands in a call's arguments where a future was."""

    edge: int
    """Position among the call's dependencies of the one whose value belongs here."""


class Dependency(NamedTuple):
    """One thing a call depends on: an edge whose target is the call being made."""

    source: int
    """Id of the node that is waited for."""
    kind: EdgeKind = EdgeKind.DATA
    parameter: str = ""
    source_item: int | None = None
    target_item: int | None = None
    allow_failure: bool = False

    def edge(self, target: int) -> Edge:
        """Return the edge of the graph, once the call is the node `target`."""
        return Edge(
            source=self.source,
            target=target,
            kind=self.kind,
            parameter=self.parameter,
            source_item=self.source_item,
            target_item=self.target_item,
            allow_failure=self.allow_failure,
        )


class CallRequest(NamedTuple):
    """A call as the flow's body made it, with futures taken out of its arguments."""

    kind: NodeKind
    target: Definition
    """A `Task` or a `Flow`."""
    options: TaskOptions
    arguments: Mapping[str, Any]
    """By parameter name, with a `Hole` where a future was. For a map: what all items share."""
    dependencies: tuple[Dependency, ...] = ()
    items: Columns | Stream | None = None
    """For a map over what the body gave: each item's own arguments, all there or coming one after
    the other. None for a map over values to come alone (`item_arguments`), and for single calls."""
    item_arguments: Mapping[str, Any] = NO_ARGUMENTS
    """For a map: the arguments that are a `Hole` of an ITEM dependency, alike for every item."""
    runnable: bool = True
    """False for `run_if=False`."""
    line: str = ""
    """Where the call stands: `file.py:12`."""
    teardown_of: tuple[int, ...] = ()
    """For a teardown (`options.teardown`): the nodes that set up what it tears down. They are among
    the dependencies, too."""


class Columns:
    """The arguments of the items of a map, as equally long columns."""

    __slots__ = ("_columns", "_length")

    def __init__(self, columns: Mapping[str, Sequence[Any]], length: int) -> None:
        """Take columns of this length, by parameter name."""
        self._columns = columns
        self._length = length

    def __len__(self) -> int:
        return self._length

    def slice(self, start: int, stop: int) -> Mapping[str, Sequence[Any]]:
        """Return the columns of the items from `start` up to, without, `stop`."""
        return {name: column[start:stop] for name, column in self._columns.items()}


class Stream(Protocol):
    """The items of a map over an iterator, taken from it when there is room for them."""

    def take(self, count: int) -> Columns:
        """Return the next items: at most `count`, fewer if they come slowly, none at the end.

        Raises:
            Exception: Whatever the iterator raises, after the items before it.
            MappingLengthMismatchError: Another argument of the map has more, or fewer, items.
        """


class Registered(NamedTuple):
    """What a call became."""

    node: int
    key: str
    """Readable and unique in the flow run, such as `extract-0`."""


class CallKeys:
    """Gives each call of a flow run its readable key; a traced graph and a run have the same."""

    def __init__(self) -> None:
        """Begin a flow run."""
        self._counts: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)

    def next(self, name: str) -> str:
        """Return the key of the next call of the task or flow of this name: `extract-0`."""
        return f"{name}-{next(self._counts[name])}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a flow asks of people."""

    title: str
    form: Mapping[str, Any]
    """JSON Schema of the answer."""
    default: bytes | None = None
    """JSON of the answer that counts if nobody gives one in time. None: there is none."""
    timeout_seconds: float | None = None
    """How long the question stands. None: until it is answered."""
    assignees: tuple[str, ...] = ()
    """Who should answer; empty: anybody."""


class SlotsWanted(NamedTuple):
    """Slots that a piece of code wants to hold for a while."""

    amounts: Mapping[str, int]
    """By name of the limit; all are taken at once."""
    timeout_seconds: float | None = None
    """How long to wait for them at most; None: as long as it takes."""
    priority: int = 0
    """Higher goes first."""
    strict: bool = False
    """Whether the code is to end if it loses them."""


class SlotGate(Protocol):
    """Where slots of named limits can be had, by a flow's body or by a task."""

    def acquire(self, wanted: SlotsWanted, /) -> str:
        """Wait until slots of limits are free, take them all at once, and hold them.

        They are renewed until `release` gives them back, and lost if the process dies.

        Returns:
            What `release` takes.

        Raises:
            UnknownLimitError: Nobody has set a limit of that name.
            SlotTimeoutError: The slots did not come in time; says who holds them. None is held.
        """

    async def acquire_async(self, wanted: SlotsWanted, /) -> str:
        """Do as `acquire` without blocking the event loop; cancelled, it holds nothing."""

    def release(self, holder: str) -> errors.SlotLostError | None:
        """Give slots back; does not block. Giving them back again does nothing.

        Returns:
            If the code was to end when it lost them, and it did lose them: how.
        """


class FlowContext(SlotGate, Protocol):
    """Whoever is executing, or tracing, the body of a flow."""

    def call(self, request: CallRequest) -> Registered:
        """Take a call; it starts once its inputs are there. Does not block."""

    def drop(self, node: int) -> None:
        """Take note that no future of this node is left, so that nobody asks for its value again.

        Called by the interpreter where it frees the last future: on any thread, and in the middle
        of anything. It must not block.
        """

    def length(self, node: int) -> int:
        """Return the number of items of a map, waiting until it is known."""

    def state(self, run: TaskRunKey) -> State:
        """Return the present state of a task run."""

    def result(
        self, node: int, item: int | None, *, timeout: float | None, raise_on_failure: bool
    ) -> Any:
        """Wait for a value and return it.

        Args:
            node: The node that makes the value.
            item: The item of a map; None for a single call, or for the list of all items.
            timeout: Seconds to wait at most; None: as long as it takes.
            raise_on_failure: Raise the task's exception (True), or return it (False).

        Raises:
            TimeoutError: The value did not come in time.
        """

    async def result_async(self, node: int, item: int | None) -> Any:
        """Wait for a value without blocking the event loop; raises the task's exception."""

    def wait(self, node: int, item: int | None, *, timeout: float | None) -> bool:
        """Wait until the run, or each item of a map, is final; False if that took too long."""

    def cancel(self, node: int, item: int | None) -> None:
        """Ask that a run, or each item of a map, be cancelled; what is over stays as it is.

        Does not block. What has not begun never begins; what runs is interrupted, and ended by
        force if it does not end.
        """

    def ask(self, question: Question) -> bytes:
        """Ask people, wait for the answer and return it as JSON, unchecked.

        The questions of a run are numbered in the order in which the body asks: a resumed run finds
        the answers that were given.

        Raises:
            TimeoutError: Nobody answered in time, and there is no default.
        """

    async def ask_async(self, question: Question) -> bytes:
        """Do as `ask` without blocking the event loop."""

    def pause(self, timeout_seconds: float | None) -> None:
        """Start no more tasks, and wait until somebody lets the run go on.

        Raises:
            TimeoutError: Nobody did within `timeout_seconds`. The run is no longer paused then.
        """

    async def pause_async(self, timeout_seconds: float | None) -> None:
        """Do as `pause` without blocking the event loop."""

    def occasion(self, what: str) -> str:
        """Return the name of a request with this content, the same when the body is run again."""

    def suspend(self) -> None:
        """Wait until what runs is over, and end the body here; the run is resumed later.

        The calls of `suspend` in a run are numbered in the order in which the body makes them: in a
        resumed run, those that it was resumed from return at once.

        Raises:
            RunSuspended: Ends the body; the runtime expects it.
        """

    async def suspend_async(self) -> None:
        """Do as `suspend` without blocking the event loop."""


active_flow: ContextVar[FlowContext | None] = ContextVar("raflow_active_flow", default=None)
"""The context of the flow body that this code is part of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRunContext:
    """What a running task can know about its run; see `raflow.get_run_context`."""

    flow_run_id: str
    flow: str
    flow_run_name: str
    task: str
    label: str
    """The name of the task run."""
    run: TaskRunKey
    attempt: int
    """From 1."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """JSON form of the flow's parameters."""
    occasions: Occasions = field(default_factory=Occasions, repr=False, compare=False)
    """What its code has asked for."""

    def occasion(self, what: str) -> str:
        """Return the name of a request with this content, the same in each attempt."""
        node, item = self.run
        return f"{self.flow_run_id}/{node}/{item}/{self.occasions.next(what)}"

    @property
    def slots(self) -> SlotGate | None:
        """Where the task can have slots of limits; None: nowhere, for this task's process."""
        return None


active_task: ContextVar[TaskRunContext | None] = ContextVar("raflow_active_task", default=None)
"""The task run that this code is part of; set where the task runs."""
