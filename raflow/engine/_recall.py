"""Answered calls: what an earlier process of the run has left of them."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import Final

from raflow.engine._events import Answer, CallMade
from raflow.engine._ledger import Ended, Ledger
from raflow.engine._runs import Mapped, Runs
from raflow.engine._values import GONE
from raflow.model import UNKNOWN_TRUTH, TaskRunEvent

_ONCE: Final = (
    "attempt {attempts} has begun in an earlier process of the run, and nobody knows how it ended; "
    "with at_most_once it is not repeated"
)


class Recall:
    """Has calls and items that are known already end as they come into being."""

    def __init__(self, ledger: Ledger) -> None:
        """Begin with nothing known."""
        self._ledger = ledger

    def call(self, call: CallMade, at: float) -> None:
        """Take what is known of a single call."""
        (answer,) = call.answers
        calls, node = self._ledger.calls, call.node
        if answer.length is not None:
            calls.lengths[node] = answer.length
        self._take(calls, node, node + 1, answer._replace(start=node), at)

    def items(self, mapped: Mapped, start: int, stop: int, at: float) -> None:
        """Take what is known of new items of a map."""
        answers = mapped.call.answers
        first = max(0, bisect_right(answers, start, key=_start_of) - 1)
        for answer in answers[first:]:
            if answer.start >= stop:
                break
            left, right = max(start, answer.start), min(stop, answer.stop)
            if left < right:
                self._take(mapped, left, right, answer, at)

    def _take(self, runs: Runs, start: int, stop: int, answer: Answer, at: float) -> None:
        if not answer.completed:
            self._go_on(runs, start, stop, answer, at)
            return
        if answer.attempts != 1 and not answer.cached:
            runs.past.update(dict.fromkeys(range(start, stop), answer.attempts))
        if not answer.has_value:
            self._ledger.has_gone = True
            runs.gone.put(start, stop, GONE)
        truths = answer.truths[start - answer.start : stop - answer.start]
        self._ledger.complete(
            Ended(runs, start, stop),
            array("d", [at]) * (stop - start),
            truths.ljust(stop - start, _UNKNOWN) if truths else b"",
            TaskRunEvent.CACHED if answer.cached else TaskRunEvent.SUCCEEDED,
        )

    def _go_on(self, runs: Runs, start: int, stop: int, answer: Answer, at: float) -> None:
        """Let runs that have a past go on from there."""
        once = runs.options(start).at_most_once
        for index in range(start, stop):
            runs.tally(index).attempts = answer.attempts
            if once:
                message = _ONCE.format(attempts=answer.attempts)
                self._ledger.finish(runs, index, TaskRunEvent.LOST, at, message)


def _start_of(answer: Answer) -> int:
    return answer.start


_UNKNOWN: Final = bytes([UNKNOWN_TRUTH])
