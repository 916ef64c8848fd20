"""What the engine remembers of task runs: columns for all, objects for what is out of the ordinary.

An ordinary task run has its inputs, is sent, and completes at the first attempt. It costs some
bytes in the columns of its table; neighbours are handled together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Final

from raflow._util import maker
from raflow.engine import _codes as codes
from raflow.engine._events import CallMade
from raflow.engine._rules import Upstream
from raflow.model import (
    UNKNOWN_TRUTH,
    Chunk,
    Edge,
    StateName,
    TaskOptions,
    TaskRunEvent,
    TaskRunKey,
    next_task_run_state,
)

WATCHED: Final = 1
"""Mark of a call: others wait for it."""
EDGED: Final = 2
"""Mark of a call: it depends on others."""
WANTED: Final = 4
"""Mark of a call: somebody waits for its value, which was lost."""


@dataclass(slots=True)
class Waiting(Upstream):
    """What a task run waits for, counted; what the items of a map wait for together."""

    falsy: str = ""
    """Key of the `run_if` source that turned out false."""
    odd: str = ""
    """Key of the `run_if` source whose value is neither true nor false."""


@dataclass(slots=True)
class Tally:
    """What went wrong with a task run so far."""

    attempts: int = 0
    """Attempts begun, and not handed back."""
    failures: int = 0
    """Attempts that user code ended: by an exception or by running out of time."""
    crashes: int = 0
    """Attempts that the infrastructure ended, and that were charged."""
    losses: int = 0
    """How often its batch died without any charge to it."""
    memory: int = 0
    """Bytes that it asks for from now on, if not what its options say."""
    reason: str = ""
    """What it waits for between two attempts."""


class Runs(ABC):
    """A table of task runs: the items of a map, or all single calls."""

    def __init__(self) -> None:
        """Begin without rows."""
        self.states = bytearray()
        self.since = array("d")
        self.truths = bytearray()
        self.unfinished = 0
        self.tallies: dict[int, Tally] = {}
        self.seen: set[int] = set()
        """Failures that the flow's body looked at."""
        self.waiters: dict[int, list[Edge]] = {}
        """By run: the edges of those who wait for it. Kept for failures, to judge them by."""
        self.past: dict[int, int] = {}
        """Attempts of final runs, where they are not one, or (CACHED) none."""
        self.doomed: dict[int, str] = {}
        """Runs in flight that are to end, and why."""
        self.gone = codes.Marks()
        """Values of completed runs: see `_recompute`."""
        self.losses = codes.Marks()
        """How often each value was lost."""
        self.asked = codes.Marks()
        """1 for runs whose value has been looked for in the cache, and not found."""

    def grow(self, count: int, at: float) -> None:
        """Add pending runs."""
        # Other threads read, and judge by the states whether there is a row: they come last.
        self.since.extend(array("d", [at]) * count)
        self.truths.extend(bytes([UNKNOWN_TRUTH]) * count)
        self.states.extend(bytes(count))
        self.unfinished += count

    @abstractmethod
    def key(self, index: int) -> TaskRunKey:
        """Return the key of a run."""

    @abstractmethod
    def label(self, index: int) -> str:
        """Return its name for people."""

    @abstractmethod
    def options(self, index: int) -> TaskOptions:
        """Return how it runs."""

    @abstractmethod
    def chunks(self, start: int, stop: int, attempt: int) -> Sequence[Chunk]:
        """Return the runs as chunks."""

    def name(self, index: int) -> StateName:
        """Return the name of a run's state."""
        return codes.NAMES[self.states[index]]

    def end(self, index: int) -> int:
        """Return how a run ended."""
        return codes.ENDS[self.states[index]]

    def move(self, start: int, stop: int, event: TaskRunEvent, at: float) -> None:
        """Change the state of neighbours by one event."""
        following = codes.moved(self.states[start:stop], event)
        if following is None:
            for index in range(start, stop):
                self.following(index, event)
        assert following is not None
        self.states[start:stop] = following
        self.since[start:stop] = array("d", [at]) * (stop - start)

    def hold(self, start: int, stop: int) -> None:
        """Note that neighbours are ready, but something holds them back."""
        self.states[start:stop] = self.states[start:stop].translate(codes.HOLD)

    def let_go(self, start: int, stop: int) -> None:
        """Note that neighbours are neither held back nor queued any more."""
        self.states[start:stop] = self.states[start:stop].translate(codes.LET_GO)

    def following(self, index: int, event: TaskRunEvent) -> StateName:
        """Return the state that follows; an impossible one raises with what is known."""
        since = self.since[index]
        story = [f"{self.label(index)} is {self.name(index)} since {since:.3f}"]
        attempts = self.attempts(index)
        return next_task_run_state(self.name(index), event, attempt=attempts, story=story)

    def attempts(self, index: int) -> int:
        """Return how many attempts of an unfinished run have begun."""
        tally = self.tallies.get(index)
        return codes.IS_OUT[self.states[index]] if tally is None else tally.attempts

    def tally(self, index: int) -> Tally:
        """Return the tally of a run; from now on it has one."""
        found = self.tallies.get(index)
        if found is None:
            found = self.tallies[index] = Tally(attempts=self.attempts(index))
        return found

    def parts(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield rows of neighbours without a tally, and each run that has one."""
        if self.tallies and not self.tallies.keys().isdisjoint(range(start, stop)):
            for index in sorted(self.tallies.keys() & range(start, stop)):
                if start < index:
                    yield start, index
                yield index, index + 1
                start = index + 1
        if start < stop:
            yield start, stop

    def failures(self) -> Iterator[int]:
        """Yield the runs that failed."""
        return codes.marked(self.states.translate(codes.IS_FAILED))


class Calls(Runs):
    """All single calls, by node id. The rows of maps stand for maps that have no items."""

    def __init__(self) -> None:
        """Begin without rows."""
        super().__init__()
        self.calls: list[CallMade | None] = []
        """None once the call is final, and for maps."""
        self.keys: list[str] = []
        """Empty once the call is released."""
        self.marks = bytearray()
        self.dropped = bytearray()
        """1: nobody can ask for the value any more; 2: it has been released."""
        self.lengths: dict[int, int] = {}
        """`len` of the value of a call, where that is known."""

    def add(self, calls: Sequence[CallMade], at: float) -> None:
        """Add calls, in the order of their ids."""
        assert calls[0].node == len(self.calls), "calls are registered in the order of their ids"
        self.calls.extend(calls)
        self.keys.extend([call.key for call in calls])
        self.marks.extend(bytes(len(calls)))
        self.dropped.extend(bytes(len(calls)))
        self.grow(len(calls), at)

    def call(self, index: int) -> CallMade:
        """Return a call that is not final."""
        call = self.calls[index]
        assert call is not None
        return call

    def key(self, index: int) -> TaskRunKey:
        """Return the key of a call."""
        return TaskRunKey(index)

    def label(self, index: int) -> str:
        """Return its name for people."""
        return self.keys[index]

    def options(self, index: int) -> TaskOptions:
        """Return how it runs."""
        return self.call(index).options

    def chunks(self, start: int, stop: int, attempt: int) -> Sequence[Chunk]:
        """Return the calls as chunks: one each."""
        return single_chunks(start, stop, attempt)


class Mapped(Runs):
    """The items of one map."""

    def __init__(self, call: CallMade, sources: Sequence[tuple[Edge, Mapped]]) -> None:
        """Begin without items."""
        super().__init__()
        self.call = call
        self.node = call.node
        self.sources = sources
        """Maps whose items feed its own, one each."""
        self.shared = Waiting()
        """What all items wait for."""
        self.special: dict[int, Waiting] = {}
        """What single items wait for besides."""
        self.followers: list[Mapped] = []
        """Maps whose items are fed by its own."""
        self.whole: list[Edge] = []
        """Edges of those who wait for all items."""
        self.expanded = False
        """There are items, or it is known that there will be none."""
        self.grows = False
        """Its items come one after the other: from a stream, or with those of its source."""
        self.complete = False
        """No more items will come."""
        self.given_up = False
        """It has no items, and its row among the single calls tells why."""
        self.closed = False
        """It has been noted that every item is final."""
        self.told = False
        """Those who wait for all items have been told."""
        self.failed = 0
        self.skipped = 0
        self.released = bytearray()
        """1 for items whose value has been released."""
        self.reopened = False
        """Every item was final, and some run again."""
        self.wanted: set[int] = set()
        """Items whose value was lost, and for which somebody waits."""
        self.counted = 0
        """So many of `whole` have been told that all is final."""

    @property
    def length(self) -> int:
        """How many items there are so far."""
        return len(self.states)

    @property
    def is_final(self) -> bool:
        """Whether every item is final and no more will come."""
        return self.complete and self.unfinished == 0

    def outcome(self) -> int:
        """Return how the whole map ended: failed if any item did, skipped if all were."""
        if self.failed:
            return codes.FAILED
        if self.skipped and self.skipped == self.length:
            return codes.SKIPPED
        return codes.SUCCEEDED

    def grow(self, count: int, at: float) -> None:
        """Add pending items."""
        super().grow(count, at)
        self.released.extend(bytes(count))

    def key(self, index: int) -> TaskRunKey:
        """Return the key of an item."""
        return TaskRunKey(self.node, index)

    def label(self, index: int) -> str:
        """Return its name for people."""
        return f"{self.call.key}[{index}]"

    def options(self, index: int) -> TaskOptions:  # noqa: ARG002 - all items have the same
        """Return how the items run."""
        return self.call.options

    def chunks(self, start: int, stop: int, attempt: int) -> Sequence[Chunk]:
        """Return the items as one chunk."""
        return [Chunk(self.node, start, stop, attempt)]


def single_chunks(start: int, stop: int, attempt: int) -> list[Chunk]:
    """Return neighbouring single calls as chunks: one each."""
    rows = zip(range(start, stop), repeat(-1), repeat(0), repeat(attempt))
    return list(map(_chunk, rows))


_chunk: Final = maker(Chunk)
