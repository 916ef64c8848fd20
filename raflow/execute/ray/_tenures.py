"""Which process runs which batch next: a Ray task may run one batch after the other.

From the end of one Ray task to the start of the next in the same process Ray takes 2 to 3 ms. So a
process that has told of a batch by mail stays for a moment, and is mailed the next one. At any time
it has at most one, whose report Ray carries too if nothing follows it: whatever becomes of the
mail, the Ray task's own end says which batch was the last to be taken up.

Nothing is sent from here.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final, NamedTuple

from raflow.execute._backend import BatchSpec
from raflow.execute.ray._mail import Line
from raflow.model import Resources, TaskRunKey

STAY_SECONDS: Final = 0.005
"""How long a process that has told of a batch waits for another one."""
TERM_SECONDS: Final = 1.0
"""After so long it takes no other one: other drivers wait for a place, too. Ray leaves a process to
one caller for half as long; calls of a third of a second would then go by Ray every other time."""
SHORT_TERM_SECONDS: Final = 0.1
"""The same while something waits that Ray could start instead."""
CROWDED_SECONDS: Final = 0.05
"""Whoever has not been started for so long waits for a place."""


class Kind(NamedTuple):
    """Whose batches one process may run one after the other."""

    session: int
    resources: Resources


@dataclass(slots=True, eq=False)
class InFlight:
    """A batch that was sent, or waits for a process to become free."""

    session: int
    spec: BatchSpec
    parcel: tuple[Any, ...] = ()
    """What travels, until it does."""
    can_be_mailed: bool = False
    tenure: Tenure | None = None
    """What runs it; None as long as that is open."""
    sent_at: float = field(default_factory=time.time)
    """Seconds since the Unix epoch."""
    cancelling: bool = False
    unwanted: set[int] = field(default_factory=set)
    """Positions of calls that were cancelled one by one."""
    forced: bool = False
    """Whether its process was ended for the sake of those calls."""
    returned: set[int] = field(default_factory=set)
    """Positions that it has handed back while it ran."""
    began: dict[TaskRunKey, float] = field(default_factory=dict)
    """When calls began that have run for a while."""
    node_id: str = ""
    """Where it runs, once one has."""

    @property
    def kind(self) -> Kind:
        """Whose turn it may follow."""
        return Kind(self.session, self.spec.resources)

    @property
    def has_begun(self) -> bool:
        """Whether a process has it, as far as is known."""
        return bool(self.began) or (self.tenure is not None and self.tenure.began_at is not None)


@dataclass(slots=True, eq=False)
class Tenure:
    """A Ray task: the time for which a process runs batches."""

    kind: Kind
    number: int
    """The batch with which it began."""
    report: Any
    """ObjectRef of the report of its last batch."""
    values: tuple[Any, ...]
    """ObjectRefs of the list of values of that, and of those that may be objects of their own."""
    flight: InFlight | None
    """What it runs; None: it waits for more, or has ended."""
    asked_at: float
    """When Ray was asked for it; by the clock of `Tenures`, as all times here."""
    began_at: float | None = None
    line: Line | None = None
    """Where its process hears."""
    rests: bool = False
    """It waits for more."""
    is_over: bool = False
    """It gets no more."""


class Way(Enum):
    """What to do about a batch, or with a process that has none."""

    START = auto()
    """Give it to Ray."""
    WAIT = auto()
    """Nothing: it is kept until a process is free, or the process until there is a batch."""
    LEAVE = auto()
    """Give the process back to Ray."""


class Tenures:
    """Keeps the batches that wait for a process, and the processes that wait for a batch."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, stay: bool = False) -> None:
        """Begin with none; without `stay` each batch is a Ray task of its own."""
        self.stay = stay
        """Whether processes stay; read when a session begins, and with each of its batches."""
        self._clock = clock
        self._lock = threading.Lock()
        self._tenures: defaultdict[Kind, dict[int, Tenure]] = defaultdict(dict)
        self._pending: dict[Tenure, None] = {}
        """Those that Ray has not started, as far as is known; the oldest first."""
        self._numbered: dict[tuple[int, int], Tenure] = {}
        """By session and number."""
        self._doors: defaultdict[Kind, deque[InFlight]] = defaultdict(deque)
        self._talk: set[Kind] = set()
        """Whose last batch was told of by mail."""

    def place(self, flight: InFlight) -> Tenure | Way:
        """Say where a new batch goes: to a process that waits, to Ray, or nowhere yet."""
        if not flight.can_be_mailed:
            return Way.START
        kind = flight.kind
        with self._lock:
            tenures = [one for one in self._tenures.get(kind, {}).values() if not one.is_over]
            for tenure in tenures:
                if tenure.rests:
                    self._give(tenure, flight)
                    return tenure
            enough = 0 < flight.spec.places <= len(tenures)
            if enough and kind in self._talk and any(one.line is not None for one in tenures):
                self._doors[kind].append(flight)
                return Way.WAIT
        return Way.START

    def start(self, flight: InFlight, report: Any, values: tuple[Any, ...]) -> Tenure:
        """Take note that Ray has a batch."""
        kind = flight.kind
        tenure = Tenure(kind, flight.spec.id, report, values, flight, self._clock())
        with self._lock:
            flight.tenure = self._tenures[kind][tenure.number] = tenure
            self._numbered[kind.session, tenure.number] = tenure
            self._pending[tenure] = None
        return tenure

    def find(self, session: int, number: int, line: Line | None = None) -> Tenure | None:
        """Return a tenure that is not over, whose process has spoken by this line."""
        with self._lock:
            tenure = self._numbered.get((session, number))
            if tenure is None or tenure.is_over:
                return None
            tenure.line = line or tenure.line
            if tenure.began_at is None:
                tenure.began_at = self._clock()
                self._pending.pop(tenure, None)
            return tenure

    def told(self, tenure: Tenure, batch: int) -> InFlight | Way | None:
        """Take note that a process has told of its batch by mail.

        Returns:
            What it does next; None if it does not have this batch.
        """
        now = self._clock()
        with self._lock:
            if tenure.is_over or not self._has(tenure, batch):
                return None
            tenure.flight = None
            self._talk.add(tenure.kind)
            door = self._doors.get(tenure.kind)
            crowded = self._is_crowded(now)
            term = SHORT_TERM_SECONDS if crowded else TERM_SECONDS
            begun = tenure.began_at if tenure.began_at is not None else now
            if now - begun >= term or (crowded and not door):
                return Way.LEAVE
            if door:
                following = door.popleft()
                self._give(tenure, following)
                return following
            tenure.rests = True
            return Way.WAIT

    def leaves(self, tenure: Tenure, last: int | None) -> InFlight | None:
        """Give a process no more, which has told so; returns a batch that it does not take up.

        Args:
            tenure: Whose Ray task is about to end.
            last: The last batch that it has taken up. If nothing was heard of that, Ray tells it.
        """
        with self._lock:
            self._end(tenure)
            return None if self._has(tenure, last) else self._take_off(tenure)

    def ended(self, tenure: Tenure, *, reports: bool) -> InFlight | None:
        """Take note of the end of a Ray task; returns the batch that is still to be told or begun.

        Of a batch that has come too late two threads hear, by mail and from Ray: one of them gets
        it.

        Args:
            tenure: Whose Ray task has ended.
            reports: Whether that is how it tells of what it has run last.
        """
        with self._lock:
            self._end(tenure)
            if reports and tenure.flight is not None:
                self._talk.discard(tenure.kind)
            return self._take_off(tenure)

    def hold(self, flight: InFlight) -> bool:
        """Have nothing follow a batch that has to be ended; False if no process has it."""
        with self._lock:
            tenure = flight.tenure
            if tenure is None or tenure.flight is not flight:
                return False
            self._end(tenure)
            return True

    def replace(self, tenure: Tenure) -> InFlight | None:
        """Forget a process that is gone; returns a batch that waits, if it needs another one."""
        with self._lock:
            tenure.is_over, tenure.rests, tenure.flight = True, False, None
            if self._tenures[tenure.kind].pop(tenure.number, None) is None:
                return None
            self._drop(tenure)
            return self._admit(tenure.kind)

    def admit(self, kind: Kind) -> InFlight | None:
        """Return a batch that waits, if no process is to be expected for it."""
        with self._lock:
            return self._admit(kind)

    def withdraw(self, flight: InFlight) -> bool:
        """Forget a batch that waits here; False if it does not."""
        with self._lock:
            door = self._doors.get(flight.kind, deque())
            waits = flight in door
            if waits:
                door.remove(flight)
            return waits

    def forget(self, session: int) -> list[Tenure]:
        """Forget a session; returns its tenures."""
        with self._lock:
            for kind in [kind for kind in self._doors if kind.session == session]:
                del self._doors[kind]
            kinds = [kind for kind in self._tenures if kind.session == session]
            self._talk.difference_update(kinds)
            over = [tenure for kind in kinds for tenure in self._tenures.pop(kind).values()]
            for tenure in over:
                tenure.is_over, tenure.rests = True, False
                self._drop(tenure)
            return over

    def _end(self, tenure: Tenure) -> None:
        tenure.is_over, tenure.rests = True, False
        self._pending.pop(tenure, None)

    @staticmethod
    def _has(tenure: Tenure, batch: int | None) -> bool:
        return tenure.flight is not None and tenure.flight.spec.id == batch

    @staticmethod
    def _take_off(tenure: Tenure) -> InFlight | None:
        flight, tenure.flight = tenure.flight, None
        return flight

    def _drop(self, tenure: Tenure) -> None:
        self._pending.pop(tenure, None)
        self._numbered.pop((tenure.kind.session, tenure.number), None)

    @staticmethod
    def _give(tenure: Tenure, flight: InFlight) -> None:
        tenure.flight, tenure.rests = flight, False
        flight.tenure = tenure

    def _admit(self, kind: Kind) -> InFlight | None:
        door = self._doors.get(kind)
        if not door:
            return None
        left = sum(not one.is_over for one in self._tenures.get(kind, {}).values())
        return door.popleft() if left < door[0].spec.places else None

    def _is_crowded(self, now: float) -> bool:
        """Tell whether something waits that Ray could start."""
        oldest = next(iter(self._pending), None)
        return oldest is not None and now - oldest.asked_at > CROWDED_SECONDS
