"""Runs that are to end: all of them, or those of one call."""

from __future__ import annotations

from raflow.engine import _codes as codes
from raflow.engine import _commands as commands
from raflow.engine._dispatch import Dispatch
from raflow.engine._events import CallCancelAsked, GraceOver
from raflow.engine._gate import Gate
from raflow.engine._judge import Judge
from raflow.engine._ledger import Ledger
from raflow.engine._recompute import Recompute
from raflow.engine._runs import Mapped, Runs
from raflow.model import TaskRunEvent, TaskRunKey


class Cancel:
    """Has what waits end at once, asks what runs to stop, and kills it after a grace."""

    def __init__(
        self,
        ledger: Ledger,
        dispatch: Dispatch,
        judge: Judge,
        *,
        gate: Gate,
        values: Recompute,
        grace: float,
    ) -> None:
        """Begin with nothing to end; `grace`: seconds that running calls get to stop."""
        self._ledger = ledger
        self._dispatch = dispatch
        self._judge = judge
        self._gate = gate
        self._values = values
        self._grace = grace

    # Everything ---------------------------------------------------------------------------------

    def stop(self, reason: str, at: float) -> None:
        """Start nothing more but teardowns, and ask what runs to stop."""
        ledger = self._ledger
        ledger.stopping = reason
        self._end_what_waits(at)
        for node in sorted(ledger.subflows - ledger.spared):
            run = TaskRunKey(node)
            ledger.out.append(commands.CancelSubflow(run=run, reason=reason))
        self._end_flights(force=False)
        if any(not flight.queue.teardown for flight in self._dispatch.flights.values()):
            ledger.out.append(commands.SetGraceTimer(due=at + self._grace))

    def _end_what_waits(self, at: float) -> None:
        ledger, reason = self._ledger, self._ledger.stopping
        spares = bool(ledger.spared)
        self._dispatch.withdraw_all(lambda queue: not (spares and queue.teardown))
        self._values.stop(at)
        ledger.cancel(ledger.calls, 0, len(ledger.calls.states), at, reason, spare=True)
        for mapped in list(ledger.maps.values()):
            if ledger.stops(mapped.node):
                self._end_map(mapped, reason, at)
        self._gate.drop_ended()

    def _end_map(self, mapped: Mapped, reason: str, at: float) -> None:
        if not mapped.complete and not mapped.length:
            self._ledger.give_up(mapped, TaskRunEvent.CANCELLED, at, reason)
            return
        self._ledger.cancel(mapped, 0, mapped.length, at, reason, spare=False)
        if not mapped.complete:
            self._judge.complete(mapped)

    def kill(self, at: float) -> None:
        """Spare nothing any more, and kill what still runs."""
        ledger = self._ledger
        ledger.killing = True
        if ledger.spared:
            ledger.spared.clear()
            self._end_what_waits(at)
        self._end_flights(force=True)

    def _end_flights(self, *, force: bool) -> None:
        self._ledger.out += [
            commands.CancelBatch(batch=flight.batch, force=force)
            for flight in self._dispatch.flights.values()
            if not (flight.queue.teardown and self._ledger.spared)
        ]

    def grace_over(self, event: GraceOver) -> None:
        """Kill what has not stopped."""
        if event.batch is None:
            self._end_flights(force=True)
            return
        flight = self._dispatch.flights.get(event.batch)
        if flight is None:
            return
        rest = [position for position in range(flight.size) if position not in flight.returned]
        doomed = [position for position in rest if self._ledger.doom(*flight.run(position))]
        if doomed:
            flight.killed = True
            cancel = commands.CancelCalls(batch=event.batch, positions=tuple(doomed), force=True)
            self._ledger.out.append(cancel)

    # One call -----------------------------------------------------------------------------------

    def call(self, event: CallCancelAsked) -> None:
        """End a call, an item of a map, or all of a map."""
        ledger, (at, node, item, reason) = self._ledger, event
        mapped = ledger.maps.get(node)
        if mapped is None or mapped.given_up:
            if node < len(ledger.calls.states):
                self._end(ledger.calls, node, node + 1, reason, at)
        elif item is not None:
            if item < mapped.length:
                self._end(mapped, item, item + 1, reason, at)
        elif not mapped.complete and not mapped.length:
            ledger.calls.seen.add(node)
            ledger.give_up(mapped, TaskRunEvent.CANCELLED, at, reason)
        else:
            self._end(mapped, 0, mapped.length, reason, at)
            if not mapped.complete:
                self._judge.complete(mapped)

    def _end(self, runs: Runs, start: int, stop: int, reason: str, at: float) -> None:
        """End neighbours; the body that wants that has dealt with what they end in."""
        ledger, dispatch = self._ledger, self._dispatch
        runs.seen.update(
            start + index
            for index in codes.marked(runs.states[start:stop].translate(codes.IS_OPEN))
        )
        dispatch.withdraw(runs, start, stop)
        ledger.cancel(runs, start, stop, at, reason, spare=False)
        self._gate.drop_ended()
        for index in codes.marked(runs.states[start:stop].translate(codes.IS_OUT)):
            runs.doomed[start + index] = reason
        if runs is ledger.calls and start in ledger.subflows:
            run = TaskRunKey(start)
            ledger.out.append(commands.CancelSubflow(run=run, reason=reason))
        for flight in dispatch.flights.values():
            positions = flight.positions(runs, start, stop)
            if positions:
                batch = flight.batch
                ledger.out += [
                    commands.CancelCalls(batch=batch, positions=tuple(positions), force=False),
                    commands.SetGraceTimer(due=at + self._grace, batch=batch),
                ]
