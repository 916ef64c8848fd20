"""The engine of one flow run."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from raflow.engine import _commands as commands
from raflow.engine import _events as events
from raflow.engine._attempts import Attempts
from raflow.engine._dispatch import Dispatch
from raflow.engine._judge import Judge
from raflow.engine._kinds import Kinds
from raflow.engine._ledger import Ledger
from raflow.engine._losses import Losses
from raflow.engine._pace import Pace
from raflow.engine._ready import Costs
from raflow.engine._release import Releases
from raflow.engine._reports import Reports
from raflow.engine._runs import Mapped
from raflow.engine._verdict import unhandled_failures
from raflow.engine._waiting import waits_for
from raflow.model import NodeKind, Resources, StateName, TaskRunEvent, TaskRunKey

_CHILD_ENDINGS: Final[Mapping[StateName, TaskRunEvent]] = {
    StateName.COMPLETED: TaskRunEvent.SUCCEEDED,
    StateName.FAILED: TaskRunEvent.FAILED,
    StateName.TIMED_OUT: TaskRunEvent.TIMED_OUT,
    StateName.CRASHED: TaskRunEvent.CRASHED,
    StateName.CANCELLED: TaskRunEvent.CANCELLED,
}


class Engine:
    """Decides what one flow run does next.

    The one entrance is `handle(event) -> commands`. The engine reads no clock and starts nothing:
    the runtime feeds it events and carries out its commands, in order. It holds no values and no
    user code, only what is needed to decide.
    """

    def __init__(
        self,
        *,
        window: int,
        slots: Callable[[Resources], int],
        pace: Pace | None = None,
        budget: float = 0.1,
        cancel_grace: float = 10.0,
        rng: random.Random | None = None,
    ) -> None:
        """Start with nothing registered.

        Args:
            window: How many batches may be in flight at once.
            slots: How many calls with these resources can run at the same time.
            pace: How long the calls of each task take, as far as earlier runs have shown.
            budget: Seconds after which a batch starts no more calls.
            cancel_grace: Seconds that running calls get to stop before they are killed.
            rng: Source of the jitter of retry delays. Default: seeded with 0.
        """
        self.pace = pace or Pace()
        self._grace = cancel_grace
        self._ledger = ledger = Ledger()
        costs = Costs(self.pace, budget)
        self._kinds = Kinds(ledger, costs)
        self._dispatch = Dispatch(ledger, self._kinds, costs, window=window, slots=slots)
        self._releases = Releases(ledger)
        self._judge = Judge(ledger, self._dispatch, self._releases)
        seeded = rng or random.Random(0)  # noqa: S311 - jitter, not a secret
        self._attempts = Attempts(ledger, self._dispatch, self._judge, seeded)
        self._reports = Reports(ledger, self._dispatch, self._attempts, costs)
        self._losses = Losses(ledger, self._dispatch, self._attempts)
        self._body_ended = False
        self._cancelled = False
        self._settled = False
        self._handlers: Mapping[type[events.Event], Callable[[Any], None]] = {
            events.CallsRegistered: self._calls_registered,
            events.ItemsArrived: self._judge.items_arrived,
            events.FuturesDropped: self._futures_dropped,
            events.CallBegan: self._attempts.began,
            events.CallsReturned: self._reports.returned,
            events.BatchFinished: self._reports.finished,
            events.BatchDied: self._losses.died,
            events.SendDue: self._send_due,
            events.SubflowEnded: self._subflow_ended,
            events.RetryDue: self._retry_due,
            events.GraceOver: self._grace_over,
            events.FailureSeen: self._failure_seen,
            events.BodyEnded: self._body_has_ended,
            events.CancelAsked: self._cancel_asked,
        }

    @property
    def in_flight(self) -> int:
        """How many batches are out."""
        return len(self._dispatch.flights)

    @property
    def open_calls(self) -> int:
        """How many single calls, and items of maps, are known and not final."""
        return self._ledger.open_calls

    def state(self, key: TaskRunKey) -> tuple[StateName, float]:
        """Return the state of a task run, and since when; may be called from any thread.

        A call that is not registered yet is PENDING since 0.
        """
        runs, index = self._ledger.find(key)
        if index >= len(runs.states):
            return StateName.PENDING, 0.0
        return runs.name(index), runs.since[index]

    def waits_for(self, key: TaskRunKey) -> str:
        """Say what a task run waits for; empty if for nothing but a place to run.

        May be called from any thread.
        """
        known = key.node < len(self._ledger.calls.states)
        return waits_for(key, self._ledger) if known else ""

    def handle(self, event: events.Event) -> list[commands.Command]:
        """Take an event and return what is to be done about it, in order."""
        self._handlers[type(event)](event)
        self._tell(event.at)
        self._dispatch.send(event.at)
        self._settle()
        ledger = self._ledger
        out, ledger.out = ledger.out, []
        return out

    def _tell(self, at: float) -> None:
        news = self._ledger.news
        while news:
            self._judge.tell(news.popleft(), at)

    # What the body does -------------------------------------------------------------------------

    def _calls_registered(self, event: events.CallsRegistered) -> None:
        if not event.calls:
            return
        self._ledger.calls.add(event.calls, event.at)
        for plain, row in groupby(event.calls, _is_plain):
            if plain and not self._ledger.stopping:
                self._plain_calls(list(row), event.at)
                continue
            for call in row:
                self._judge.call_made(call, event.at)
                self._tell(event.at)

    def _plain_calls(self, calls: Sequence[events.CallMade], at: float) -> None:
        """Queue calls that wait for nothing."""
        ledger = self._ledger
        ledger.open_calls += len(calls)
        start = calls[0].node
        first = calls[0]
        for call in calls:
            if call.options is not first.options or call.name != first.name:
                self._dispatch.push(ledger.calls, start, call.node, at, front=False)
                start, first = call.node, call
        self._dispatch.push(ledger.calls, start, calls[-1].node + 1, at, front=False)

    def _futures_dropped(self, event: events.FuturesDropped) -> None:
        self._releases.dropped(event.nodes)

    def _failure_seen(self, event: events.FailureSeen) -> None:
        runs, index = self._ledger.find(event.run)
        runs.seen.add(index)

    def _body_has_ended(self, event: events.BodyEnded) -> None:
        self._body_ended = True
        self._dispatch.waits_for_company = False
        if event.raised and not self._ledger.stopping:
            self._stop("the flow's body raised an exception", event.at)

    # Timers, children ---------------------------------------------------------------------------

    def _send_due(self, _: events.SendDue) -> None:
        self._dispatch.timer_is_over()

    def _retry_due(self, event: events.RetryDue) -> None:
        self._attempts.due(event.run, event.at)

    def _subflow_ended(self, event: events.SubflowEnded) -> None:
        calls, node = self._ledger.calls, event.run.node
        if node not in self._ledger.subflows:
            return
        if event.truth is not None:
            calls.truths[node] = event.truth
        if event.length is not None:
            calls.lengths[node] = event.length
        ending = _CHILD_ENDINGS[event.state.name]
        self._ledger.finish(calls, node, ending, event.at, event.state.message)

    # The end ------------------------------------------------------------------------------------

    def _cancel_asked(self, event: events.CancelAsked) -> None:
        again, self._cancelled = self._cancelled, True
        if not self._ledger.stopping:
            self._stop(event.reason, event.at)
        elif again:
            self._kill()

    def _stop(self, reason: str, at: float) -> None:
        """Start nothing more, and ask what runs to stop."""
        ledger = self._ledger
        ledger.stopping = reason
        self._dispatch.clear()
        ledger.cancel(ledger.calls, at, reason)
        for mapped in list(ledger.maps.values()):
            self._stop_map(mapped, reason, at)
        for node in sorted(ledger.subflows):
            run = TaskRunKey(node)
            ledger.out.append(commands.CancelSubflow(run=run, reason=reason))
        flights = self._dispatch.flights
        if flights:
            ledger.out += [commands.CancelBatch(batch=batch, force=False) for batch in flights]
            ledger.out.append(commands.SetGraceTimer(due=at + self._grace))

    def _stop_map(self, mapped: Mapped, reason: str, at: float) -> None:
        if not mapped.complete and not mapped.length:
            self._ledger.give_up(mapped, TaskRunEvent.CANCELLED, at, reason)
            return
        self._ledger.cancel(mapped, at, reason)
        if not mapped.complete:
            self._judge.complete(mapped)

    def _grace_over(self, _: events.GraceOver) -> None:
        self._kill()

    def _kill(self) -> None:
        flights = self._dispatch.flights
        self._ledger.out += [commands.CancelBatch(batch=batch, force=True) for batch in flights]

    def _settle(self) -> None:
        ledger = self._ledger
        if self._body_ended and not (ledger.open_calls or ledger.open_maps or self._settled):
            self._settled = True
            loose = unhandled_failures(ledger)
            settled = commands.RunSettled(cancelled=self._cancelled, unhandled=loose)
            ledger.out.append(settled)


def _is_plain(call: events.CallMade) -> bool:
    """Tell whether a call is a task that waits for nothing."""
    return call.kind is NodeKind.TASK and call.runnable and not call.edges
