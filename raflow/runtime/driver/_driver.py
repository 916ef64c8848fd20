"""The driver of one flow run: one thread that feeds the engine and carries out its commands."""

from __future__ import annotations

import functools
import queue
import random
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Final, TypeAlias

from raflow import engine, errors, execute
from raflow._util import crash_point
from raflow.model import (
    Capacity,
    Chunk,
    FlowRunEvent,
    LogLine,
    NodeKind,
    State,
    StateName,
    StateType,
    TaskRunKey,
    places,
)
from raflow.model import next_flow_run_state as next_state
from raflow.runtime.calls import CallEntry, ItemsTaken, Outcomes, call_made
from raflow.runtime.desk import Desk
from raflow.runtime.driver._batches import Batches
from raflow.runtime.driver._caching import Caching
from raflow.runtime.driver._memory import Memory
from raflow.runtime.driver._messages import (
    Handled,
    LogWritten,
    Message,
    TakeLog,
    TimeIsUp,
    Wake,
)
from raflow.runtime.driver._pauses import Pauses
from raflow.runtime.driver._slots import CallSlots
from raflow.runtime.driver._subflows import SubflowCalls, Subflows
from raflow.runtime.driver._timers import Timers
from raflow.runtime.driver._values import Values
from raflow.runtime.ending import TIME_IS_UP
from raflow.runtime.record import History

Clock: TypeAlias = Callable[[], float]
"""Returns seconds since the Unix epoch."""

_LOG_PAUSE_SECONDS: Final = 0.5
_OPEN_CALLS: Final = 20_000
"""How many calls may be under way before the body has to wait with the next one."""
_ROOM_SECONDS: Final = 0.1
_ROOM_STEP: Final = 1000
_WAKE: Final = Wake()


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
        capacity: Capacity,
        environment: execute.RunEnvironment,
        history: History,
        memory: Memory,
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
        self.memory = memory
        self._values = Values(self, memory)
        self._caching = Caching(self)
        self._slots = CallSlots(self)
        self._subflows = SubflowCalls(self)
        self.batches = Batches(self, memory, self._values, self._caching, self._slots)
        self.pauses = Pauses(self)
        self._engine = engine.Engine(
            window=backend.window,
            slots=functools.cache(lambda resources: places(resources, capacity)),
            pace=pace,
            cancel_grace=cancel_grace,
            rng=random.Random(environment.flow_run_id),  # noqa: S311 - jitter, not a secret
            limit_slots=self._slots.size_of,
            recall=self._values.call_again,
            fuses=not memory.is_durable,
        )
        self._timers: Timers[Message] = Timers()
        self._lines: list[LogLine] = []
        self._thread = threading.Thread(target=self._work, name="raflow-driver", daemon=True)
        self.session = backend.open(environment, self.post)
        self._handlers = self._message_handlers()
        self._carry_out = self._command_handlers()

    def start(self, subflows: Subflows, desk: Desk) -> None:
        """Begin to handle messages."""
        self._slots.begin(desk.slots)
        self._caching.begin(desk.cache)
        self._subflows.begin(subflows)
        self.pauses.begin(subflows)
        self._thread.start()

    def remind(self, due: float, message: Message) -> None:
        """Have a message come at a time; call it before `start`."""
        self._timers.add(due, message)

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
        if not self._awake:
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

    def tell_when_handled(self, done: Future[None]) -> None:
        """Tell once everything that was posted so far has been handled."""
        self.post(Handled(done))

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
        self._values.close()
        self.pauses.end_waits()
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
                    if self.settled.done():
                        break  # what others still ask of the run, its next attempt may answer
                    self._take_calls()
                    self._handlers.get(type(message), self.feed)(message)
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
        # Before the calls, so that each of these is among them, or has been registered before.
        dropped = [self._dropped.popleft() for _ in range(len(self._dropped))]
        end = len(self.entries)
        if end > self._registered:
            start = self._registered
            entries = [entry for entry in self.entries[start:end] if entry is not None]
            made = list(map(call_made, range(start, end), entries))
            self.outcomes.called([call.kind is NodeKind.MAP for call in made])
            self.history.called(made, entries)
            calls = self._values.recalled(made)
            self._registered = end
            self.feed(engine.CallsRegistered(at=self.clock(), calls=calls))
        if dropped:
            self.feed(engine.FuturesDropped(at=self.clock(), nodes=dropped))

    def _items_taken(self, message: ItemsTaken) -> None:
        event, error = message
        entry = self.entries[event.node]
        if entry is None:
            return  # the map was cancelled meanwhile
        if error is not None:
            last = TaskRunKey(event.node, event.length - 1)
            label = entry.label(last.map_index)
            self.outcomes.tried(last, label, event.at).exception = error
        self.feed(event)

    def _time_is_up(self, _: TimeIsUp) -> None:
        # Only the first cancel counts here: asking twice would kill without grace.
        if not self.cancel_reason:
            self.feed(engine.CancelAsked(at=self.clock(), reason=TIME_IS_UP))

    def feed(self, event: engine.Event) -> None:
        """Tell the engine what has happened, and do what it says; on the driver's thread only."""
        if isinstance(event, engine.CancelAsked):
            self._cancelling(event)
        for command in self._engine.handle(event):
            self._carry_out[type(command)](command)

    def _cancelling(self, event: engine.CancelAsked) -> None:
        crash_point("run.before_cancelling")
        current = self.history.flow_run.state
        name = next_state(current.name, FlowRunEvent.CANCEL_ASKED)
        if name is not current.name or self.cancel_reason == TIME_IS_UP:
            self.cancel_reason = event.reason
        if name is not current.name:
            self.outcomes.stop(errors.FlowRunCancelledError(event.reason))
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
            **self.batches.message_handlers(),
            **self._subflows.message_handlers(),
            **self._values.message_handlers(),
            **self._caching.message_handlers(),
            **self._slots.message_handlers(),
            **self.pauses.message_handlers(),
            Wake: lambda _: None,
            ItemsTaken: self._items_taken,
            TimeIsUp: self._time_is_up,
            Handled: lambda message: message.done.set_result(None),
            LogWritten: self._log,
            TakeLog: self._log,
        }

    # Commands -----------------------------------------------------------------------------------

    def _command_handlers(self) -> Mapping[type[object], Callable[[Any], None]]:
        return {
            **self.batches.command_handlers(),
            **self._subflows.command_handlers(),
            **self._values.command_handlers(),
            **self._caching.command_handlers(),
            **self._slots.command_handlers(),
            **self.pauses.command_handlers(),
            engine.SetRetryTimer: self._set_retry_timer,
            engine.SetGraceTimer: self._set_grace_timer,
            engine.SetSendTimer: self._set_send_timer,
            engine.MapExpanded: self._map_expanded,
            engine.StateEntered: self._state_entered,
            engine.ReleaseValues: self._release_values,
            engine.RunSettled: self._run_settled,
        }

    def _set_retry_timer(self, command: engine.SetRetryTimer) -> None:
        self._timers.add(command.due, engine.RetryDue(at=command.due, run=command.run))

    def _set_grace_timer(self, command: engine.SetGraceTimer) -> None:
        self._timers.add(command.due, engine.GraceOver(at=command.due, batch=command.batch))

    def _set_send_timer(self, command: engine.SetSendTimer) -> None:
        self._timers.add(command.due, engine.SendDue(at=command.due))

    def _map_expanded(self, command: engine.MapExpanded) -> None:
        self.history.map_expanded(command.node, command.length)
        self.outcomes.expanded(command.node, command.length)
        if self.outcomes.is_whole(command.node):
            self._node_over(command.node)

    def _state_entered(self, command: engine.StateEntered) -> None:
        run = self.history.task_runs.entered(command, self.entry(command.run.node))
        if command.state.type is StateType.COMPLETED:
            self.memory.make_sure()
        self.outcomes.entered(command.run, run.label, command.state)
        if command.state.is_final:
            node, item = command.run
            self._caching.ended(run)
            self._values.ended(run.key)
            self.runs_over([Chunk(node, item, item + 1)])

    def runs_over(self, chunks: Iterable[Chunk]) -> None:
        """Let go of what was needed to run these calls."""
        for node, start, _, _ in chunks:
            if start < 0 or self.outcomes.is_whole(node):
                self._node_over(node)
            else:
                items = self.entry(node).items
                if items is not None:
                    items.finished(self.outcomes.prefix(node))

    def _node_over(self, node: int) -> None:
        """Let go of a call, and of what it held: every run of it is final."""
        entry, self.entries[node] = self.entries[node], None
        if entry is None:
            return
        if entry.items is not None and not self._values.keeps(node):
            entry.items.close()
        self._over += 1
        if not self._over % _ROOM_STEP:
            with self._room:
                self._room.notify_all()

    def _release_values(self, command: engine.ReleaseValues) -> None:
        self.outcomes.release(command.chunks)

    def _run_settled(self, command: engine.RunSettled) -> None:
        self.settled.set_result(command)
