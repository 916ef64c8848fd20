"""What is ready to run, and how much of it makes a batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from raflow.engine._pace import Pace
from raflow.engine._runs import Runs
from raflow.model import Resources, TaskOptions

MOST_CALLS: Final = 10_000
"""In a batch."""
_LARGE_BYTES: Final = 100 * 1024
"""Values above become objects of their own."""
_CALL_SECONDS: Final = 10e-6
"""What a call costs a worker besides its own time, until that is known."""
_CALL_SECONDS_MOST: Final = 1e-3
_CALL_WEIGHT: Final = 0.1
"""How much a new batch counts for it against all before."""
_LEAST_SECONDS: Final = 0.002
"""Work that is not worth dividing further."""
LIGHT_SECONDS: Final = 0.001
"""A call that takes no longer than sending it does."""
_UNKNOWN_CALLS: Final = 4
"""Calls of unknown duration that may share a batch."""
_HELD_SECONDS: Final = 0.005
"""Light calls wait at most this long for company, and so much work is company enough."""
_QUIET_SECONDS: Final = 0.002
"""Once no call was added for this long, no company is expected."""
_SECOND_SHARE: Final = 0.25
"""Part of the budget that makes it worth sending a batch before a worker is free."""


@dataclass(slots=True, eq=False)
class Queue:
    """Calls with equal resources that are ready."""

    resources: Resources
    alone: bool
    """Each call travels alone."""
    free: bool = False
    """They ask for nothing: what runs beside others in one worker leaves nothing idle."""
    limited: bool = False
    """Each call holds slots of limits."""
    once: bool = False
    """No call may begin twice."""
    teardown: bool = False
    """They run whatever happens."""
    pieces: deque[Piece] = field(default_factory=deque)
    freed: list[Piece] = field(default_factory=list)
    """Ready because a source ended; they go first, so that few values are alive at a time."""
    parcels: deque[list[Piece]] = field(default_factory=deque)
    """Calls to be sent as they are, without company."""
    names: dict[str, int] = field(default_factory=dict)
    """Ready calls by name of the task, without parcels."""
    flying: int = 0
    """Batches in flight."""
    since: float = 0.0
    """When the oldest of them began to wait, or the last batch was sent."""
    latest: float = 0.0
    """When the last was added."""
    urgent: bool = False
    """Some became ready because a source ended: what holds them up holds up all that follows."""

    @property
    def has_calls(self) -> bool:
        """Whether there is anything to send."""
        return bool(self.names or self.parcels)

    def push(self, piece: Piece, at: float, *, front: bool) -> None:
        """Take ready calls."""
        if not self.names:
            self.since = at
            self.urgent = False
        self.urgent = self.urgent or front
        self.latest = at
        self.names[piece.name] = self.names.get(piece.name, 0) + piece.size
        line: list[Piece] | deque[Piece] = self.freed if front else self.pieces
        last = line[-1] if line else None
        if last is not None and last.joins(piece):
            line[-1] = last.part(last.start, piece.stop)
        else:
            line.append(piece)

    def line_up(self) -> None:
        """Put what has become ready by itself before the rest."""
        self.pieces.extendleft(reversed(self.freed))
        self.freed.clear()

    def pop(self, count: int) -> Piece:
        """Take calls from the first piece."""
        first = self.pieces[0]
        if count < first.size:
            taken = first.part(first.start, first.start + count)
            self.pieces[0] = first.part(taken.stop, first.stop)
        else:
            taken = self.pieces.popleft()
        left = self.names[taken.name] - taken.size
        if left:
            self.names[taken.name] = left
        else:
            del self.names[taken.name]
        return taken

    def remove(self, runs: Runs, start: int, stop: int) -> None:
        """Take neighbours out, wherever they stand."""
        self.names.clear()
        kept = [part for piece in self.pieces for part in piece.without(runs, start, stop)]
        self.pieces = deque(kept)
        self.freed = [part for piece in self.freed for part in piece.without(runs, start, stop)]
        for piece in (*self.pieces, *self.freed):
            self.names[piece.name] = self.names.get(piece.name, 0) + piece.size
        parcels = [
            [part for piece in parcel for part in piece.without(runs, start, stop)]
            for parcel in self.parcels
        ]
        self.parcels = deque(parcel for parcel in parcels if parcel)

    def clear(self) -> None:
        """Forget all calls."""
        for line in (self.pieces, self.freed, self.parcels, self.names):
            line.clear()


@dataclass(slots=True, eq=False, frozen=True)
class TaskKind:
    """What calls have in common that are the same task with the same options."""

    name: str
    options: TaskOptions
    queue: Queue
    gated: bool = False
    """Something besides its inputs decides when a call is ready: cache or limits."""


class Piece(NamedTuple):
    """Neighbouring task runs of one kind, ready or sent."""

    runs: Runs
    start: int
    stop: int
    kind: TaskKind
    attempt: int = 1
    """Neighbours are at their first; a run with a past is a piece of its own."""

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.kind.name

    @property
    def size(self) -> int:
        """How many runs there are."""
        return self.stop - self.start

    def part(self, start: int, stop: int) -> Piece:
        """Return the piece with other ends."""
        return Piece(self.runs, start, stop, self.kind, self.attempt)

    def without(self, runs: Runs, start: int, stop: int) -> Iterator[Piece]:
        """Yield what is left of the piece without some neighbours."""
        if self.runs is not runs or stop <= self.start or self.stop <= start:
            yield self
            return
        if self.start < start:
            yield self.part(self.start, start)
        if stop < self.stop:
            yield self.part(stop, self.stop)

    def joins(self, other: Piece) -> bool:
        """Tell whether another piece is its continuation."""
        return (
            self.stop == other.start
            and self.runs is other.runs
            and self.kind is other.kind
            and self.attempt == other.attempt == 1
        )


class Costs:
    """Estimates of what calls cost a worker."""

    def __init__(self, pace: Pace, budget: float) -> None:
        """Begin with what earlier runs have taught."""
        self.pace = pace
        self.budget = budget
        self.widths: dict[str, int] = {}
        """By task: how many of its calls overlap in one worker, if more than one do."""
        self._call = _CALL_SECONDS

    def known(self, name: str) -> float | None:
        """Return the seconds that a call takes from a worker; None if nothing is known."""
        seconds = self.pace.seconds(name)
        return None if seconds is None else seconds / self.widths.get(name, 1) + self._call

    def is_large(self, name: str) -> bool:
        """Tell whether values of a task are so large that each becomes an object of its own."""
        return self.pace.bytes(name) > _LARGE_BYTES

    def guess(self, name: str) -> float:
        """Return the seconds of a call; a part of the budget if nothing is known."""
        seconds = self.known(name)
        return self.budget / _UNKNOWN_CALLS if seconds is None else seconds

    def learn(self, between: float) -> None:
        """Take in how long a worker was busy per call besides the calls' own time."""
        self._call += _CALL_WEIGHT * (min(between, _CALL_SECONDS_MOST) - self._call)


class Load(NamedTuple):
    """How much work is ready."""

    calls: int
    seconds: float
    unknown: bool
    """Some of it is of unknown duration."""
    heaviest: float
    """Seconds of the longest call."""


def load_of(queue: Queue, costs: Costs) -> Load:
    """Sum up what is ready."""
    calls, seconds, unknown, heaviest = 0, 0.0, False, 0.0
    for name, count in queue.names.items():
        known = costs.known(name)
        cost = costs.guess(name)
        calls += count
        seconds += count * cost
        unknown = unknown or known is None
        heaviest = max(heaviest, cost)
    return Load(calls, seconds, unknown, heaviest)


def held_until(queue: Queue, load: Load) -> float:
    """Return until when ready calls are better kept back, for others to join them.

    A flow that makes light calls one by one would otherwise pay a whole batch for each few. While
    nothing is in flight, nothing is gained by waiting.
    """
    if queue.alone or queue.urgent or not queue.flying:
        return 0.0
    if load.unknown or load.seconds >= _HELD_SECONDS:
        return 0.0
    return min(queue.since + _HELD_SECONDS, queue.latest + _QUIET_SECONDS)


def is_worth_a_second(queue: Queue, load: Load, budget: float) -> bool:
    """Tell whether a batch should be sent to wait for a worker, so that none idles in between."""
    if queue.alone or load.unknown or load.heaviest > LIGHT_SECONDS:
        return True
    return load.seconds >= budget * _SECOND_SHARE


def share(load: Load, slots: int, budget: float) -> float:
    """Return the seconds that a batch may hold, such that slots end at about the same time."""
    return min(budget, max(_LEAST_SECONDS, load.seconds / (2 * slots)))


def even_share(load: Load, slots: int) -> int:
    """Return how many calls a batch may hold so that no slot stays empty."""
    return max(1, -(-load.calls // slots))


@dataclass(slots=True)
class Draft:
    """A batch in the making."""

    costs: Costs
    limit: float
    """Seconds that it may hold."""
    even: int
    """How many calls it may hold where their duration does not count, or is not known."""
    free: bool = False
    """Calls that overlap take one worker after the other, not all at once."""
    most: int = MOST_CALLS
    pieces: list[Piece] = field(default_factory=list)
    seconds: float = 0.0
    """Of the calls whose duration is known."""
    size: int = 0
    unknown: int = _UNKNOWN_CALLS
    """How many more calls of unknown duration it may take."""
    large: bool = False
    """Some of its values will be large."""

    def room(self, name: str) -> int:
        """Return how many more calls of a task fit; one always fits at the beginning."""
        known = self.costs.known(name)
        width = self.costs.widths.get(name, 1)
        together = width if self.free else min(width, self.even)
        if self.size < together:
            # They overlap: only together they keep a worker busy, however long they take.
            room = together - self.size
        elif known is None:
            room = min(self.unknown, self.even - self.size) if self.seconds < self.limit else 0
        else:
            room = int((self.limit - self.seconds) / known) if known else self.most
        return min(max(room, 0 if self.size else 1), self.most - self.size)

    def add(self, piece: Piece) -> None:
        """Take calls."""
        known = self.costs.known(piece.name)
        if known is None:
            self.unknown -= piece.size
        else:
            self.seconds += piece.size * known
        self.size += piece.size
        self.large = self.large or self.costs.is_large(piece.name)
        last = self.pieces[-1] if self.pieces else None
        if last is not None and last.joins(piece):
            self.pieces[-1] = last.part(last.start, piece.stop)
        else:
            self.pieces.append(piece)

    def fill(self, queue: Queue) -> list[Piece]:
        """Take ready calls as long as they fit, and return them."""
        taken: list[Piece] = []
        while queue.pieces:
            first = queue.pieces[0]
            room = self.room(first.name)
            if room <= 0:
                break
            taken.append(queue.pop(min(room, first.size)))
            self.add(taken[-1])
        return taken


def names_of(pieces: Sequence[Piece]) -> set[str]:
    """Return the names of the tasks of pieces."""
    return {piece.name for piece in pieces}
