"""All task runs of a flow run, the changes of their states, and the news of what has ended."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from raflow.engine import _codes as codes
from raflow.engine import _commands as commands
from raflow.engine._runs import Calls, Mapped, Runs, Tally, Waiting
from raflow.model import (
    UNKNOWN_TRUTH,
    Edge,
    EdgeKind,
    State,
    StateName,
    TaskRunEvent,
    TaskRunKey,
)


class Ended(NamedTuple):
    """Neighbours that have become final."""

    runs: Runs
    start: int
    stop: int


class PastMap(NamedTuple):
    """What is left of a map whose values were let go."""

    length: int
    states: bytes
    """Empty: all items have completed."""
    past: Mapping[int, int]
    losses: codes.Marks | None

    @classmethod
    def of(cls, mapped: Mapped) -> PastMap:
        """Keep what is needed to compute its items again."""
        states = bytes(mapped.states)
        plain = states.count(codes.COMPLETED) == len(states)
        losses = mapped.losses or None
        return cls(mapped.length, b"" if plain else states, mapped.past, losses)


News: TypeAlias = Ended | Mapped
"""What has ended, or (a map) is complete or has got its length."""


class Ledger:
    """Holds the tables, moves states, and gathers commands."""

    def __init__(self) -> None:
        """Begin with nothing registered."""
        self.calls = Calls()
        self.maps: dict[int, Mapped] = {}
        self.past_maps: dict[int, PastMap] = {}
        self.waiting: dict[int, Waiting] = {}
        """By call: what those wait for whose inputs are not all there. A call that was sent along
        with its source stays here until it is final."""
        self.expecting: dict[int, list[Mapped]] = {}
        """By node: maps that wait to learn its length."""
        self.subflows: set[int] = set()
        """Those that run."""
        self.news: deque[News] = deque()
        """Whose dependants are still to be told: a queue rather than recursion, because a failure
        may run down a chain of any length."""
        self.out: list[commands.Command] = []
        self.open_calls = 0
        self.open_maps = 0
        self.stopping = ""
        """Why nothing new starts any more."""
        self.teardowns: set[int] = set()
        """Calls whose failure is nobody's, and who handle none."""
        self.spared: set[int] = set()
        """Teardowns that may still start."""
        self.killing = False
        """Not even teardowns start any more."""
        self.has_gone = False
        """Some completed run has, or had, no value that could be had."""

    # To read ------------------------------------------------------------------------------------

    def find(self, key: TaskRunKey) -> tuple[Runs, int]:
        """Return the table of a run, and its row."""
        node, item = key
        found = self.maps.get(node) if item >= 0 else None
        if found is None or item >= found.length:
            return self.calls, node
        return found, item

    def end_of(self, edge: Edge) -> int:
        """Tell how the source of an edge ended; of an edge of ITEM kind, unless it is a map."""
        found = self.maps.get(edge.source)
        if found is None or found.given_up:
            return self.calls.end(edge.source)
        item = edge.source_item
        if item is None:
            return found.outcome() if found.is_final else codes.OPEN
        if item < found.length:
            return found.end(item)
        return codes.FAILED if found.told else codes.OPEN

    def source_label(self, edge: Edge) -> str:
        """Return the name of the source of an edge."""
        found = self.maps.get(edge.source)
        if found is None or edge.source_item is None:
            return self.calls.keys[edge.source]
        return found.label(edge.source_item)

    def stops(self, node: int) -> bool:
        """Tell whether runs of a call do not start any more."""
        return bool(self.stopping) and node not in self.spared

    def doom(self, runs: Runs, index: int) -> str:
        """Return why a run is to end; empty if it may go on."""
        if self.stopping and self.stops(runs.key(index).node):
            return self.stopping
        return runs.doomed.get(index, "")

    def count(self, waiting: Waiting, edge: Edge, end: int) -> None:
        """Take note of how a source ended."""
        if edge.allow_failure and end == codes.FAILED:
            end = codes.SUCCEEDED
        if end == codes.FAILED:
            waiting.failed += 1
        elif end == codes.SKIPPED:
            waiting.skipped += 1
        else:
            waiting.succeeded += 1
            if edge.kind is EdgeKind.CONDITION:
                self._ask(waiting, edge)

    def _ask(self, waiting: Waiting, edge: Edge) -> None:
        """Look at the value of a `run_if` source."""
        found = self.maps.get(edge.source)
        if found is None:
            truth = self.calls.truths[edge.source]
        elif edge.source_item is None or edge.source_item >= found.length:
            truth = bool(found.length)
        else:
            truth = found.truths[edge.source_item]
        if truth == UNKNOWN_TRUTH:
            waiting.odd = self.source_label(edge)
        elif not truth:
            waiting.falsy = self.source_label(edge)

    # Single runs --------------------------------------------------------------------------------

    def enter(
        self,
        runs: Runs,
        index: int,
        event: TaskRunEvent,
        at: float,
        message: str = "",
        reason: str = "",
    ) -> StateName:
        """Move one run by an event, and say so."""
        name = runs.following(index, event)
        attempts = runs.attempts(index)
        runs.states[index] = codes.CODES[name]
        runs.since[index] = at
        state = State(name=name, at=at, message=message, reason=reason)
        run = runs.key(index)
        self.out.append(commands.StateEntered(run=run, state=state, attempts=attempts))
        return name

    def finish(
        self, runs: Runs, index: int, event: TaskRunEvent, at: float, message: str = ""
    ) -> None:
        """End one run by an event, and say so."""
        self.enter(runs, index, event, at, message)
        tally = runs.tallies.pop(index, None)
        if tally is not None and tally.attempts != _usual(runs, index):
            runs.past[index] = tally.attempts
        if isinstance(runs, Mapped):
            end = runs.end(index)
            runs.failed += end == codes.FAILED
            runs.skipped += end == codes.SKIPPED
        else:
            self.waiting.pop(index, None)
            self.subflows.discard(index)
        self._ended(runs, index, index + 1)

    def cancel(
        self, runs: Runs, start: int, stop: int, at: float, message: str, *, spare: bool
    ) -> None:
        """End runs that have not been sent; those calls that are spared only if they are not."""
        waiting = runs.states[start:stop].translate(codes.IS_WAITING)
        if spare and runs is self.calls:
            for node in self.spared & set(range(start, stop)):
                waiting[node - start] = 0
        state = State(name=StateName.CANCELLED, at=at, message=message)
        for left, right in codes.stretches(waiting):
            for first, last in runs.parts(start + left, start + right):
                attempts = runs.attempts(first)
                runs.move(first, last, TaskRunEvent.CANCELLED, at)
                self.out += [
                    commands.StateEntered(run=runs.key(index), state=state, attempts=attempts)
                    for index in range(first, last)
                ]
                runs.tallies.pop(first, None)
                if isinstance(runs, Mapped):
                    runs.failed += last - first
                else:
                    self._forget(first, last)
                self._ended(runs, first, last)

    def reopen(self, runs: Runs, index: int, at: float, message: str) -> None:
        """Have a completed run run again."""
        begun = runs.past.pop(index, _usual(runs, index))
        runs.tallies[index] = Tally(attempts=begun)
        runs.doomed.pop(index, None)
        self.enter(runs, index, TaskRunEvent.RECOMPUTED, at, message)
        runs.unfinished += 1
        self.open_calls += 1
        if isinstance(runs, Mapped) and runs.closed:
            runs.closed, runs.reopened = False, True
            self.open_maps += 1

    # Neighbours ---------------------------------------------------------------------------------

    def complete(
        self,
        ended: Ended,
        ended_at: array[float],
        truths: bytes,
        event: TaskRunEvent = TaskRunEvent.SUCCEEDED,
    ) -> None:
        """Note that neighbours completed, at these times and with values of this truth."""
        runs, start, stop = ended
        runs.move(start, stop, event, 0.0)
        runs.since[start:stop] = ended_at
        if truths:
            runs.truths[start:stop] = truths
        if runs is self.calls:
            self._forget(start, stop)
        self._ended(runs, start, stop)

    def _forget(self, start: int, stop: int) -> None:
        """Forget what single calls have waited for."""
        if self.waiting:
            for node in range(start, stop):
                self.waiting.pop(node, None)

    def _ended(self, runs: Runs, start: int, stop: int) -> None:
        runs.unfinished -= stop - start
        self.open_calls -= stop - start
        self.news.append(Ended(runs, start, stop))
        if isinstance(runs, Mapped):
            self.close(runs)

    # Maps ---------------------------------------------------------------------------------------

    def grow(self, mapped: Mapped, length: int, at: float) -> None:
        """Give a map items, up to this number."""
        count = length - mapped.length
        mapped.expanded = True
        mapped.grow(count, at)
        self.open_calls += count

    def close(self, mapped: Mapped) -> None:
        """Note it if a map has become final."""
        if mapped.is_final and not mapped.closed:
            mapped.closed = True
            self.open_maps -= 1
            self.news.append(mapped)

    def give_up(self, mapped: Mapped, event: TaskRunEvent, at: float, message: str) -> None:
        """End a map that gets no items, with one run that tells why."""
        mapped.expanded = mapped.complete = mapped.given_up = True
        calls, node = self.calls, mapped.node
        calls.states[node] = codes.PENDING
        calls.unfinished += 1
        self.open_calls += 1
        self.finish(calls, node, event, at, message)
        self.out.append(commands.MapExpanded(node=node, length=0))
        self.close(mapped)

    def labels_of_failures(self, edges: Sequence[Edge]) -> list[str]:
        """Return the names of the runs that failed among the sources of edges."""
        names: list[str] = []
        for edge in edges:
            found = self.maps.get(edge.source)
            if found is None or found.given_up or edge.source_item is not None:
                if self.end_of(edge) == codes.FAILED:
                    names.append(self.source_label(edge))
            else:
                names += [found.label(item) for item in found.failures()]
        return names


def _usual(runs: Runs, index: int) -> int:
    """Return how many attempts a final run has had, if nothing else is known."""
    return 0 if runs.states[index] == codes.CACHED else 1
