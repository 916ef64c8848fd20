"""From ready to sent: the queues, the window, and what is in flight."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Final, Protocol

from raflow.engine import _codes as codes
from raflow.engine import _commands as commands
from raflow.engine._fusion import Fusion, watched
from raflow.engine._kinds import Kinds
from raflow.engine._ledger import Ledger
from raflow.engine._ready import (
    LIGHT_SECONDS,
    MOST_CALLS,
    Costs,
    Draft,
    Load,
    Piece,
    Queue,
    even_share,
    held_until,
    is_worth_a_second,
    load_of,
    names_of,
    share,
)
from raflow.engine._runs import Runs
from raflow.model import Chunk, Resources, TaskRunEvent

MOST_LOSSES: Final = 5
"""After so many deaths of its batch without a charge, a call travels alone, and is charged."""
_LARGE_VALUES: Final = 8
"""How many of them a batch may make."""


class Flight:
    """A batch in flight."""

    __slots__ = (
        "again",
        "batch",
        "killed",
        "offsets",
        "pieces",
        "queue",
        "returned",
        "size",
        "submitted_at",
    )

    def __init__(self, batch: int, queue: Queue, pieces: Sequence[Piece], at: float) -> None:
        """Note what has been sent."""
        self.batch = batch
        self.queue = queue
        self.pieces = pieces
        self.submitted_at = at
        self.returned: set[int] = set()
        """Positions that were handed back while it goes on."""
        self.offsets: list[int] = []
        """Position of the first run of each piece."""
        self.again: list[int] = []
        """Positions of those whose attempt is not the first."""
        self.killed = False
        """Its process is to end because of some of its calls."""
        self.size = 0
        for piece in pieces:
            self.offsets.append(self.size)
            if piece.attempt > 1:
                self.again.append(self.size)
            self.size += piece.size

    def run(self, position: int) -> tuple[Runs, int]:
        """Return the run at a position: its table and row."""
        number = bisect_right(self.offsets, position) - 1
        piece = self.pieces[number]
        return piece.runs, piece.start + position - self.offsets[number]

    def positions(self, runs: Runs, start: int, stop: int) -> list[int]:
        """Return where neighbours are, as far as they are in the batch and were not handed back."""
        found: list[int] = []
        for piece, offset in zip(self.pieces, self.offsets, strict=True):
            if piece.runs is runs:
                first, last = max(start, piece.start), min(stop, piece.stop)
                found += range(offset + first - piece.start, offset + last - piece.start)
        return [position for position in found if position not in self.returned]

    def parts(self, start: int, stop: int) -> Iterator[tuple[Piece, int]]:
        """Yield the runs at positions from `start` to `stop`, and the position of each part."""
        number = bisect_right(self.offsets, start) - 1
        while start < stop:
            piece, offset = self.pieces[number], self.offsets[number]
            end = min(stop, offset + piece.size)
            if start == offset and end == offset + piece.size:
                yield piece, start
            else:
                first = piece.start - offset
                yield piece.part(first + start, first + end), start
            start = end
            number += 1


class Gatekeeper(Protocol):
    """Stands between calls out of the ordinary and the queues."""

    def admit(self, runs: Runs, start: int, stop: int, at: float, *, front: bool) -> None:
        """Take neighbours whose inputs are there, and push those that nothing holds back."""

    def landed(self, flight: Flight) -> None:
        """Take note that a batch of calls with limits is over."""


class Dispatch:
    """Sends ready calls, in batches, as far as window and workers allow."""

    def __init__(
        self,
        ledger: Ledger,
        kinds: Kinds,
        costs: Costs,
        *,
        window: int,
        slots: Callable[[Resources], int],
        fuses: bool,
    ) -> None:
        """Begin with nothing in flight."""
        self._ledger = ledger
        self._kinds = kinds
        self._costs = costs
        self._window = window
        self._slots = slots
        self._fuses = fuses
        self._next = 0
        self._timer: float | None = None
        self.flights: dict[int, Flight] = {}
        self.waits_for_company = True
        """More calls may come that are not ready now."""
        self.paused = False
        """Nothing is sent."""
        self.gate: Gatekeeper

    # Ready --------------------------------------------------------------------------------------

    def push(
        self, runs: Runs, start: int, stop: int, at: float, *, front: bool, admitted: bool = False
    ) -> None:
        """Queue neighbours of one kind whose inputs are there.

        Unless they are `admitted`, those out of the ordinary have to pass the gate.
        """
        kind = self._kinds.of_run(runs, start)
        if (kind.gated or self._ledger.has_gone) and not admitted:
            self.gate.admit(runs, start, stop, at, front=front)
            return
        for first, last in runs.parts(start, stop):
            tally = runs.tallies.get(first)
            if tally is not None and (tally.memory or tally.losses >= MOST_LOSSES):
                self.push_parcel([(runs, first)])
                continue
            piece = Piece(runs, first, last, kind, runs.attempts(first) + 1)
            self._mark(piece)
            kind.queue.push(piece, at, front=front)

    def push_parcel(self, indexes: Sequence[tuple[Runs, int]]) -> None:
        """Queue runs that travel together, without company."""
        pieces: list[Piece] = []
        for runs, index in indexes:
            kind, tally = self._kinds.of_run(runs, index), runs.tallies.get(index)
            if tally is not None and tally.memory:
                kind = self._kinds.grown(kind, tally.memory)
            piece = Piece(runs, index, index + 1, kind, runs.attempts(index) + 1)
            self._mark(piece)
            pieces.append(piece)
        if pieces:
            pieces[0].kind.queue.parcels.append(pieces)

    def readmit(self, runs: Runs, start: int, stop: int, at: float, *, front: bool = True) -> None:
        """Have neighbours that are still held back pass the gate again."""
        held = runs.states[start:stop].translate(codes.IS_HELD)
        for first, last in codes.stretches(held):
            runs.let_go(start + first, start + last)
            self.gate.admit(runs, start + first, start + last, at, front=front)

    def withdraw(self, runs: Runs, start: int, stop: int) -> None:
        """Take neighbours out of the queues."""
        if any(runs.states[start:stop].translate(codes.IS_QUEUED)):
            for queue in self._kinds.queues:
                queue.remove(runs, start, stop)

    def withdraw_all(self, which: Callable[[Queue], bool]) -> list[Piece]:
        """Empty some queues, and return what was in them."""
        pieces: list[Piece] = []
        for queue in self._kinds.queues:
            if which(queue):
                pieces += (*queue.freed, *queue.pieces, *chain.from_iterable(queue.parcels))
                queue.clear()
        return pieces

    @staticmethod
    def _mark(piece: Piece) -> None:
        """Note that runs are queued."""
        runs, start, stop = piece.runs, piece.start, piece.stop
        waits = runs.states[start] == codes.AWAITING_RETRY
        code = codes.REQUEUED if waits else codes.QUEUED
        runs.states[start:stop] = bytes([code]) * (stop - start)

    # Sent ---------------------------------------------------------------------------------------

    def timer_is_over(self) -> None:
        """Take note that `SendDue` has come."""
        self._timer = None

    def send(self, at: float) -> None:
        """Send what can be sent now."""
        if self.paused:
            return
        for queue in self._kinds.queues:
            if queue.has_calls:
                slots = max(1, self._slots(queue.resources))
                while self._may_send(queue, slots) and self._send_one(queue, slots, at):
                    pass

    def _may_send(self, queue: Queue, slots: int) -> bool:
        return queue.has_calls and len(self.flights) < self._window and queue.flying < 2 * slots

    def _send_one(self, queue: Queue, slots: int, at: float) -> bool:
        """Send a batch; tell whether there was one to send."""
        if queue.parcels:
            self._submit(queue, queue.parcels.popleft(), slots, at)
            return True
        load = load_of(queue, self._costs)
        if queue.flying >= slots and not is_worth_a_second(queue, load, self._costs.budget):
            return False
        until = held_until(queue, load) if self.waits_for_company else 0.0
        if at < until:
            self._hold(until)
            return False
        queue.line_up()
        self._submit(queue, self._draft(queue, load, slots).pieces, slots, at)
        queue.since = at
        return True

    def _hold(self, until: float) -> None:
        if self._timer is None or until < self._timer:
            self._timer = until
            self._ledger.out.append(commands.SetSendTimer(due=until))

    def _draft(self, queue: Queue, load: Load, slots: int) -> Draft:
        draft = Draft(
            costs=self._costs,
            limit=share(load, slots, self._costs.budget),
            even=even_share(load, slots),
            free=queue.free,
        )
        if queue.alone:
            draft.most = 1
        if queue.alone or not self._fuses:
            draft.fill(queue)
            return draft
        fusion = Fusion(draft, queue, self._ledger, self._kinds)
        idle = max(1, slots - queue.flying)
        if idle > 1 and watched([queue.pieces[0]], self._ledger):
            # What follows these is not in the load: leave some for each idle worker.
            draft.most = -(-load.calls // idle)
        heads = draft.fill(queue)
        draft.most, draft.limit = MOST_CALLS, self._costs.budget
        fusion.follow(heads, sparing=load.calls - draft.size < idle - 1)
        # Apart, calls that have a follower in common would wait for each other's batch.
        while load.seconds <= LIGHT_SECONDS and queue.pieces and fusion.joins(queue.pieces[0]):
            piece = queue.pop(1)
            draft.add(piece)
            fusion.follow([piece], sparing=False)
        return draft

    def _submit(self, queue: Queue, pieces: Sequence[Piece], slots: int, at: float) -> None:
        chunks: list[Chunk] = []
        for piece in pieces:
            runs, start, stop, _, attempt = piece
            runs.move(start, stop, TaskRunEvent.SUBMITTED, at)
            if runs.tallies:
                for index in runs.tallies.keys() & range(start, stop):
                    runs.tallies[index].attempts += 1
            chunks += runs.chunks(start, stop, attempt)
        flight = Flight(self._next, queue, pieces, at)
        self.flights[flight.batch] = flight
        self._next += 1
        queue.flying += 1
        self._ledger.out.append(
            commands.SendBatch(
                at=at,
                batch=flight.batch,
                resources=queue.resources,
                chunks=tuple(chunks),
                budget=self._costs.budget,
                own_values=self._own_values(flight),
                record_first=queue.once,
                places=slots,
            )
        )

    def _own_values(self, flight: Flight) -> int:
        large = any(map(self._costs.is_large, names_of(flight.pieces)))
        return min(flight.size, _LARGE_VALUES) if large else 1

    def land(self, batch: int) -> Flight | None:
        """Take a batch out of what is in flight; None if it is not known."""
        flight = self.flights.pop(batch, None)
        if flight is not None:
            flight.queue.flying -= 1
            if flight.queue.limited:
                self.gate.landed(flight)
        return flight
