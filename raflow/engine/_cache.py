"""Calls whose values may be there already: they are looked for before anything runs."""

from __future__ import annotations

from collections.abc import Iterable

from raflow.engine import _codes as codes
from raflow.engine import _commands as commands
from raflow.engine._dispatch import Dispatch
from raflow.engine._events import CacheAnswered, CacheVerdict
from raflow.engine._ledger import Ledger
from raflow.engine._ready import TaskKind
from raflow.engine._runs import Runs
from raflow.engine._values import Run
from raflow.model import TaskRunEvent

_MISSED = 1
_ASKING = 2


class Cache:
    """Asks once per run."""

    def __init__(self, ledger: Ledger, dispatch: Dispatch) -> None:
        """Begin with nothing asked."""
        self._ledger = ledger
        self._dispatch = dispatch
        self._busy: dict[Run, str] = {}
        """Runs whose value somebody else computes, and who."""

    def ask(self, kind: TaskKind, runs: Runs, start: int, stop: int) -> Iterable[tuple[int, int]]:
        """Return those neighbours that need not ask, and ask for the others."""
        if kind.options.cache is None:
            return ((start, stop),)
        asked = runs.asked.part(start, stop)
        for first, last in codes.stretches(asked.translate(codes.IS_ZERO)):
            runs.hold(start + first, start + last)
            runs.asked.put(start + first, start + last, _ASKING)
            for chunk in runs.chunks(start + first, start + last, 0):
                self._ledger.out.append(commands.AskCache(chunk=chunk))
        return [(start + first, start + last) for first, last in codes.stretches(asked)]

    def answered(self, event: CacheAnswered) -> None:
        """Take the answer for one run."""
        ledger, run = self._ledger, self._ledger.find(event.run)
        runs, index = run
        if runs.asked[index] != _ASKING or not codes.IS_HELD[runs.states[index]]:
            return
        if event.verdict is CacheVerdict.BUSY:
            self._busy[run] = event.reason
            return
        self._busy.pop(run, None)
        runs.asked.put(index, index + 1, _MISSED)
        if event.verdict is CacheVerdict.MISS:
            self._dispatch.readmit(runs, index, index + 1, event.at)
        elif event.verdict is CacheVerdict.FAILED:
            ledger.finish(runs, index, TaskRunEvent.FAILED, event.at, event.reason)
        else:
            if event.truth is not None:
                runs.truths[index] = event.truth
            if event.length is not None and runs is ledger.calls:
                ledger.calls.lengths[index] = event.length
            ledger.finish(runs, index, TaskRunEvent.CACHED, event.at, event.reason)

    def reason(self, run: Run) -> str:
        """Say what a held run waits for; empty if not for the cache."""
        runs, index = run
        waits = runs.asked[index] == _ASKING
        return self._busy.get(run, "its value is looked for in the cache") if waits else ""
