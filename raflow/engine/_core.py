"""The engine of one flow run."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from raflow.engine import _commands as commands
from raflow.engine import _events as events
from raflow.engine._attempts import Attempts
from raflow.engine._cache import Cache
from raflow.engine._cancel import Cancel
from raflow.engine._dispatch import Dispatch
from raflow.engine._gate import Gate
from raflow.engine._judge import Judge
from raflow.engine._kinds import Kinds
from raflow.engine._ledger import Ledger
from raflow.engine._losses import Losses
from raflow.engine._memory import MemoryGrowth
from raflow.engine._pace import Pace
from raflow.engine._ready import Costs
from raflow.engine._recompute import Recompute
from raflow.engine._release import Releases
from raflow.engine._reports import Reports
from raflow.engine._slots import Slots
from raflow.engine._teardown import teardown_made
from raflow.engine._verdict import unhandled_failures
from raflow.engine._waiting import waits_for
from raflow.model import NodeKind, Resources, StateName, TaskRunEvent, TaskRunKey

_CHILD_ENDINGS: Final[Mapping[StateName, TaskRunEvent]] = {
    StateName.COMPLETED: TaskRunEvent.SUCCEEDED,
    StateName.RECOVERED: TaskRunEvent.RECOVERED,
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
        limit_slots: Callable[[str], int] | None = None,
        recall: Callable[[int], events.CallMade | None] | None = None,
        fuses: bool = True,
    ) -> None:
        """Start with nothing registered.

        Args:
            window: How many batches may be in flight at once.
            slots: How many calls with these resources can run at the same time.
            pace: How long the calls of each task take, as far as earlier runs have shown.
            budget: Seconds after which a batch starts no more calls.
            cancel_grace: Seconds that running calls get to stop before they are killed.
            rng: Source of the jitter of retry delays. Default: seeded with 0.
            limit_slots: How many slots a limit has, by name: so many calls in line are enough.
                Default: one each.
            recall: The definition of a call all of whose runs are final, for it to run again
                because its value was lost; None if that is impossible. Default: it always is.
            fuses: Whether a call may travel with those that it waits for, and so begin before the
                runtime has heard of their values.
        """
        self.pace = pace or Pace()
        self._ledger = ledger = Ledger()
        costs = Costs(self.pace, budget)
        self._kinds = kinds = Kinds(ledger, costs)
        self._dispatch = dispatch = Dispatch(
            ledger, kinds, costs, window=window, slots=slots, fuses=fuses
        )
        self._releases = releases = Releases(ledger)
        self._values = values = Recompute(ledger, dispatch, releases, recall or _forgotten)
        self._cache = cache = Cache(ledger, dispatch)
        self._slots = Slots(ledger, kinds, dispatch, values, limit_slots or _one)
        self._gate = dispatch.gate = Gate(
            ledger, kinds, dispatch, cache=cache, values=values, slots=self._slots
        )
        self._judge = judge = Judge(ledger, dispatch, releases, values)
        seeded = rng or random.Random(0)  # noqa: S311 - jitter, not a secret
        memory = MemoryGrowth(slots)
        self._attempts = attempts = Attempts(ledger, dispatch, judge, seeded, memory)
        self._reports = Reports(ledger, dispatch, attempts, costs, values)
        self._losses = Losses(ledger, dispatch, attempts)
        self._cancel = Cancel(
            ledger, dispatch, judge, gate=self._gate, values=values, grace=cancel_grace
        )
        self._body_ended = False
        self._cancelled = False
        self._settled = False
        self._handlers = self._all_handlers()

    def _all_handlers(self) -> Mapping[type[events.Event], Callable[[Any], None]]:
        return {
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
            events.GraceOver: self._cancel.grace_over,
            events.FailureSeen: self._failure_seen,
            events.BodyEnded: self._body_has_ended,
            events.PaceKnown: self._pace_known,
            events.CancelAsked: self._cancel_asked,
            events.CallCancelAsked: self._cancel.call,
            events.PauseAsked: self._pause_asked,
            events.UnpauseAsked: self._unpause_asked,
            events.ValueAsked: self._value_asked,
            events.ValuesLost: self._gate.values_lost,
            events.ValuesFound: self._values.found,
            events.SlotsGranted: self._slots.granted,
            events.SlotsAwaited: self._slots.awaited,
            events.SlotsRefused: self._slots.refused,
            events.CacheAnswered: self._cache.answered,
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
        return waits_for(key, self._ledger, self._gate) if known else ""

    def handle(self, event: events.Event) -> list[commands.Command]:
        """Take an event and return what is to be done about it, in order."""
        self._handlers[type(event)](event)
        self._tell(event.at)
        while self._values.is_busy:
            self._values.work(event.at)
            self._tell(event.at)
        self._dispatch.send(event.at)
        if self._dispatch.paused:
            self._gate.rest()
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
        for plain, row in groupby(event.calls, _plain_kind):
            if plain and not self._ledger.stopping:
                self._plain_calls(list(row), event.at)
                continue
            for call in row:
                self._judge.call_made(call, event.at)
                self._tell(event.at)

    def _plain_calls(self, calls: Sequence[events.CallMade], at: float) -> None:
        """Queue calls of one task that wait for nothing."""
        self._ledger.open_calls += len(calls)
        first = calls[0]
        if first.options.teardown:
            for call in calls:
                teardown_made(call, self._ledger)
        start, stop = first.node, first.node + len(calls)
        self._dispatch.push(self._ledger.calls, start, stop, at, front=False)

    def _futures_dropped(self, event: events.FuturesDropped) -> None:
        self._releases.dropped(event.nodes)

    def _failure_seen(self, event: events.FailureSeen) -> None:
        runs, index = self._ledger.find(event.run)
        runs.seen.add(index)

    def _body_has_ended(self, event: events.BodyEnded) -> None:
        self._body_ended = True
        self._dispatch.waits_for_company = False
        if event.raised and not self._ledger.stopping:
            self._cancel.stop("the flow's body raised an exception", event.at)

    def _pace_known(self, event: events.PaceKnown) -> None:
        self.pace.recall(event.learned)

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
            self._cancel.stop(event.reason, event.at)
        elif again:
            self._cancel.kill(event.at)
        # What tears down must be sent.
        self._unpause(event.at)

    def _pause_asked(self, event: events.PauseAsked) -> None:
        if not self._cancelled:
            self._gate.pause(event.reason, event.at)

    def _unpause_asked(self, event: events.UnpauseAsked) -> None:
        self._unpause(event.at)

    def _unpause(self, at: float) -> None:
        if self._dispatch.paused:
            self._gate.unpause(at)

    def _value_asked(self, event: events.ValueAsked) -> None:
        if self._settled:
            message = "the value was lost, and the flow run has ended"
            self._ledger.out.append(commands.ValueGone(run=event.run, message=message))
        else:
            self._values.asked(event)

    def _settle(self) -> None:
        ledger = self._ledger
        if self._body_ended and not (ledger.open_calls or ledger.open_maps or self._settled):
            self._settled = True
            loose = unhandled_failures(ledger)
            settled = commands.RunSettled(cancelled=self._cancelled, unhandled=loose)
            ledger.out.append(settled)


def _plain_kind(call: events.CallMade) -> tuple[str, int] | None:
    """Return what calls have in common that run alike, wait for nothing, and are not known yet."""
    _, _, kind, name, _, options, edges, _, runnable, _, answers, _ = call
    if kind is not NodeKind.TASK or edges or answers or not runnable:
        return None
    return name, id(options)


def _forgotten(_: int) -> events.CallMade | None:
    return None


def _one(_: str) -> int:
    return 1
