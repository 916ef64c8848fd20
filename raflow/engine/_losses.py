"""What becomes of the calls of a batch that ended without a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from raflow.engine._attempts import Attempts
from raflow.engine._dispatch import MOST_LOSSES, Dispatch, Flight
from raflow.engine._events import BatchDied
from raflow.engine._ledger import Ledger
from raflow.engine._runs import Runs
from raflow.model import Outcome, TaskRunEvent

_INNOCENT: Final = "its process ended while another call of its batch ran; it runs again"
_SUSPECT: Final = "its process ended, and no one knows at which call of its batch; it runs again"


class Blame(NamedTuple):
    """The positions of a batch that died, by what its death means for them."""

    charged: Sequence[int]
    """They ran: theirs is the attempt."""
    begun: Sequence[int]
    """They may have run before."""
    untouched: Sequence[int]
    """They had not begun."""


def blame(positions: Sequence[int], running: Sequence[int] | None) -> Blame:
    """Say who is charged with the death of a batch.

    Args:
        positions: What was still in it.
        running: What ran when it died; None: not known.
    """
    if running is None:
        alone = len(positions) == 1
        return Blame(positions, (), ()) if alone else Blame((), positions, ())
    last = max(running, default=-1)
    return Blame(
        charged=[position for position in positions if position in running],
        begun=[n for n in positions if n < last and n not in running],
        untouched=[position for position in positions if position > last],
    )


class Losses:
    """Charges the calls that ran when a batch died, and sends the others again."""

    def __init__(self, ledger: Ledger, dispatch: Dispatch, attempts: Attempts) -> None:
        """Begin without losses."""
        self._ledger = ledger
        self._dispatch = dispatch
        self._attempts = attempts

    def died(self, event: BatchDied) -> None:
        """Take the end of a batch that left no report."""
        flight = self._dispatch.land(event.batch)
        if flight is None:
            return
        positions = [n for n in range(flight.size) if n not in flight.returned]
        charged, begun, untouched = blame(positions, event.running)
        if len(positions) == 1 and self._losses(flight, positions[0]) >= MOST_LOSSES:
            charged, begun, untouched = positions, (), ()
        if flight.killed:
            # It had to die for those who were to be cancelled: the others are innocent.
            ran = sorted((*charged, *begun))
            charged = [position for position in ran if self._is_doomed(flight, position)]
            begun = [position for position in ran if position not in charged]
        self._take_back(flight, begun, untouched, event, suspects=not (charged or flight.killed))
        for position in charged:
            self._attempts.over(
                flight, position, event.outcome, event.at, event.message, cause=event.cause
            )

    def _is_doomed(self, flight: Flight, position: int) -> bool:
        return bool(self._ledger.doom(*flight.run(position)))

    @staticmethod
    def _losses(flight: Flight, position: int) -> int:
        runs, index = flight.run(position)
        tally = runs.tallies.get(index)
        return 0 if tally is None else tally.losses

    def _take_back(
        self,
        flight: Flight,
        begun: Sequence[int],
        untouched: Sequence[int],
        event: BatchDied,
        *,
        suspects: bool,
    ) -> None:
        """Have those run again who are not charged."""
        if self._ledger.stopping and not flight.queue.teardown:
            for position in begun:
                self._attempts.over(flight, position, Outcome.LOST, event.at, event.message)
            self._hand_back(flight, untouched, event.at)
            return
        if suspects:
            for position in untouched:
                runs, index = flight.run(position)
                runs.tally(index).losses += 1
        begun = self._without_doomed(flight, begun, event)
        lost = [self._lose(flight, position, event, suspects) for position in begun]
        if suspects and event.running is None:
            self._halve(lost, event.at)
        else:
            for runs, index in lost:
                self._attempts.requeue(runs, index, index + 1, event.at)
        self._hand_back(flight, untouched, event.at)

    def _without_doomed(
        self, flight: Flight, begun: Sequence[int], event: BatchDied
    ) -> Sequence[int]:
        """End those that were to be cancelled, and return the others."""
        doomed = [position for position in begun if self._is_doomed(flight, position)]
        for position in doomed:
            self._attempts.over(flight, position, Outcome.LOST, event.at, event.message)
        return [position for position in begun if position not in doomed]

    def _lose(
        self, flight: Flight, position: int, event: BatchDied, suspect: bool
    ) -> tuple[Runs, int]:
        """Record an attempt that may have run, and that nobody is charged for."""
        runs, index = flight.run(position)
        runs.tally(index).losses += 1
        message = f"{_SUSPECT if suspect else _INNOCENT} ({event.message})"
        self._attempts.record(flight, position, Outcome.LOST, event.at, message)
        self._ledger.enter(runs, index, TaskRunEvent.HANDED_BACK, event.at)
        return runs, index

    def _halve(self, lost: Sequence[tuple[Runs, int]], at: float) -> None:
        """Send suspects in two halves, so that the one that kills its process is found."""
        ready = [(runs, index) for runs, index in lost if not self._waits(runs, index)]
        middle = (len(ready) + 1) // 2
        for half in (ready[:middle], ready[middle:]):
            again = [(r, i) for r, i in half if r.tally(i).losses < MOST_LOSSES]
            self._dispatch.push_parcel(again)
        for runs, index in lost:
            if self._waits(runs, index) or runs.tally(index).losses >= MOST_LOSSES:
                self._attempts.requeue(runs, index, index + 1, at)

    def _waits(self, runs: Runs, index: int) -> bool:
        return self._attempts.lacks_inputs(runs, index)

    def _hand_back(self, flight: Flight, positions: Sequence[int], at: float) -> None:
        for position in positions:
            for piece, _ in flight.parts(position, position + 1):
                self._attempts.hand_back([piece], at)
