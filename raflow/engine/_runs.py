"""What the engine remembers of each call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from raflow.engine._events import CallRegistered
from raflow.engine._rules import Upstream
from raflow.model import Edge, NodeKind, State, StateType, TaskRunKey


class Waiter(NamedTuple):
    """A run that waits, and by which of its edges."""

    run: Run
    edge: Edge


@dataclass(slots=True, eq=False)
class Run:
    """One task run: a single call, a subflow, or an item of a map."""

    key: TaskRunKey
    node: Node
    state: State
    upstream: Upstream = field(default_factory=Upstream)
    """What it waits for, counted."""
    falsy_condition: str = ""
    """Key of the `run_if` source that turned out false."""
    odd_condition: str = ""
    """Key of the `run_if` source whose value is neither true nor false."""
    queued: bool = False
    """Its inputs are there and it waits for a place in the window."""
    attempts: int = 0
    """Attempts begun."""
    failures: int = 0
    """Attempts that user code ended: by an exception or by running out of time."""
    crashes: int = 0
    """Attempts that the infrastructure ended."""
    batch: int = -1
    """The batch it travels in; -1 when it is in none."""
    submitted_at: float = 0.0
    truth: bool | None = None
    """`bool` of its value, where that is known."""
    seen: bool = False
    """The flow's body looked at its outcome."""
    told: bool = False
    """Those who wait for it have been told how it ended."""
    waiters: list[Waiter] = field(default_factory=list)
    story: list[State] = field(default_factory=list)

    @property
    def is_final(self) -> bool:
        """Whether nothing more can happen to it."""
        return self.state.is_final

    @property
    def failed(self) -> bool:
        """Whether it ended otherwise than completed or skipped."""
        return self.is_final and self.state.type not in (StateType.COMPLETED, StateType.SKIPPED)

    @property
    def label(self) -> str:
        """The node's key, and the item's position in a map."""
        key = self.node.call.key
        return key if self.key.map_index < 0 else f"{key}[{self.key.map_index}]"

    def tell(self) -> Iterator[str]:
        """Yield its states so far, in words."""
        return (f"{state.name} at {state.at:.3f}" for state in self.story)


@dataclass(slots=True, eq=False)
class Node:
    """One call of the flow's body, with all its task runs."""

    call: CallRegistered
    runs: list[Run] = field(default_factory=list)
    """One for a single call; one per item for a map. A map that could not be expanded has one run
    with map_index -1, which tells why."""
    expanded: bool = False
    """The runs exist."""
    unfinished: int = 0
    length: int | None = None
    """Items of a map; `len` of the value of a single call, where that is known."""
    told: bool = False
    """Those who wait for the whole node have been told how it ended."""
    waiters: list[Waiter] = field(default_factory=list)
    """Runs that wait for every item of this map."""
    maps: list[Node] = field(default_factory=list)
    """Maps over this node's value that wait to learn their length."""

    @property
    def is_map(self) -> bool:
        """Whether the node is a mapped call."""
        return self.call.kind is NodeKind.MAP

    @property
    def is_final(self) -> bool:
        """Whether every run is final."""
        return self.expanded and self.unfinished == 0

    def run(self, item: int) -> Run:
        """Return the run of an item; for a single call, or a map without items, its one run."""
        return self.runs[item] if self.is_map and self.runs[0].key.map_index >= 0 else self.runs[0]

    def outcome(self) -> StateType:
        """Return how the whole node ended: failed if any run did, skipped if every run was."""
        if any(run.failed for run in self.runs):
            return StateType.FAILED
        if self.runs and all(run.state.type is StateType.SKIPPED for run in self.runs):
            return StateType.SKIPPED
        return StateType.COMPLETED
