"""What becomes of a task run after an attempt: an end, another attempt, or the queue again."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Final

from raflow.engine import _codes as codes
from raflow.engine import _commands as commands
from raflow.engine._dispatch import Dispatch, Flight
from raflow.engine._events import CallBegan
from raflow.engine._judge import Judge
from raflow.engine._ledger import Ledger
from raflow.engine._memory import MemoryGrowth
from raflow.engine._ready import Piece
from raflow.engine._runs import Runs
from raflow.model import CallReport, Cause, Outcome, TaskRunEvent, TaskRunKey

_ENDINGS: Final[Mapping[Outcome, TaskRunEvent]] = {
    Outcome.COMPLETED: TaskRunEvent.SUCCEEDED,
    Outcome.FAILED: TaskRunEvent.FAILED,
    Outcome.TIMED_OUT: TaskRunEvent.TIMED_OUT,
    Outcome.SKIPPED: TaskRunEvent.SKIPPED,
    Outcome.CANCELLED: TaskRunEvent.CANCELLED,
    Outcome.CRASHED: TaskRunEvent.CRASHED,
    Outcome.OUT_OF_MEMORY: TaskRunEvent.RAN_OUT_OF_MEMORY,
    Outcome.LOST: TaskRunEvent.LOST,
}
_USER_CODE: Final = frozenset({Outcome.FAILED, Outcome.TIMED_OUT})
_INFRASTRUCTURE: Final = frozenset({Outcome.CRASHED, Outcome.OUT_OF_MEMORY, Outcome.LOST})


class Attempts:
    """Follows the attempts of single runs."""

    def __init__(
        self,
        ledger: Ledger,
        dispatch: Dispatch,
        judge: Judge,
        rng: random.Random,
        memory: MemoryGrowth,
    ) -> None:
        """Begin without attempts.

        Args:
            ledger: What is known of all runs.
            dispatch: Takes what is to be sent again.
            judge: Decides about what lost its inputs.
            rng: Source of the jitter of delays.
            memory: Tells what a run may ask for that ran out of memory.
        """
        self._ledger = ledger
        self._dispatch = dispatch
        self._judge = judge
        self._rng = rng
        self._memory = memory

    def began(self, event: CallBegan) -> None:
        """Take note that a call runs."""
        runs, index = self._ledger.find(event.run)
        if runs.states[index] == codes.SUBMITTED and runs.attempts(index) == event.attempt:
            self._ledger.enter(runs, index, TaskRunEvent.STARTED, event.at)

    def over(
        self,
        flight: Flight,
        position: int,
        outcome: Outcome,
        at: float,
        message: str,
        *,
        report: CallReport | None = None,
        cause: Cause | None = None,
    ) -> None:
        """End the attempt at a position of a batch, and charge it to the run."""
        runs, index = flight.run(position)
        cause = cause or (report.cause if report else None)
        outcome = self.record(flight, position, outcome, at, message, report=report, cause=cause)
        retriable = report is None or report.retriable
        if outcome is Outcome.OUT_OF_MEMORY:
            peaks = [told.peak_memory for told in (report, cause) if told is not None]
            self._memory.grow(runs, index, max(peaks, default=0))
        if not (retriable and self._retry(runs, index, outcome, at, message)):
            again = runs.attempts(index) > 1
            recovered = outcome is Outcome.COMPLETED and again
            event = TaskRunEvent.RECOVERED if recovered else _ENDINGS[outcome]
            self._ledger.finish(runs, index, event, at, message)

    def record(
        self,
        flight: Flight,
        position: int,
        outcome: Outcome,
        at: float,
        message: str,
        *,
        report: CallReport | None = None,
        cause: Cause | None = None,
    ) -> Outcome:
        """Say that the attempt at a position of a batch is over; return how it counts."""
        runs, index = flight.run(position)
        if outcome in _INFRASTRUCTURE and self._ledger.doom(runs, index):
            # What was asked to stop, or killed because it did not, has not crashed.
            outcome = Outcome.CANCELLED
        tally = runs.tallies.get(index)
        self._ledger.out.append(
            commands.AttemptEnded(
                run=runs.key(index),
                number=runs.attempts(index),
                outcome=outcome,
                submitted_at=flight.submitted_at,
                ended_at=at,
                message=message,
                report=report,
                batch=flight.batch,
                position=position,
                cause=cause,
                memory=tally.memory if tally else 0,
            )
        )
        return outcome

    def _retry(self, runs: Runs, index: int, outcome: Outcome, at: float, message: str) -> bool:
        """Plan another attempt if the budget for this kind of failure allows one."""
        options = runs.options(index)
        policy = options.retry
        if outcome in _INFRASTRUCTURE:
            tally = runs.tally(index)
            tally.crashes += 1
            used, budget = tally.crashes, policy.crash_retries
        elif outcome in _USER_CODE:
            tally = runs.tally(index)
            tally.failures += 1
            used, budget = tally.failures, policy.retries
        else:
            return False
        if used > budget or options.at_most_once or self._ledger.doom(runs, index):
            return False
        delay = policy.delay_before(used, self._rng)
        tally.reason = f"retry {used} of {budget}" + (f" in {delay:.3g} s" if delay else "")
        self._ledger.enter(runs, index, TaskRunEvent.RETRY_PLANNED, at, message, tally.reason)
        if delay:
            run = runs.key(index)
            self._ledger.out.append(commands.SetRetryTimer(run=run, due=at + delay))
        else:
            self._queue(runs, index, at)
        return True

    def due(self, run: TaskRunKey, at: float) -> None:
        """Send a run again after its delay."""
        runs, index = self._ledger.find(run)
        if runs.states[index] == codes.AWAITING_RETRY:
            self._queue(runs, index, at)

    def _queue(self, runs: Runs, index: int, at: float) -> None:
        if self.lacks_inputs(runs, index):
            self._ledger.enter(runs, index, TaskRunEvent.HANDED_BACK, at)
            self._judge.consider(index, at)
        else:
            self._dispatch.push(runs, index, index + 1, at, front=True)

    def lacks_inputs(self, runs: Runs, index: int) -> bool:
        """Tell whether a run was sent along with a source that has not completed yet."""
        ledger = self._ledger
        return runs is ledger.calls and index in ledger.waiting

    # Handed back --------------------------------------------------------------------------------

    def hand_back(self, parts: Iterable[Piece], at: float) -> None:
        """Take back runs whose attempt never began."""
        for piece in parts:
            runs, start, stop = piece.runs, piece.start, piece.stop
            if self._ledger.stopping or runs.doomed:
                for index in range(start, stop):
                    self._take_back(runs, index, at)
                continue
            for first, last in runs.parts(start, stop):
                if first in runs.tallies:
                    self._unsend(runs, first, at)
                else:
                    runs.move(first, last, TaskRunEvent.HANDED_BACK, at)
            self.requeue(runs, start, stop, at)

    def _take_back(self, runs: Runs, index: int, at: float) -> None:
        """Take back a run that may have no future."""
        doom = self._ledger.doom(runs, index)
        if doom:
            runs.tally(index).attempts -= 1
            self._ledger.finish(runs, index, TaskRunEvent.CANCELLED, at, doom)
        else:
            self._unsend(runs, index, at)
            self.requeue(runs, index, index + 1, at)

    def _unsend(self, runs: Runs, index: int, at: float) -> None:
        """Take back the attempt of a run."""
        tally = runs.tally(index)
        tally.attempts -= 1
        if tally.attempts or runs.states[index] != codes.SUBMITTED:
            self._ledger.enter(runs, index, TaskRunEvent.HANDED_BACK, at)
        else:
            runs.move(index, index + 1, TaskRunEvent.HANDED_BACK, at)

    def requeue(self, runs: Runs, start: int, stop: int, at: float) -> None:
        """Queue pending runs again, or have them wait for their sources."""
        ledger = self._ledger
        if runs is not ledger.calls or not ledger.waiting:
            self._dispatch.push(runs, start, stop, at, front=True)
            return
        for index in range(start, stop):
            if self.lacks_inputs(runs, index):
                self._judge.consider(index, at)
            else:
                self._dispatch.push(runs, index, index + 1, at, front=True)
