"""The driver of one flow run: one thread that feeds the engine and carries out its commands."""

from __future__ import annotations

import heapq
import itertools
import queue
import random
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from raflow import engine, errors, execute
from raflow.model import FlowRunEvent, GraphNode, LogLine, NodeKind, State, TaskRunKey
from raflow.model import next_flow_run_state as next_state
from raflow.runtime._calls import CallEntry, build_call
from raflow.runtime._ending import TIME_IS_UP
from raflow.runtime._history import History
from raflow.runtime._outcomes import Outcomes

Clock: TypeAlias = Callable[[], float]
"""Returns seconds since the Unix epoch."""

_LOG_PAUSE_SECONDS: Final = 0.5


class NodeMade(NamedTuple):
    """The body made a call: as it is sent out, as the graph shows it, as the engine takes it."""

    entry: CallEntry
    node: GraphNode
    event: engine.CallRegistered


class ChildStarted(NamedTuple):
    """The child flow run of a subflow call exists."""

    run: TaskRunKey
    flow_run_id: str


class ChildEnded(NamedTuple):
    """The child flow run of a subflow call is final."""

    event: engine.SubflowEnded
    value: object
    error: BaseException | None


class LogWritten(NamedTuple):
    """The body wrote a line of log."""

    line: LogLine


class TimeIsUp(NamedTuple):
    """The time limit of the flow is over."""


class _TakeLog(NamedTuple):
    """It is time to record the lines that the body wrote."""


Message: TypeAlias = (
    engine.Event
    | execute.BackendEvent
    | NodeMade
    | ChildStarted
    | ChildEnded
    | LogWritten
    | TimeIsUp
    | _TakeLog
)


class Subflows(Protocol):
    """How a driver has the child runs of its subflow calls started and cancelled."""

    def start(self, run: TaskRunKey) -> None:
        """Begin the child flow run of a call whose inputs are there. Does not block."""

    def cancel(self, run: TaskRunKey, reason: str) -> None:
        """Ask a child flow run to end. Does not block."""


class Driver:
    """Feeds the engine of one flow run with messages, and carries out what it commands.

    Messages come from any thread through `post`; they are handled one after the other on the
    driver's thread, which alone touches engine and history. It ends when the run has settled.
    """

    def __init__(
        self,
        *,
        backend: execute.Backend,
        environment: execute.RunEnvironment,
        history: History,
        clock: Clock,
        cancel_grace: float,
    ) -> None:
        """Open the backend for the run; `start` begins to work."""
        self.history = history
        self.outcomes = Outcomes()
        self.entries: list[CallEntry] = []
        self.settled: Future[engine.RunSettled] = Future()
        self._clock = clock
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        seed = random.Random(environment.flow_run_id)  # noqa: S311 - jitter, not a secret
        self._engine = engine.Engine(window=backend.window, cancel_grace=cancel_grace, rng=seed)
        self._timers: list[tuple[float, int, Message]] = []
        self._timer_order = itertools.count()
        self._handles: dict[int, object] = {}
        self._lines: list[LogLine] = []
        self.cancel_reason = ""
        self._subflows: Subflows | None = None
        self._thread = threading.Thread(target=self._work, name="raflow-driver", daemon=True)
        self.session = backend.open(environment, self.post)
        self._carry_out: Mapping[type[engine.Command], Callable[[Any], None]] = {
            engine.SendBatch: self._send_batch,
            engine.CancelBatch: self._cancel_batch,
            engine.StartSubflow: self._start_subflow,
            engine.CancelSubflow: self._cancel_subflow,
            engine.SetRetryTimer: self._set_retry_timer,
            engine.SetGraceTimer: self._set_grace_timer,
            engine.MapExpanded: self._map_expanded,
            engine.AttemptEnded: self._attempt_ended,
            engine.StateEntered: self._state_entered,
            engine.RunSettled: self._run_settled,
        }

    def start(self, subflows: Subflows) -> None:
        """Begin to handle messages."""
        self._subflows = subflows
        self._thread.start()

    def limit(self, due: float) -> None:
        """End the run at a time; call it before `start`."""
        self._set_timer(due, TimeIsUp())

    def post(self, message: Message) -> None:
        """Hand over a message, from any thread."""
        self._inbox.put(message)

    def cancel(self, reason: str) -> None:
        """Ask the run to end; asking again kills what still runs."""
        self.post(engine.CancelAsked(at=self._clock(), reason=reason))

    def now(self) -> float:
        """Return the time by the driver's clock."""
        return self._clock()

    def close(self) -> None:
        """Give back what the run holds; call it after the run has settled, or before `start`."""
        if self._thread.ident is not None:
            self._thread.join()
        self.outcomes.end(
            errors.DefinitionError(
                "The flow run has ended, so this future will never have a value. Wait for futures "
                "inside the flow, or return them from it."
            )
        )
        self._take_log()
        self.session.close()

    # Messages -----------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while not self.settled.done():
                for message in self._next_messages():
                    self._handle(message)
        except BaseException as error:
            self.outcomes.end(error)
            self.settled.set_exception(error)

    def _next_messages(self) -> list[Message]:
        """Wait for a message or a timer; return what there is now."""
        wait = max(0.0, self._timers[0][0] - self._clock()) if self._timers else None
        try:
            messages = [self._inbox.get(timeout=wait)]
        except queue.Empty:
            messages = []
        while self._timers and self._timers[0][0] <= self._clock():
            messages.append(heapq.heappop(self._timers)[2])
        return messages

    def _handle(self, message: Message) -> None:
        match message:
            case NodeMade():
                self.history.node_added(message.node, message.entry.edges)
                self._feed(message.event)
            case execute.BatchEnded(report, values):
                self._handles[report.batch] = values
                self._feed(engine.BatchFinished(at=self._clock(), report=report))
                self._handles.pop(report.batch, None)
            case execute.BatchLost(batch, outcome, told):
                at = self._clock()
                self._feed(engine.BatchDied(at=at, batch=batch, outcome=outcome, message=told))
            case execute.CallStarted():
                run, attempt = message.run, message.attempt
                self._feed(engine.CallBegan(at=message.at, run=run, attempt=attempt))
            case ChildStarted(run, flow_run_id):
                self.history.child_started(run, flow_run_id)
                self._feed(engine.CallBegan(at=self._clock(), run=run, attempt=1))
            case ChildEnded(event, value, error):
                child = self.outcomes.get(event.run)
                child.value, child.exception = execute.Known(value), error
                self._feed(event)
            case TimeIsUp():
                # Only the first cancel counts here: asking twice would kill without grace.
                if not self.cancel_reason:
                    self._feed(engine.CancelAsked(at=self._clock(), reason=TIME_IS_UP))
            case LogWritten() | _TakeLog():
                self._log(message)
            case _:
                self._feed(message)

    def _feed(self, event: engine.Event) -> None:
        if isinstance(event, engine.CancelAsked):
            self._cancelling(event)
        for command in self._engine.handle(event):
            self._carry_out[type(command)](command)

    def _cancelling(self, event: engine.CancelAsked) -> None:
        current = self.history.flow_run.state
        name = next_state(current.name, FlowRunEvent.CANCEL_ASKED)
        if name is not current.name:
            self.cancel_reason = event.reason
            self.history.flow_run_entered(State(name=name, at=event.at, message=event.reason))

    def _log(self, message: LogWritten | _TakeLog) -> None:
        """Gather the lines of the body for a while, then record them together."""
        if isinstance(message, _TakeLog):
            self._take_log()
            return
        if not self._lines:
            self._set_timer(self._clock() + _LOG_PAUSE_SECONDS, _TakeLog())
        self._lines.append(message.line)

    def _take_log(self) -> None:
        lines, self._lines = self._lines, []
        self.history.body_logged(lines)

    def _set_timer(self, due: float, message: Message) -> None:
        heapq.heappush(self._timers, (due, next(self._timer_order), message))

    # Commands -----------------------------------------------------------------------------------

    def _send_batch(self, command: engine.SendBatch) -> None:
        calls = tuple(
            build_call(self.entries[run.node], run, attempt, self.kind, self.outcomes)
            for run, attempt in command.calls
        )
        batch = execute.BatchSpec(id=command.batch, calls=calls, resources=command.resources)
        self.session.submit(batch)

    def kind(self, node: int) -> NodeKind:
        """Return what a node stands for."""
        return self.entries[node].request.kind

    def _cancel_batch(self, command: engine.CancelBatch) -> None:
        self.session.cancel(command.batch, force=command.force)

    def _start_subflow(self, command: engine.StartSubflow) -> None:
        assert self._subflows is not None
        self._subflows.start(command.run)

    def _cancel_subflow(self, command: engine.CancelSubflow) -> None:
        assert self._subflows is not None
        self._subflows.cancel(command.run, command.reason)

    def _set_retry_timer(self, command: engine.SetRetryTimer) -> None:
        self._set_timer(command.due, engine.RetryDue(at=command.due, run=command.run))

    def _set_grace_timer(self, command: engine.SetGraceTimer) -> None:
        self._set_timer(command.due, engine.GraceOver(at=command.due))

    def _map_expanded(self, command: engine.MapExpanded) -> None:
        self.history.map_expanded(command.node, command.length)
        self.outcomes.expanded(command.node, command.length)

    def _attempt_ended(self, command: engine.AttemptEnded) -> None:
        self.history.attempt_ended(command)
        outcome = self.outcomes.get(command.run)
        outcome.error = command.report.error if command.report else None
        handle = self._handles.get(command.batch)
        if handle is not None:
            outcome.value = execute.ValueRef(handle, command.position)

    def _state_entered(self, command: engine.StateEntered) -> None:
        label = self.entries[command.run.node].label(command.run.map_index)
        run = self.history.task_run_entered(command, label)
        self.outcomes.entered(command.run, run.label, command.state)
        if command.state.is_final and self.outcomes.is_whole(command.run.node):
            self.entries[command.run.node] = self.entries[command.run.node].without_arguments()

    def _run_settled(self, command: engine.RunSettled) -> None:
        self.settled.set_result(command)
