"""Calls that need slots of limits: who stands in line, and who holds some."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from raflow.engine import _codes as codes
from raflow.engine import _commands as commands
from raflow.engine._dispatch import Dispatch
from raflow.engine._events import SlotsAwaited, SlotsGranted, SlotsRefused
from raflow.engine._kinds import Kinds
from raflow.engine._ledger import Ledger
from raflow.engine._ready import TaskKind
from raflow.engine._recompute import Recompute
from raflow.engine._runs import Runs
from raflow.engine._values import Run
from raflow.model import TaskRunEvent, TaskRunKey

_IN_LINE: Final = 2
"""So many calls of a task stand in line at once, per call that its limits let run."""


class _Line:
    """The calls of one kind."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.asked: dict[Run, str] = {}
        """Those who stand in line, and why they wait."""
        self.behind: deque[tuple[Runs, int, int]] = deque()
        """Neighbours that do not even stand in line yet."""


class Slots:
    """Asks for slots before each attempt, and gives them back after it."""

    def __init__(
        self,
        ledger: Ledger,
        kinds: Kinds,
        dispatch: Dispatch,
        values: Recompute,
        limit_slots: Callable[[str], int],
    ) -> None:
        """Begin with nobody in line."""
        self._ledger = ledger
        self._kinds = kinds
        self._dispatch = dispatch
        self._values = values
        self._limit_slots = limit_slots
        self._lines: dict[TaskKind, _Line] = {}
        self._holders: dict[Run, None] = {}

    def line_up(self, kind: TaskKind, runs: Runs, start: int, stop: int, *, front: bool) -> None:
        """Take neighbours that need slots."""
        line = self._lines.get(kind)
        if line is None:
            line = self._lines[kind] = _Line(_IN_LINE * self._at_once(kind))
        runs.hold(start, stop)
        if front:
            line.behind.appendleft((runs, start, stop))
        else:
            line.behind.append((runs, start, stop))
        self._fill(kind, line)

    def _at_once(self, kind: TaskKind) -> int:
        """Return how many calls of a kind its limits let run at once, as far as they know."""
        return max(1, min(self._limit_slots(name) // n for name, n in kind.options.limits if n))

    def _fill(self, kind: TaskKind, line: _Line) -> None:
        """Ask for as many as may stand in line."""
        options = kind.options
        while line.behind and len(line.asked) < line.most and not self._dispatch.paused:
            runs, start, stop = line.behind.popleft()
            if start + 1 < stop:
                line.behind.appendleft((runs, start + 1, stop))
            if codes.IS_HELD[runs.states[start]]:
                line.asked[runs, start] = ""
                self._ledger.out.append(
                    commands.AskSlots(
                        run=runs.key(start), amounts=options.limits, priority=options.priority
                    )
                )

    # Answers ------------------------------------------------------------------------------------

    def granted(self, event: SlotsGranted) -> None:
        """Queue a call that has its slots."""
        found = self._find(event.run)
        if found is None:
            return
        kind, line, run = found
        runs, index = run
        del line.asked[run]
        self._holders[run] = None
        if runs.states[index] == codes.AWAITING_SLOT:
            self._ledger.enter(runs, index, TaskRunEvent.SLOT_GRANTED, event.at)
        runs.let_go(index, index + 1)
        self.go(runs, index, event.at)
        self._fill(kind, line)

    def go(self, runs: Runs, index: int, at: float) -> None:
        """Queue a call that holds its slots; should an input have been lost, it lets go of them."""
        if list(self._values.ready(runs, index, index + 1, at)):
            self._dispatch.push(runs, index, index + 1, at, front=False, admitted=True)
        else:
            self.give_back(runs, index)

    def awaited(self, event: SlotsAwaited) -> None:
        """Say why a call waits."""
        found = self._find(event.run)
        if found is None:
            return
        _, line, run = found
        if line.asked[run] != event.reason or run[0].states[run[1]] != codes.AWAITING_SLOT:
            line.asked[run] = event.reason
            slot_awaited = TaskRunEvent.SLOT_AWAITED
            self._ledger.enter(*run, slot_awaited, event.at, reason=event.reason)

    def refused(self, event: SlotsRefused) -> None:
        """End a call that cannot have slots."""
        found = self._find(event.run)
        if found is not None:
            kind, line, run = found
            del line.asked[run]
            self._ledger.finish(*run, TaskRunEvent.FAILED, event.at, event.message)
            self._fill(kind, line)

    def _find(self, key: TaskRunKey) -> tuple[TaskKind, _Line, Run] | None:
        """Return where a run stands in line; None if it does not any more."""
        run = self._ledger.find(key)
        for kind, line in self._lines.items():
            if run in line.asked:
                return kind, line, run
        return None

    # Not needed any more ------------------------------------------------------------------------

    def give_back(self, runs: Runs, index: int) -> None:
        """Let go of the slots of a call, if it holds any."""
        if (runs, index) in self._holders:
            del self._holders[runs, index]
            self._ledger.out.append(commands.ReleaseSlots(run=runs.key(index)))

    def drop_ended(self) -> None:
        """Let go of what runs hold that have ended in the line, or before they were sent."""
        for kind, line in self._lines.items():
            gone = [run for run in line.asked if codes.ENDS[run[0].states[run[1]]]]
            for runs, index in gone:
                del line.asked[runs, index]
                self._ledger.out.append(commands.ReleaseSlots(run=runs.key(index)))
            if gone:
                self._fill(kind, line)
        for runs, index in [run for run in self._holders if codes.ENDS[run[0].states[run[1]]]]:
            self.give_back(runs, index)

    def pause(self, at: float, reason: str) -> None:
        """Let nobody hold slots who is not running: those in line lose their place."""
        for line in self._lines.values():
            for runs, index in reversed(line.asked):
                self._leave(runs, index, at, reason)
                line.behind.appendleft((runs, index, index + 1))
            line.asked.clear()
        for piece in reversed(self._dispatch.withdraw_all(lambda queue: queue.limited)):
            for index in range(piece.start, piece.stop):
                self.give_back(piece.runs, index)
            piece.runs.hold(piece.start, piece.stop)
            line = self._lines[self._kinds.of_run(piece.runs, piece.start)]
            line.behind.appendleft((piece.runs, piece.start, piece.stop))

    def _leave(self, runs: Runs, index: int, at: float, reason: str) -> None:
        self._ledger.out.append(commands.ReleaseSlots(run=runs.key(index)))
        if runs.states[index] == codes.AWAITING_SLOT:
            self._ledger.enter(runs, index, TaskRunEvent.HANDED_BACK, at, reason=reason)
            runs.hold(index, index + 1)

    def go_on(self) -> None:
        """Ask again after a pause."""
        for kind, line in self._lines.items():
            self._fill(kind, line)

    def reason(self, run: Run) -> str:
        """Say what a held run waits for; empty if it does not need slots."""
        for kind, line in list(self._lines.items()):
            if run in line.asked:
                return line.asked[run]
            if any(runs is run[0] and a <= run[1] < b for runs, a, b in list(line.behind)):
                names = ", ".join(repr(name) for name, _ in kind.options.limits)
                return f"{len(line.asked)} other calls of {kind.name} stand in line for {names}"
        return ""
