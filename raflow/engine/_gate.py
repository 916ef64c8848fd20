"""What stands between inputs that are there and the queues, for calls out of the ordinary.

In this order: the cache, in which the value may be found; the inputs, whose values may have been
lost; the slots of limits. While the run is paused nobody asks for anything. What is held back has
the code HELD: for people it is pending.
"""

from __future__ import annotations

from raflow.engine import _commands as commands
from raflow.engine._cache import Cache
from raflow.engine._dispatch import Dispatch, Flight
from raflow.engine._events import ValuesLost
from raflow.engine._kinds import Kinds
from raflow.engine._ledger import Ledger
from raflow.engine._recompute import Recompute
from raflow.engine._runs import Runs
from raflow.engine._slots import Slots
from raflow.model import NodeKind, TaskRunEvent, TaskRunKey


class Gate:
    """Holds calls back until nothing stands against them."""

    def __init__(
        self,
        ledger: Ledger,
        kinds: Kinds,
        dispatch: Dispatch,
        *,
        cache: Cache,
        values: Recompute,
        slots: Slots,
    ) -> None:
        """Begin with nothing held back."""
        self._ledger = ledger
        self._kinds = kinds
        self._dispatch = dispatch
        self._cache = cache
        self._values = values
        self._slots = slots
        self._paused: list[tuple[Runs, int, int]] = []
        self._reason = ""
        self._is_at_rest = False

    def admit(self, runs: Runs, start: int, stop: int, at: float, *, front: bool) -> None:
        """Take neighbours whose inputs are there, and push those that nothing holds back."""
        if runs is self._ledger.calls and self._is_subflow(start):
            self._admit_subflow(start, at)
            return
        kind = self._kinds.of_run(runs, start)
        if self._dispatch.paused and kind.gated:
            self._wait(runs, start, stop)
            return
        for left, right in self._cache.ask(kind, runs, start, stop):
            for first, last in self._values.ready(runs, left, right, at):
                if kind.options.limits:
                    self._slots.line_up(kind, runs, first, last, front=front)
                else:
                    self._dispatch.push(runs, first, last, at, front=front, admitted=True)

    def _is_subflow(self, node: int) -> bool:
        return self._ledger.calls.call(node).kind is NodeKind.SUBFLOW

    def _admit_subflow(self, node: int, at: float) -> None:
        """Start a child flow run; its own calls take places in the window, it takes none itself."""
        ledger = self._ledger
        calls = ledger.calls
        if self._dispatch.paused:
            self._wait(calls, node, node + 1)
        elif list(self._values.ready(calls, node, node + 1, at)):
            ledger.subflows.add(node)
            calls.tally(node).attempts += 1
            ledger.enter(calls, node, TaskRunEvent.SUBMITTED, at)
            ledger.out.append(commands.StartSubflow(run=calls.key(node)))

    def landed(self, flight: Flight) -> None:
        """Take note that a batch of calls with limits is over."""
        for piece in flight.pieces:
            for index in range(piece.start, piece.stop):
                self._slots.give_back(piece.runs, index)

    def values_lost(self, event: ValuesLost) -> None:
        """Note that values are gone, and hold back what was about to be sent with them."""
        self._values.lost(event)
        for piece in self._dispatch.withdraw_all(lambda _: True):
            runs, start, stop = piece.runs, piece.start, piece.stop
            runs.let_go(start, stop)
            if not piece.kind.queue.limited:
                self._dispatch.push(runs, start, stop, event.at, front=False)
                continue
            for index in range(start, stop):
                self._slots.go(runs, index, event.at)

    def drop_ended(self) -> None:
        """Let go of what calls hold that have ended without having run."""
        self._slots.drop_ended()

    # Pause --------------------------------------------------------------------------------------

    def pause(self, reason: str, at: float) -> None:
        """Let nothing new begin."""
        if not self._dispatch.paused:
            self._dispatch.paused = True
            self._is_at_rest = False
            self._reason = (
                f"the flow run is paused: {reason}" if reason else "the flow run is paused"
            )
            self._slots.pause(at, self._reason)

    def unpause(self, at: float) -> None:
        """Let everything go on."""
        self._dispatch.paused = False
        waiting, self._paused = self._paused, []
        for runs, start, stop in waiting:
            self._dispatch.readmit(runs, start, stop, at, front=False)
        self._slots.go_on()

    def _wait(self, runs: Runs, start: int, stop: int) -> None:
        runs.hold(start, stop)
        self._paused.append((runs, start, stop))

    def rest(self) -> None:
        """Say it, once, when a paused run has nothing in flight."""
        if self._dispatch.paused and not self._is_at_rest and not self._dispatch.flights:
            self._is_at_rest = True
            self._ledger.out.append(commands.AtRest())

    # The story ----------------------------------------------------------------------------------

    def reason(self, key: TaskRunKey) -> str:
        """Say what holds a run back whose inputs are there; may be called from any thread."""
        if self._dispatch.paused:
            return self._reason
        run = self._ledger.find(key)
        return self._cache.reason(run) or self._slots.reason(run) or self._values.reason(key)
