"""The engine of one flow run."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from raflow.engine import _commands as commands
from raflow.engine import _events as events
from raflow.engine._rules import Verdict, decide
from raflow.engine._runs import Node, Run
from raflow.engine._verdict import unhandled_failures
from raflow.engine._waiting import (
    NoItems,
    connect,
    count,
    failed_sources,
    map_length,
    waits_for,
)
from raflow.model import (
    CallReport,
    EdgeKind,
    NodeKind,
    Outcome,
    State,
    StateName,
    TaskRunEvent,
    TaskRunKey,
    next_task_run_state,
)

_ENDINGS: Final[Mapping[Outcome, TaskRunEvent]] = {
    Outcome.COMPLETED: TaskRunEvent.SUCCEEDED,
    Outcome.FAILED: TaskRunEvent.FAILED,
    Outcome.TIMED_OUT: TaskRunEvent.TIMED_OUT,
    Outcome.SKIPPED: TaskRunEvent.SKIPPED,
    Outcome.CANCELLED: TaskRunEvent.CANCELLED,
    Outcome.CRASHED: TaskRunEvent.CRASHED,
    Outcome.OUT_OF_MEMORY: TaskRunEvent.RAN_OUT_OF_MEMORY,
    Outcome.LOST: TaskRunEvent.LOST,
}
_CHILD_ENDINGS: Final[Mapping[StateName, TaskRunEvent]] = {
    StateName.COMPLETED: TaskRunEvent.SUCCEEDED,
    StateName.FAILED: TaskRunEvent.FAILED,
    StateName.TIMED_OUT: TaskRunEvent.TIMED_OUT,
    StateName.CRASHED: TaskRunEvent.CRASHED,
    StateName.CANCELLED: TaskRunEvent.CANCELLED,
}
_USER_CODE: Final = frozenset({Outcome.FAILED, Outcome.TIMED_OUT})
_INFRASTRUCTURE: Final = frozenset({Outcome.CRASHED, Outcome.OUT_OF_MEMORY, Outcome.LOST})


class Engine:
    """Decides what one flow run does next.

    The one entrance is `handle(event) -> commands`. The engine reads no clock and starts nothing:
    the runtime feeds it events and carries out its commands, in order. It holds no values and no
    user code, only what is needed to decide.
    """

    def __init__(
        self, *, window: int, cancel_grace: float = 10.0, rng: random.Random | None = None
    ) -> None:
        """Start with nothing registered.

        Args:
            window: How many batches may be in flight at once.
            cancel_grace: Seconds that running calls get to stop before they are killed.
            rng: Source of the jitter of retry delays. Default: seeded with 0.
        """
        self._window = window
        self._grace = cancel_grace
        self._rng = rng or random.Random(0)  # noqa: S311 - jitter, not a secret
        self._nodes: list[Node] = []
        self._ready: deque[Run] = deque()
        self._flying: dict[int, Run] = {}
        self._next_batch = 0
        self._open = 0
        self._body_ended = False
        self._stopping = ""
        self._cancelled = False
        self._settled = False
        self._out: list[commands.Command] = []
        # What has just become final or known, and whose dependants are still to be told: a queue
        # rather than recursion, because a failure may run down a chain of any length.
        self._news: deque[Run | Node] = deque()
        self._handlers: Mapping[type[events.Event], Callable[[Any], None]] = {
            events.CallRegistered: self._call_registered,
            events.CallBegan: self._call_began,
            events.BatchFinished: self._batch_finished,
            events.BatchDied: self._batch_died,
            events.SubflowEnded: self._subflow_ended,
            events.RetryDue: self._retry_due,
            events.GraceOver: self._grace_over,
            events.FailureSeen: self._failure_seen,
            events.BodyEnded: self._body_has_ended,
            events.CancelAsked: self._cancel_asked,
        }

    @property
    def nodes(self) -> list[Node]:
        """Every call so far, by id: to read, not to change."""
        return self._nodes

    @property
    def in_flight(self) -> int:
        """How many batches are out."""
        return len(self._flying)

    def run(self, key: TaskRunKey) -> Run:
        """Return what is known of a task run: to read, not to change."""
        return self._nodes[key.node].run(key.map_index)

    def handle(self, event: events.Event) -> list[commands.Command]:
        """Take an event and return what is to be done about it, in order."""
        self._handlers[type(event)](event)
        while self._news:
            self._tell(self._news.popleft(), event.at)
        self._send(event.at)
        self._settle()
        out, self._out = self._out, []
        return out

    # A call is made -----------------------------------------------------------------------------

    def _call_registered(self, call: events.CallRegistered) -> None:
        assert call.node == len(self._nodes), "calls are registered in the order of their ids"
        node = Node(call=call)
        self._nodes.append(node)
        self._open += 1
        sources = [edge.source for edge in call.edges if edge.kind is EdgeKind.ITEM]
        if not node.is_map:
            self._expand(node, [TaskRunKey(call.node)], call.at)
        elif not sources:
            self._expand_map(node, call.length or 0, call.at)
        else:
            for source in dict.fromkeys(sources):
                self._nodes[source].maps.append(node)
            self._try_to_expand(node, call.at)

    def _try_to_expand(self, node: Node, at: float) -> None:
        """Make the items of a map over task values, once it is known how many there are."""
        if node.expanded:
            return
        if self._stopping:
            self._give_up(node, NoItems(StateName.CANCELLED, self._stopping), at)
            return
        length = map_length(node, self._nodes)
        if isinstance(length, NoItems):
            self._give_up(node, length, at)
        elif length is not None:
            self._expand_map(node, length, at)

    def _expand_map(self, node: Node, length: int, at: float) -> None:
        node.length = length
        self._out.append(commands.MapExpanded(node=node.call.node, length=length))
        self._expand(node, [TaskRunKey(node.call.node, i) for i in range(length)], at)
        if node.maps or not length:
            self._news.append(node)

    def _expand(self, node: Node, keys: list[TaskRunKey], at: float) -> None:
        node.expanded = True
        node.unfinished = len(keys)
        pending = State(name=StateName.PENDING, at=at)
        node.runs = [Run(key=key, node=node, state=pending) for key in keys]
        if not keys:
            self._open -= 1
        for run in node.runs:
            connect(run, self._nodes)
            reason = waits_for(run, self._nodes)
            self._enter(run, State(name=StateName.PENDING, at=at, reason=reason))
        for run in node.runs:
            self._consider(run, at)

    def _give_up(self, node: Node, why: NoItems, at: float) -> None:
        """End a map that has no items with one run that tells why."""
        node.expanded = True
        node.unfinished = 1
        pending = State(name=StateName.PENDING, at=at)
        run = Run(key=TaskRunKey(node.call.node), node=node, state=pending)
        node.runs = [run]
        self._enter(run, pending)
        self._finish(run, State(name=why.state, at=at, message=why.message))
        self._out.append(commands.MapExpanded(node=node.call.node, length=0))

    # From waiting to sent -----------------------------------------------------------------------

    def _tell(self, news: Run | Node, at: float) -> None:
        """Tell those who wait for something that has ended, or whose length is known now."""
        if isinstance(news, Node):
            for node in news.maps:
                self._try_to_expand(node, at)
            if not news.is_final:
                return
        news.told = True
        for waiter in list(news.waiters):
            count(waiter.run, waiter.edge, news)
            self._consider(waiter.run, at)

    def _consider(self, run: Run, at: float) -> None:
        """Decide about a run that waits for its inputs."""
        if run.is_final or run.queued or run.attempts:
            return
        if self._stopping:
            self._end(run, TaskRunEvent.CANCELLED, at, self._stopping)
            return
        if not run.node.call.runnable:
            self._end(run, TaskRunEvent.SKIPPED, at, "run_if is false")
            return
        rule = run.node.call.options.trigger_rule
        verdict = decide(rule, run.upstream)
        if verdict is Verdict.RUN:
            self._make_ready(run, at)
        elif verdict is Verdict.SKIP:
            message = f"what it needs ended so that the trigger rule {rule.value!r} skips it"
            self._end(run, TaskRunEvent.SKIPPED, at, message)
        elif verdict is Verdict.UPSTREAM_FAILED:
            self._end(run, TaskRunEvent.UPSTREAM_FAILED, at, failed_sources(run, self._nodes))

    def _make_ready(self, run: Run, at: float) -> None:
        if run.odd_condition:
            message = (
                f"run_if needs a plain value, but that of {run.odd_condition} is neither true nor "
                "false. Return a bool from it."
            )
            self._end(run, TaskRunEvent.FAILED, at, message)
        elif run.falsy_condition:
            self._end(run, TaskRunEvent.SKIPPED, at, f"run_if: {run.falsy_condition} is false")
        elif run.node.call.kind is NodeKind.SUBFLOW:
            # Its own calls take places in the window; it takes none itself.
            self._submit(run, at)
            self._out.append(commands.StartSubflow(run=run.key))
        else:
            self._queue(run)

    def _queue(self, run: Run) -> None:
        run.queued = True
        self._ready.append(run)

    def _send(self, at: float) -> None:
        """Send ready calls as far as the window allows."""
        while self._ready and len(self._flying) < self._window:
            run = self._ready.popleft()
            run.queued = False
            self._submit(run, at)
            self._send_alone(run)

    def _submit(self, run: Run, at: float) -> None:
        run.attempts += 1
        run.submitted_at = at
        self._move(run, TaskRunEvent.SUBMITTED, at)

    def _send_alone(self, run: Run) -> None:
        run.batch = self._next_batch
        self._next_batch += 1
        self._flying[run.batch] = run
        call = commands.Planned(run.key, run.attempts)
        resources = run.node.call.options.resources
        self._out.append(commands.SendBatch(batch=run.batch, resources=resources, calls=(call,)))

    # What became of it --------------------------------------------------------------------------

    def _call_began(self, event: events.CallBegan) -> None:
        run = self.run(event.run)
        if run.attempts == event.attempt and run.state.name is StateName.SUBMITTED:
            self._move(run, TaskRunEvent.STARTED, event.at)

    def _batch_finished(self, event: events.BatchFinished) -> None:
        run = self._flying.pop(event.report.batch, None)
        if run is None:
            return
        for position, report in enumerate(event.report.calls):
            if report.run == run.key and report.attempt == run.attempts:
                self._reported(run, report, position)
                return
        self._attempt_over(run, Outcome.LOST, event.at, "its batch came back without it")

    def _batch_died(self, event: events.BatchDied) -> None:
        run = self._flying.pop(event.batch, None)
        if run is not None:
            self._attempt_over(run, event.outcome, event.at, event.message)

    def _reported(self, run: Run, report: CallReport, position: int) -> None:
        if report.result is not None:
            run.truth = report.result.truth
            if not run.node.is_map:
                run.node.length = report.result.length
        self._attempt_over(run, report.outcome, report.ended_at, report.message, report, position)

    def _attempt_over(
        self,
        run: Run,
        outcome: Outcome,
        at: float,
        message: str,
        report: CallReport | None = None,
        position: int = 0,
    ) -> None:
        if self._stopping and outcome in _INFRASTRUCTURE:
            # What was asked to stop, or killed because it did not, has not crashed.
            outcome = Outcome.CANCELLED
        self._out.append(
            commands.AttemptEnded(
                run=run.key,
                number=run.attempts,
                outcome=outcome,
                submitted_at=run.submitted_at,
                ended_at=at,
                message=message,
                report=report,
                batch=run.batch,
                position=position,
            )
        )
        run.batch = -1
        retriable = report is None or report.retriable
        if not (retriable and self._retry(run, outcome, at, message)):
            recovered = outcome is Outcome.COMPLETED and run.attempts > 1
            event = TaskRunEvent.RECOVERED if recovered else _ENDINGS[outcome]
            self._end(run, event, at, message)

    def _retry(self, run: Run, outcome: Outcome, at: float, message: str) -> bool:
        """Plan another attempt if the budget for this kind of failure allows one."""
        policy = run.node.call.options.retry
        if outcome in _INFRASTRUCTURE:
            run.crashes += 1
            used, budget = run.crashes, policy.crash_retries
        elif outcome in _USER_CODE:
            run.failures += 1
            used, budget = run.failures, policy.retries
        else:
            return False
        if used > budget or self._stopping:
            return False
        delay = policy.delay_before(used, self._rng)
        reason = f"retry {used} of {budget}" + (f" in {delay:.3g} s" if delay else "")
        self._move(run, TaskRunEvent.RETRY_PLANNED, at, message, reason)
        if delay:
            self._out.append(commands.SetRetryTimer(run=run.key, due=at + delay))
        else:
            self._queue(run)
        return True

    def _retry_due(self, event: events.RetryDue) -> None:
        run = self.run(event.run)
        if run.state.name is StateName.AWAITING_RETRY and not run.queued:
            self._queue(run)

    def _subflow_ended(self, event: events.SubflowEnded) -> None:
        run = self.run(event.run)
        if not run.is_final:
            run.truth = event.truth
            run.node.length = event.length
            self._end(run, _CHILD_ENDINGS[event.state.name], event.at, event.state.message)

    # The end ------------------------------------------------------------------------------------

    def _failure_seen(self, event: events.FailureSeen) -> None:
        self.run(event.run).seen = True

    def _body_has_ended(self, event: events.BodyEnded) -> None:
        self._body_ended = True
        if event.raised and not self._stopping:
            self._stop("the flow's body raised an exception", event.at)

    def _cancel_asked(self, event: events.CancelAsked) -> None:
        again, self._cancelled = self._cancelled, True
        if not self._stopping:
            self._stop(event.reason, event.at)
        elif again:
            self._kill()

    def _stop(self, reason: str, at: float) -> None:
        """Start nothing more, and ask what runs to stop."""
        self._stopping = reason
        self._ready.clear()
        for node in self._nodes:
            self._stop_node(node, reason, at)
        if self._flying:
            self._out += [commands.CancelBatch(batch=batch, force=False) for batch in self._flying]
            self._out.append(commands.SetGraceTimer(due=at + self._grace))

    def _stop_node(self, node: Node, reason: str, at: float) -> None:
        if not node.expanded:
            self._give_up(node, NoItems(StateName.CANCELLED, reason), at)
            return
        for run in node.runs:
            if run.state.name in (StateName.PENDING, StateName.AWAITING_RETRY):
                self._end(run, TaskRunEvent.CANCELLED, at, reason)
            elif node.call.kind is NodeKind.SUBFLOW and not run.is_final:
                self._out.append(commands.CancelSubflow(run=run.key, reason=reason))

    def _grace_over(self, _: events.GraceOver) -> None:
        self._kill()

    def _kill(self) -> None:
        self._out += [commands.CancelBatch(batch=batch, force=True) for batch in self._flying]

    def _settle(self) -> None:
        if self._body_ended and self._open == 0 and not self._settled:
            self._settled = True
            loose = unhandled_failures(self._nodes)
            self._out.append(commands.RunSettled(cancelled=self._cancelled, unhandled=loose))

    # State --------------------------------------------------------------------------------------

    def _move(
        self, run: Run, event: TaskRunEvent, at: float, message: str = "", reason: str = ""
    ) -> None:
        name = next_task_run_state(run.state.name, event, attempt=run.attempts, story=run.tell())
        self._enter(run, State(name=name, at=at, message=message, reason=reason))

    def _end(self, run: Run, event: TaskRunEvent, at: float, message: str = "") -> None:
        name = next_task_run_state(run.state.name, event, attempt=run.attempts, story=run.tell())
        self._finish(run, State(name=name, at=at, message=message))

    def _finish(self, run: Run, state: State) -> None:
        run.queued = False
        self._enter(run, state)
        self._news.append(run)
        run.node.unfinished -= 1
        if run.node.unfinished == 0:
            self._open -= 1
            self._news.append(run.node)

    def _enter(self, run: Run, state: State) -> None:
        run.state = state
        run.story.append(state)
        self._out.append(commands.StateEntered(run=run.key, state=state, attempts=run.attempts))
