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

from raflow.model import Edge, EdgeKind, NodeKind, State, TaskOptions, TaskRunKey

if TYPE_CHECKING:
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


class FlowContext(Protocol):
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


active_task: ContextVar[TaskRunContext | None] = ContextVar("raflow_active_task", default=None)
"""The task run that this code is part of; set where the task runs."""
