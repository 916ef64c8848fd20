"""What a batch tells at its end, and before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import sub
from typing import Final

from raflow._util import maker
from raflow.engine import _codes as codes
from raflow.engine import _commands as commands
from raflow.engine._attempts import Attempts
from raflow.engine._dispatch import Dispatch, Flight
from raflow.engine._events import BatchFinished, CallsReturned
from raflow.engine._ledger import Ended, Ledger
from raflow.engine._ready import Costs, names_of
from raflow.engine._recompute import Recompute
from raflow.engine._runs import Mapped, Runs
from raflow.model import BatchReport, Outcome, call_report

_SAMPLE: Final = 500
"""As many durations of a batch are looked at."""
_WITHOUT: Final = "its batch came back without it"


class Reports:
    """Takes the reports of batches."""

    def __init__(
        self,
        ledger: Ledger,
        dispatch: Dispatch,
        attempts: Attempts,
        costs: Costs,
        values: Recompute,
    ) -> None:
        """Begin without reports."""
        self._values = values
        self._ledger = ledger
        self._dispatch = dispatch
        self._attempts = attempts
        self._costs = costs

    def returned(self, event: CallsReturned) -> None:
        """Take back calls of a batch that goes on."""
        flight = self._dispatch.flights.get(event.batch)
        if flight is None:
            return
        positions = sorted(set(event.positions) - flight.returned)
        flight.returned.update(positions)
        if flight.queue.limited:
            self._dispatch.gate.landed(flight)
        self._hand_back(flight, positions, event.at)

    def finished(self, event: BatchFinished) -> None:
        """Take the report of a batch."""
        report = event.report
        flight = self._dispatch.land(report.batch)
        if flight is None:
            return
        learn(report, flight, self._costs)
        unstarted = set(report.unstarted) - flight.returned
        gone = unstarted | flight.returned
        single = {n for n, call in report.told.items() if call.outcome is not Outcome.COMPLETED}
        single.update(flight.again, range(len(report.ended_at), flight.size))
        single -= gone
        self._complete(flight, report, gaps(flight.size, sorted(gone | single)))
        for position in sorted(single):
            self._tell(flight, report, position, event.at)
        self._hand_back(flight, sorted(unstarted), event.at)

    def _hand_back(self, flight: Flight, positions: Sequence[int], at: float) -> None:
        for start, stop in codes.rows(positions):
            self._attempts.hand_back((piece for piece, _ in flight.parts(start, stop)), at)

    def _complete(
        self, flight: Flight, report: BatchReport, ranges: Iterable[tuple[int, int]]
    ) -> None:
        """Take what completed at the first attempt."""
        chunks: list[commands.CompletedChunk] = []
        for first, last in ranges:
            for piece, start in flight.parts(first, last):
                stop = start + piece.size
                runs = piece.runs
                parts = runs.chunks(piece.start, piece.stop, 1)
                chunks += map(_completed_chunk, zip(parts, range(start, stop), strict=False))
                self._learn_lengths(runs, piece.start, range(start, stop), report)
                self._ledger.complete(
                    Ended(runs, piece.start, piece.stop),
                    report.ended_at[start:stop],
                    report.truths[start:stop],
                )
        if chunks:
            completed = commands.CallsCompleted(
                batch=flight.batch, submitted_at=flight.submitted_at, chunks=tuple(chunks)
            )
            self._ledger.out.append(completed)

    def _learn_lengths(self, runs: Runs, first: int, positions: range, report: BatchReport) -> None:
        """Note the lengths of values, which a map over them may need."""
        calls = self._ledger.calls
        if runs is not calls or not (report.results or report.told):
            return
        for offset, position in enumerate(positions):
            result = report.results.get(position)
            if result is None and position in report.told:
                result = report.told[position].result
            if result is not None and result.length is not None:
                calls.lengths[first + offset] = result.length

    def _tell(self, flight: Flight, report: BatchReport, position: int, at: float) -> None:
        """Take the report of a call out of the ordinary."""
        runs, index = flight.run(position)
        key, attempt = runs.key(index), runs.attempts(index)
        call = report.told.get(position)
        if call is None and position < len(report.ended_at):
            call = call_report(report, position, run=key, attempt=attempt)
        if call is None or call.run != key or call.attempt != attempt:
            self._attempts.over(flight, position, Outcome.LOST, at, _WITHOUT)
            return
        if call.outcome is Outcome.LOST and call.lost_inputs:
            self._inputs_lost(flight, position, call.lost_inputs, at)
            return
        if report.truths:
            runs.truths[index] = report.truths[position]
        self._learn_lengths(runs, index, range(position, position + 1), report)
        self._attempts.over(
            flight, position, call.outcome, call.ended_at, call.message, report=call
        )

    def _inputs_lost(self, flight: Flight, position: int, inputs: Sequence[int], at: float) -> None:
        """Take back a call that could not begin, and have its inputs made again."""
        runs, index = flight.run(position)
        call = runs.call if isinstance(runs, Mapped) else self._ledger.calls.call(index)
        self._values.not_fetched(flight, call, index if isinstance(runs, Mapped) else -1, inputs)
        runs.tally(index)
        self._hand_back(flight, [position], at)


def gaps(size: int, taken: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield `(start, stop)` of what lies between sorted positions below `size`."""
    start = 0
    for position in taken:
        if position > start:
            yield start, position
        start = position + 1
    if start < size:
        yield start, size


_completed_chunk: Final = maker(commands.CompletedChunk)


def learn(report: BatchReport, flight: Flight, costs: Costs) -> None:
    """Take in how long the calls of a batch took, by task, and what a worker spent on them."""
    size = len(report.ended_at)
    names = names_of(flight.pieces)
    totals: dict[str, tuple[float, int]] = {}
    if len(names) == 1:
        totals[names.pop()] = _total(report, 0, size)
    else:
        for piece, offset in zip(flight.pieces, flight.offsets, strict=True):
            seconds, count = _total(report, offset, offset + piece.size)
            before = totals.get(piece.name, (0.0, 0))
            totals[piece.name] = before[0] + seconds, before[1] + count
    for name, (seconds, count) in totals.items():
        if count:
            costs.pace.learn(name, seconds / count, report.mean_bytes)
    begun = size - len(report.unstarted)
    if begun > 1 and report.started_at[0]:
        own = sum(seconds for seconds, _ in totals.values())
        busy = max(report.ended_at[:: _step(size)]) - report.started_at[0]
        if busy > own:
            # Otherwise they overlapped, which says nothing about the time between them.
            costs.learn((busy - own) / begun)


def _step(size: int) -> int:
    return 1 + size // _SAMPLE


def _total(report: BatchReport, start: int, stop: int) -> tuple[float, int]:
    """Return the seconds of calls that have begun, and their number, judged by some of them."""
    step = _step(stop - start)
    started, ended = report.started_at[start:stop:step], report.ended_at[start:stop:step]
    begun = len(started) - started.count(0.0)
    return sum(map(sub, ended, started)) * step, begun * step
