"""The driver of one flow run: one thread that feeds the engine and carries out its commands."""

from __future__ import annotations

import functools
import queue
import random
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Final, NamedTuple, TypeAlias

from raflow import engine, errors, execute
from raflow.model import (
    BatchReport,
    Chunk,
    FlowRunEvent,
    LogLine,
    Outcome,
    State,
    StateName,
    TaskRunKey,
    places,
)
from raflow.model import next_flow_run_state as next_state
from raflow.runtime._calls import CallEntry, build_calls
from raflow.runtime._ending import TIME_IS_UP
from raflow.runtime._history import History
from raflow.runtime._items import ItemsTaken
from raflow.runtime._messages import (
    ChildEnded,
    ChildStarted,
    LogWritten,
    Message,
    Subflows,
    TakeLog,
    TimeIsUp,
    Wake,
)
from raflow.runtime._outcomes import Outcomes
from raflow.runtime._timers import Timers

Clock: TypeAlias = Callable[[], float]
"""Returns seconds since the Unix epoch."""

_LOG_PAUSE_SECONDS: Final = 0.5
_OPEN_CALLS: Final = 20_000
"""How many calls may be under way before the body has to wait with the next one."""
_ROOM_SECONDS: Final = 0.1
_ROOM_STEP: Final = 1000
_WAKE: Final = Wake()


class _Values(NamedTuple):
    """What a batch that has just ended left."""

    report: BatchReport
    handles: tuple[object, ...]

    def at(self, position: int) -> tuple[object, int]:
        """Return the object that holds the value of a call, and where in it."""
        own = self.report.own.get(position)
        return (self.handles[0], position) if own is None else (self.handles[own], -1)


class Driver:
    """Feeds the engine of one flow run with messages, and carries out what it commands.

    Messages come from any thread through `post`, calls of the body through `call`; they are handled
    one after the other on the driver's thread, which alone touches engine and history. It ends when
    the run has settled.
    """

    def __init__(
        self,
        *,
        backend: execute.Backend,
        environment: execute.RunEnvironment,
        history: History,
        pace: engine.Pace,
        clock: Clock,
        cancel_grace: float,
    ) -> None:
        """Open the backend for the run; `start` begins to work."""
        self.history = history
        self.outcomes = Outcomes()
        self.entries: list[CallEntry | None] = []
        self.settled: Future[engine.RunSettled] = Future()
        self.cancel_reason = ""
        self.clock = clock
        """Returns the time; for all threads of the run."""
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._awake = False
        self._registered = 0
        self._over = 0
        self._room = threading.Condition()
        self._dropped: deque[int] = deque()
        capacity = backend.capacity()
        self._engine = engine.Engine(
            window=backend.window,
            slots=functools.cache(lambda resources: places(resources, capacity)),
            pace=pace,
            cancel_grace=cancel_grace,
            rng=random.Random(environment.flow_run_id),  # noqa: S311 - jitter, not a secret
        )
        self._timers: Timers[Message] = Timers()
        self._ended: _Values | None = None
        self._sent: dict[int, float] = {}
        self._lines: list[LogLine] = []
        self._subflows: Subflows | None = None
        self._thread = threading.Thread(target=self._work, name="raflow-driver", daemon=True)
        self.session = backend.open(environment, self.post)
        self._handlers = self._message_handlers()
        self._carry_out = self._command_handlers()

    def start(self, subflows: Subflows) -> None:
        """Begin to handle messages."""
        self._subflows = subflows
        self._thread.start()

    def limit(self, due: float) -> None:
        """End the run at a time; call it before `start`."""
        self._timers.add(due, TimeIsUp())

    def post(self, message: Message) -> None:
        """Hand over a message, from any thread."""
        self._inbox.put(message)

    def call(self, entry: CallEntry) -> None:
        """Take a call of the body; the caller sees to it that one at a time.

        Waits while too many calls are under way, but not for ever: the event loop of an async body
        may have to go on for any of them to end.
        """
        entries = self.entries
        if len(entries) - self._over > _OPEN_CALLS:
            with self._room:
                self._room.wait(_ROOM_SECONDS)
        entries.append(entry)
        if not self._awake:
            self._wake()

    def drop(self, node: int) -> None:
        """Take note that no future of a node is left; safe wherever the interpreter frees one."""
        self._dropped.append(node)
        self._wake()

    def entry(self, node: int) -> CallEntry:
        """Return a call of which not every run is final."""
        entry = self.entries[node]
        assert entry is not None
        return entry

    def is_map(self, node: int) -> bool:
        """Whether a node is a mapped call; asked from any thread."""
        entry = self.entries[node]
        return self.outcomes.is_map(node) if entry is None else entry.is_map

    def state(self, run: TaskRunKey) -> State:
        """Return the present state of a task run, from any thread."""
        if run.node < self._registered:
            found = self.outcomes.find(run)
            if found is not None and not isinstance(found, execute.ValueRef):
                return found.state
            name, at = self._engine.state(run)
            return State(name=name, at=at)
        return State(name=StateName.PENDING, at=self.clock())

    def cancel(self, reason: str) -> None:
        """Ask the run to end; asking again kills what still runs."""
        self.post(engine.CancelAsked(at=self.clock(), reason=reason))

    def close(self) -> None:
        """Give back what the run holds; call it after the run has settled, or before `start`."""
        if self._thread.ident is not None:
            self._thread.join()
        for entry in self.entries:
            if entry is not None and entry.items is not None:
                entry.items.close()
        self.outcomes.end(
            errors.DefinitionError(
                "The flow run has ended, so this future will never have a value. Wait for futures "
                "inside the flow, or return them from it."
            )
        )
        self._take_log()
        self.history.learned(self._engine.pace)
        self.session.close()

    # Messages -----------------------------------------------------------------------------------

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            self._inbox.put(_WAKE)

    def _work(self) -> None:
        try:
            while not self.settled.done():
                for message in self._next_messages():
                    self._take_calls()
                    self._handle(message)
        except BaseException as error:
            self.outcomes.end(error)
            self.settled.set_exception(error)

    def _next_messages(self) -> list[Message]:
        """Wait for a message or a timer; return what there is now."""
        try:
            messages = [self._inbox.get(timeout=self._timers.wait(self.clock()))]
        except queue.Empty:
            messages = []
        return [*messages, *self._timers.due(self.clock())]

    def _take_calls(self) -> None:
        """Register what the body has called, and what it has dropped, since the last message."""
        # First, so that whatever comes from now on wakes this thread again.
        self._awake = False
        end = len(self.entries)
        if end > self._registered:
            start, entries = self._registered, self.entries[self._registered : end]
            for entry in entries:
                self.outcomes.called(mapped=entry is not None and entry.is_map)
            made = [_call_made(start + n, entry) for n, entry in enumerate(entries) if entry]
            self.history.called(made, entries)
            self._registered = end
            self._feed(engine.CallsRegistered(at=self.clock(), calls=made))
        if self._dropped:
            nodes = [self._dropped.popleft() for _ in range(len(self._dropped))]
            self._feed(engine.FuturesDropped(at=self.clock(), nodes=nodes))

    def _handle(self, message: Message) -> None:
        self._handlers.get(type(message), self._feed)(message)

    def _call_started(self, message: execute.CallStarted) -> None:
        run, attempt = message.run, message.attempt
        self.history.submitted(run, self._sent.get(message.batch, message.at))
        self._feed(engine.CallBegan(at=message.at, run=run, attempt=attempt))

    def _child_started(self, message: ChildStarted) -> None:
        self._feed(engine.CallBegan(at=self.clock(), run=message.run, attempt=1))
        self.history.child_started(message.run, message.flow_run_id)

    def _child_ended(self, message: ChildEnded) -> None:
        event, value, error = message
        child = self.outcomes.tried(event.run, self.entry(event.run.node).key, event.at)
        child.value, child.exception = execute.Known(value), error
        self._feed(event)

    def _items_taken(self, message: ItemsTaken) -> None:
        event, error = message
        entry = self.entries[event.node]
        if entry is None:
            return  # the map was cancelled meanwhile
        if error is not None:
            last = TaskRunKey(event.node, event.length - 1)
            label = entry.label(last.map_index)
            self.outcomes.tried(last, label, event.at).exception = error
        self._feed(event)

    def _time_is_up(self, _: TimeIsUp) -> None:
        # Only the first cancel counts here: asking twice would kill without grace.
        if not self.cancel_reason:
            self._feed(engine.CancelAsked(at=self.clock(), reason=TIME_IS_UP))

    def _batch_told(
        self, message: execute.BatchEnded | execute.BatchLost | execute.CallsReturned
    ) -> None:
        at = self.clock()
        match message:
            case execute.BatchEnded(report, handles):
                self._ended = _Values(report, handles)
                self._feed(engine.BatchFinished(at=at, report=report))
                self._ended = None
                self._sent.pop(report.batch, None)
            case execute.BatchLost(batch, outcome, told, running):
                self._sent.pop(batch, None)
                self._feed(
                    engine.BatchDied(
                        at=at, batch=batch, outcome=outcome, message=told, running=running
                    )
                )
            case execute.CallsReturned(batch, positions):
                self._feed(engine.CallsReturned(at=at, batch=batch, positions=positions))

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

    def _log(self, message: LogWritten | TakeLog) -> None:
        """Gather the lines of the body for a while, then record them together."""
        if isinstance(message, TakeLog):
            self._take_log()
            return
        if not self._lines:
            self._timers.add(self.clock() + _LOG_PAUSE_SECONDS, TakeLog())
        self._lines.append(message.line)

    def _take_log(self) -> None:
        lines, self._lines = self._lines, []
        self.history.body_logged(lines)

    def _message_handlers(self) -> Mapping[type[object], Callable[[Any], None]]:
        return {
            Wake: lambda _: None,
            execute.BatchEnded: self._batch_told,
            execute.BatchLost: self._batch_told,
            execute.CallsReturned: self._batch_told,
            execute.CallStarted: self._call_started,
            ChildStarted: self._child_started,
            ChildEnded: self._child_ended,
            ItemsTaken: self._items_taken,
            TimeIsUp: self._time_is_up,
            LogWritten: self._log,
            TakeLog: self._log,
        }

    # Commands -----------------------------------------------------------------------------------

    def _command_handlers(self) -> Mapping[type[object], Callable[[Any], None]]:
        return {
            engine.SendBatch: self._send_batch,
            engine.CancelBatch: self._cancel_batch,
            engine.StartSubflow: self._start_subflow,
            engine.CancelSubflow: self._cancel_subflow,
            engine.SetRetryTimer: self._set_retry_timer,
            engine.SetGraceTimer: self._set_grace_timer,
            engine.SetSendTimer: self._set_send_timer,
            engine.MapExpanded: self._map_expanded,
            engine.CallsCompleted: self._calls_completed,
            engine.AttemptEnded: self._attempt_ended,
            engine.StateEntered: self._state_entered,
            engine.ReleaseValues: self._release_values,
            engine.RunSettled: self._run_settled,
        }

    def _send_batch(self, command: engine.SendBatch) -> None:
        try:
            calls = build_calls(command.chunks, self.entries, self.outcomes, self.session)
        except errors.RaflowError as error:
            # One of them cannot travel; the engine finds out which.
            alone = (0,) if sum(chunk.size for chunk in command.chunks) == 1 else None
            self.post(execute.BatchLost(command.batch, Outcome.FAILED, str(error), alone))
            return
        self.session.submit(
            execute.BatchSpec(
                id=command.batch,
                calls=calls,
                resources=command.resources,
                budget=command.budget,
                own_values=command.own_values,
            )
        )
        self._sent[command.batch] = command.at
        self.history.sent(command.chunks)

    def _cancel_batch(self, command: engine.CancelBatch) -> None:
        self.session.cancel(command.batch, force=command.force)

    def _start_subflow(self, command: engine.StartSubflow) -> None:
        assert self._subflows is not None
        self._subflows.start(command.run)

    def _cancel_subflow(self, command: engine.CancelSubflow) -> None:
        assert self._subflows is not None
        self._subflows.cancel(command.run, command.reason)

    def _set_retry_timer(self, command: engine.SetRetryTimer) -> None:
        self._timers.add(command.due, engine.RetryDue(at=command.due, run=command.run))

    def _set_grace_timer(self, command: engine.SetGraceTimer) -> None:
        self._timers.add(command.due, engine.GraceOver(at=command.due))

    def _set_send_timer(self, command: engine.SetSendTimer) -> None:
        self._timers.add(command.due, engine.SendDue(at=command.due))

    def _map_expanded(self, command: engine.MapExpanded) -> None:
        self.history.map_expanded(command.node, command.length)
        self.outcomes.expanded(command.node, command.length)
        if self.outcomes.is_whole(command.node):
            self._node_over(command.node)

    def _calls_completed(self, command: engine.CallsCompleted) -> None:
        ended = self._ended
        assert ended is not None, "calls complete when their batch has ended"
        self.history.completed(command, ended.report, self.entry)
        for chunk, position in command.chunks:
            if not ended.report.own:
                self.outcomes.completed(chunk, ended.handles[0], position)
            else:
                for offset in range(chunk.size):
                    item = Chunk(chunk.node, chunk.start + offset, chunk.start + offset + 1)
                    self.outcomes.completed(item, *ended.at(position + offset))
            self._runs_over(chunk)

    def _attempt_ended(self, command: engine.AttemptEnded) -> None:
        entry = self.entry(command.run.node)
        self.history.attempt_ended(command, entry)
        label = entry.label(command.run.map_index)
        outcome = self.outcomes.tried(command.run, label, command.submitted_at)
        outcome.error = command.report.error if command.report else None
        if command.outcome is Outcome.COMPLETED and self._ended is not None:
            outcome.value = execute.ValueRef(*self._ended.at(command.position))

    def _state_entered(self, command: engine.StateEntered) -> None:
        run = self.history.task_run_entered(command, self.entry(command.run.node))
        self.outcomes.entered(command.run, run.label, command.state)
        if command.state.is_final:
            node, item = command.run
            self._runs_over(Chunk(node, item, item + 1))

    def _runs_over(self, chunk: Chunk) -> None:
        """Let go of what was needed to run these calls."""
        if chunk.start < 0 or self.outcomes.is_whole(chunk.node):
            self._node_over(chunk.node)
        else:
            items = self.entry(chunk.node).items
            if items is not None:
                items.finished(self.outcomes.prefix(chunk.node))

    def _node_over(self, node: int) -> None:
        """Let go of a call, and of what it held: every run of it is final."""
        entry, self.entries[node] = self.entries[node], None
        if entry is None:
            return
        if entry.items is not None:
            entry.items.close()
        self._over += 1
        if not self._over % _ROOM_STEP:
            with self._room:
                self._room.notify_all()

    def _release_values(self, command: engine.ReleaseValues) -> None:
        for chunk in command.chunks:
            self.outcomes.release(chunk)

    def _run_settled(self, command: engine.RunSettled) -> None:
        self.settled.set_result(command)


def _call_made(node: int, entry: CallEntry) -> engine.CallMade:
    request, items = entry.request, entry.items
    return engine.CallMade(
        entry.at,
        node,
        request.kind,
        request.target.name,
        entry.key,
        request.options,
        entry.edges,
        None if items is None else items.length,
        request.runnable,
        items is not None and items.length is None,
    )
