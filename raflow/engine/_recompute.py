"""Values of completed runs that nobody has any more, and how they come back."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from raflow.engine import _codes as codes
from raflow.engine import _commands as commands
from raflow.engine._dispatch import Dispatch, Flight
from raflow.engine._events import CallMade, ValueAsked, ValuesFound, ValuesLost
from raflow.engine._ledger import Ledger
from raflow.engine._release import USES, Releases
from raflow.engine._rules import Upstream, Verdict, decide
from raflow.engine._runs import EDGED, WANTED, Mapped, Runs
from raflow.engine._values import DOUBTED, GONE, Recall, Run, Values
from raflow.model import Chunk, Edge, EdgeKind, TaskRunEvent, TaskRunKey, TriggerRule

_MOST_LOSSES: Final = 3
_WHY: Final = "its value was lost"
_NO_INPUT: Final = "an input was lost, and could not be made again"
_BACK: Final = "its value was lost, and computing it again was stopped"


class _Held:
    """Neighbours that wait for values."""

    __slots__ = ("missing", "runs", "start", "stop")

    def __init__(self, runs: Runs, start: int, stop: int, missing: int) -> None:
        self.runs = runs
        self.start = start
        self.stop = stop
        self.missing = missing


class Recompute:
    """Holds back whatever lacks an input, and has that computed again: no more than is needed.

    A completed run whose value is lost stays completed as long as nobody asks for the value. Then
    it is looked for where it may be kept (`FindValues`), and only if it is not found the run is
    opened again: it passes through the gate like any other, and thus waits for its own inputs.
    """

    def __init__(
        self, ledger: Ledger, dispatch: Dispatch, releases: Releases, recall: Recall
    ) -> None:
        """Begin with all values at hand."""
        self._ledger = ledger
        self._dispatch = dispatch
        self._releases = releases
        self._recall = recall
        self._values = Values(ledger, recall)
        self._waiting: dict[Run, list[_Held | None]] = {}
        """By run: who waits for its value; None stands for the flow's body."""
        self._again = self._values.again
        self._renewed: dict[Run, float] = {}
        """When a value that was lost came back."""
        self._line: deque[Run] = deque()
        """To be computed again; a queue rather than recursion, as chains may be long."""
        self._sought: list[Run] = []
        self._failed = False
        """Some run that was opened again has failed."""

    # Who needs what -----------------------------------------------------------------------------

    def ready(self, runs: Runs, start: int, stop: int, at: float) -> Iterable[tuple[int, int]]:
        """Return those neighbours whose inputs can be had; the others are held back."""
        if not self._ledger.has_gone:
            return ((start, stop),)
        if isinstance(runs, Mapped):
            return self._ready_items(runs, start, stop, at)
        free = bytearray(stop - start)
        for node in range(start, stop):
            call = self._ledger.calls.call(node)
            if not call.edges or self._is_ready(runs, node, call, -1, at):
                free[node - start] = 1
        return [(start + first, start + last) for first, last in codes.stretches(free)]

    def _ready_items(
        self, mapped: Mapped, start: int, stop: int, at: float
    ) -> Iterable[tuple[int, int]]:
        edges, own = mapped.call.edges, {id(edge) for edge, _ in mapped.sources}
        shared = [e for e in edges if e.target_item is None and id(e) not in own]
        lacking = [run for edge in shared for run in self._values.lacking(edge, -1)]
        if lacking:
            self._hold(mapped, start, stop, lacking)
            return ()
        suspects = bytes(stop - start)
        for edge in edges:
            if edge.kind is EdgeKind.ITEM:
                suspects = codes.either(suspects, self._values.suspects(edge, start, stop))
        every = range(stop - start) if self._failed else ()
        chosen = {*codes.marked(suspects.translate(_IS_SET)), *every}
        chosen |= {item - start for item in mapped.wanted}
        chosen |= {e.target_item - start for e in edges if e.target_item is not None}
        free = bytearray(b"\1" * (stop - start))
        for item in sorted(item for item in chosen if 0 <= item < stop - start):
            free[item] = self._is_ready(mapped, start + item, mapped.call, start + item, at)
        return [(start + first, start + last) for first, last in codes.stretches(free)]

    def _is_ready(self, runs: Runs, index: int, call: CallMade, item: int, at: float) -> bool:
        edges = [edge for edge in call.edges if edge.target_item in (None, item)]
        lacking = [run for edge in edges for run in self._values.lacking(edge, item)]
        if (runs, index) in self._again:
            edges = [edge for edge in edges if edge.kind in USES]
            lacking += [run for edge in edges for run in self._values.unfinished(edge, item)]
        elif not self._failed:
            edges = []
        if edges and self._end_if_failed(runs, index, call, edges, at):
            return False
        if lacking:
            self._hold(runs, index, index + 1, lacking)
        return not lacking

    def _hold(self, runs: Runs, start: int, stop: int, lacking: Sequence[Run]) -> None:
        runs.hold(start, stop)
        wanted = dict.fromkeys(lacking)
        held = _Held(runs, start, stop, len(wanted))
        for source in wanted:
            self._need(source, held)

    def _need(self, source: Run, held: _Held | None) -> None:
        """Have a value brought back for somebody who waits for it."""
        waiting = self._waiting.get(source)
        if waiting is not None:
            waiting.append(held)
            return
        self._waiting[source] = [held]
        runs, index = source
        if isinstance(runs, Mapped):
            runs.wanted.add(index)
        else:
            self._ledger.calls.marks[index] |= WANTED
        if not runs.end(index):
            return
        hopeless = runs.losses[index] > _MOST_LOSSES or self._values.is_forgotten(runs, index)
        if hopeless or runs.gone[index] == GONE:
            self._line.append(source)
        else:
            self._sought.append(source)

    def _end_if_failed(
        self, runs: Runs, index: int, call: CallMade, edges: Sequence[Edge], at: float
    ) -> bool:
        """End a run whose sources have failed since it was found that it may run."""
        rule = call.options.trigger_rule
        if rule not in _NEEDY or call.options.teardown:
            return False
        up = Upstream()
        for edge in edges:
            end = self._end_of(edge, index)
            up.total += 1
            failed = end == codes.FAILED and not edge.allow_failure
            up.failed += failed
            up.skipped += end == codes.SKIPPED
            up.succeeded += not failed and end not in (codes.SKIPPED, codes.OPEN)
        event = _ENDS.get(decide(rule, up))
        if event is not None:
            self._ledger.finish(runs, index, event, at, _NO_INPUT)
        return event is not None

    def _end_of(self, edge: Edge, item: int) -> int:
        mapped = self._values.source(edge)
        by_item = edge.kind is EdgeKind.ITEM and mapped is not None
        return mapped.end(item) if by_item and mapped else self._ledger.end_of(edge)

    # What comes back ----------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether there is something for `work` to do."""
        return bool(self._line or self._sought)

    def work(self, at: float) -> None:
        """Open runs again, and look for values."""
        while self._line:
            self._compute(*self._line.popleft(), at)
        sought, self._sought = self._sought, []
        by_table: dict[Runs, list[int]] = {}
        for runs, index in sought:
            by_table.setdefault(runs, []).append(index)
        chunks = [
            chunk
            for runs, indexes in by_table.items()
            for start, stop in codes.rows(sorted(indexes))
            for chunk in runs.chunks(start, stop, 0)
        ]
        if chunks:
            self._ledger.out.append(commands.FindValues(chunks=tuple(chunks)))

    def _compute(self, runs: Runs, index: int, at: float) -> None:
        ledger, run = self._ledger, (runs, index)
        if run not in self._waiting or runs.end(index) != codes.SUCCEEDED:
            return
        node = runs.key(index).node
        forgotten = self._values.is_forgotten(runs, index)
        call = None if ledger.stopping or forgotten else self._recall(node)
        refusal = self._refusal(runs, index, call)
        if refusal or call is None:
            self._refuse(run, refusal, at)
            return
        if isinstance(runs, Mapped):
            if runs.closed:
                self._releases.used(call.edges)
            runs.released[index] = 0
        else:
            calls = ledger.calls
            calls.calls[index], calls.keys[index] = call, call.key
            if call.edges:
                calls.marks[index] |= EDGED
                self._releases.used(call.edges)
        self._releases.is_needed(node)
        runs.asked.put(index, index + 1, 0)
        self._again.add(run)
        ledger.reopen(runs, index, at, _WHY)
        self._dispatch.gate.admit(runs, index, index + 1, at, front=True)

    def _refusal(self, runs: Runs, index: int, call: CallMade | None) -> str:
        if self._ledger.stopping:
            return self._ledger.stopping
        if call is None:
            return "nobody knows any more how it was made"
        if call.options.at_most_once:
            return "with at_most_once it is not computed again"
        losses = runs.losses[index]
        return f"it was lost {losses} times" if losses > _MOST_LOSSES else ""

    def _refuse(self, run: Run, why: str, at: float) -> None:
        """Tell those who wait that a value is lost for good."""
        runs, index = run
        label = self._ledger.calls.keys[index] if runs is self._ledger.calls else runs.label(index)
        message = f"the value of {label or 'an input'} was lost: {why}"
        for held in self._stop_waiting(run):
            if held is None:
                gone = commands.ValueGone(run=runs.key(index), message=message)
                self._ledger.out.append(gone)
                continue
            for item in range(held.start, held.stop):
                if codes.IS_HELD[held.runs.states[item]]:
                    self._ledger.finish(held.runs, item, TaskRunEvent.LOST, at, message)

    def _stop_waiting(self, run: Run) -> list[_Held | None]:
        runs, index = run
        if isinstance(runs, Mapped):
            runs.wanted.discard(index)
        else:
            self._ledger.calls.marks[index] &= ~WANTED
        return self._waiting.pop(run, [])

    def ended(self, runs: Runs, index: int, at: float) -> None:
        """Take note that a run that somebody waits for is final again."""
        run = runs, index
        if run in self._again:
            self._again.remove(run)
            self._renewed[run] = at
            if runs.end(index) == codes.SUCCEEDED:
                runs.gone.put(index, index + 1, 0)
            else:
                self._failed = True
        self._go_on(run, at)

    def _go_on(self, run: Run, at: float) -> None:
        """Let those go on who waited for a value."""
        for held in self._stop_waiting(run):
            if held is None:
                continue
            held.missing -= 1
            if not held.missing:
                self._dispatch.readmit(held.runs, held.start, held.stop, at)

    # What the runtime tells ---------------------------------------------------------------------

    def asked(self, event: ValueAsked) -> None:
        """Bring back a value for the flow's body."""
        ledger, (node, item) = self._ledger, event.run
        mapped = self._values.source(Edge(source=node, target=node))
        asked = Edge(source=node, target=node, source_item=None if item < 0 else item)
        # Of a map, only some items may be missing; the runtime knows which.
        doubted = mapped is None or item >= 0
        for run in list(self._values.sources(asked, item)):
            runs, index = run
            at_hand = runs.end(index) == codes.SUCCEEDED and not self._values.is_gone(runs, index)
            if at_hand and doubted:
                runs.gone.put(index, index + 1, DOUBTED)
                ledger.has_gone = True
            if run in self._again or self._values.is_gone(runs, index):
                self._need(run, None)

    def lost(self, event: ValuesLost) -> None:
        """Note that values are gone."""
        for runs, start, stop in self._tables(event.chunks):
            for first, last in codes.stretches(
                runs.states[start:stop].translate(codes.IS_SUCCEEDED)
            ):
                runs.gone.put(start + first, start + last, GONE)
                runs.losses.count(start + first, start + last)
            for run in self._among(runs, start, stop):
                if run not in self._again:
                    self._line.append(run)
        self._ledger.has_gone = True

    def found(self, event: ValuesFound) -> None:
        """Note that values can be had again."""
        for runs, start, stop in self._tables(event.chunks):
            runs.gone.put(start, stop, 0)
            if isinstance(runs, Mapped):
                runs.released[start:stop] = bytes(stop - start)
                self._releases.is_needed(runs.node)
            for run in self._among(runs, start, stop):
                if runs is self._ledger.calls:
                    self._releases.is_needed(run[1])
                self._renewed[run] = event.at
                if run not in self._again:
                    self._go_on(run, event.at)

    def not_fetched(self, flight: Flight, call: CallMade, item: int, inputs: Iterable[int]) -> None:
        """Note that a worker could not get at inputs of a call."""
        for number in inputs:
            for run in self._values.sources(call.edges[number], item):
                runs, index = run
                fresh = self._renewed.get(run, 0.0) > flight.submitted_at
                known = run in self._waiting or run in self._again or runs.gone[index]
                if runs.end(index) == codes.SUCCEEDED and not (fresh or known):
                    runs.gone.put(index, index + 1, DOUBTED)
                    runs.losses.count(index, index + 1)
        self._ledger.has_gone = True

    def _tables(self, chunks: Iterable[Chunk]) -> Iterator[tuple[Runs, int, int]]:
        """Yield where the runs of chunks stand; without those that are forgotten."""
        for chunk in chunks:
            mapped = self._ledger.maps.get(chunk.node)
            if chunk.start < 0:
                yield self._ledger.calls, chunk.node, chunk.node + 1
            elif mapped is not None:
                yield mapped, chunk.start, min(chunk.stop, mapped.length)

    def _among(self, runs: Runs, start: int, stop: int) -> list[Run]:
        """Return which of these runs somebody waits for."""
        if isinstance(runs, Mapped):
            return [(runs, item) for item in sorted(runs.wanted) if start <= item < stop]
        marks = self._ledger.calls.marks
        return [(runs, node) for node in range(start, stop) if marks[node] & WANTED]

    # The end, and the story ---------------------------------------------------------------------

    def stop(self, at: float) -> None:
        """Leave runs completed that were opened again, and not sent yet."""
        for runs, index in sorted(self._again, key=lambda run: run[0].key(run[1])):
            if runs.states[index] in (codes.QUEUED, codes.HELD):
                self._again.remove((runs, index))
                self._dispatch.withdraw(runs, index, index + 1)
                self._ledger.finish(runs, index, TaskRunEvent.SUCCEEDED, at, _BACK)

    def reason(self, run: TaskRunKey) -> str:
        """Say which values a held run waits for."""
        runs, index = self._ledger.find(run)
        sources = [
            source.label(number)
            for (source, number), waiting in list(self._waiting.items())
            for held in waiting
            if held is not None and held.runs is runs and held.start <= index < held.stop
        ]
        return f"waits for the value of {', '.join(sources[:3])}, which was lost" if sources else ""


_IS_SET: Final = bytes([0]) + b"\1" * 255
_NEEDY: Final = frozenset(
    {
        TriggerRule.ALL_SUCCESS,
        TriggerRule.NONE_FAILED,
        TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS,
        TriggerRule.NONE_SKIPPED,
    }
)
"""Rules that do not run a task whose inputs have failed, or were skipped."""
_ENDS: Final = {
    Verdict.UPSTREAM_FAILED: TaskRunEvent.UPSTREAM_FAILED,
    Verdict.SKIP: TaskRunEvent.SKIPPED,
}
