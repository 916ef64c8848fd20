"""Batches of calls: sent to the backend, and what it says of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from raflow import engine, errors, execute
from raflow._util import crash_point
from raflow.model import BatchReport, Chunk, Outcome, ResultPolicy
from raflow.runtime.calls import build_calls
from raflow.runtime.driver._caching import Caching
from raflow.runtime.driver._driven import Driven
from raflow.runtime.driver._memory import Memory
from raflow.runtime.driver._slots import CallSlots
from raflow.runtime.driver._values import Values

_BROKEN_OFF: Final = frozenset({*Outcome} - {Outcome.COMPLETED, Outcome.FAILED, Outcome.SKIPPED})
"""How attempts end that may have kept a value before."""


class _Left(NamedTuple):
    """What a batch that has just ended left."""

    report: BatchReport
    handles: tuple[object, ...]

    def at(self, position: int) -> tuple[object, int]:
        """Return the object that holds the value of a call, and where in it."""
        own = self.report.own.get(position)
        return (self.handles[0], position) if own is None else (self.handles[own], -1)


class Batches:
    """Sends batches and takes their reports; on the driver's thread."""

    def __init__(
        self, driver: Driven, memory: Memory, values: Values, caching: Caching, slots: CallSlots
    ) -> None:
        """Begin with nothing sent."""
        self.littered: set[ResultPolicy] = set()
        """How values are kept of which attempts that were broken off may never have told."""
        self._driver = driver
        self._memory = memory
        self._values = values
        self._caching = caching
        self._slots = slots
        self._sent: dict[int, float] = {}
        self._ended: _Left | None = None

    # Sending --------------------------------------------------------------------------------------

    def _send(self, command: engine.SendBatch) -> None:
        driver = self._driver
        try:
            calls = build_calls(command.chunks, driver.entries, driver.outcomes, driver.session)
        except errors.RaflowError as error:
            # One of them cannot travel; the engine finds out which.
            alone = (0,) if sum(chunk.size for chunk in command.chunks) == 1 else None
            driver.post(execute.BatchLost(command.batch, Outcome.FAILED, str(error), alone))
            return
        crash_point("driver.before_send")
        if command.record_first:
            driver.history.task_runs.begun(command, driver.entry)
            self._memory.commit()
        driver.session.submit(
            execute.BatchSpec(
                id=command.batch,
                calls=calls,
                resources=command.resources,
                budget=command.budget,
                own_values=command.own_values,
                places=command.places,
            )
        )
        crash_point("driver.after_send")
        self._sent[command.batch] = command.at
        driver.history.task_runs.sent(command.chunks)

    def _cancel(self, command: engine.CancelBatch) -> None:
        self._driver.session.cancel(command.batch, force=command.force)

    def _cancel_calls(self, command: engine.CancelCalls) -> None:
        self._driver.session.cancel_calls(command.batch, command.positions, force=command.force)

    # What the backend says ------------------------------------------------------------------------

    def _call_started(self, message: execute.CallStarted) -> None:
        driver, run = self._driver, message.run
        driver.history.task_runs.submitted(run, self._sent.get(message.batch, message.at))
        driver.feed(engine.CallBegan(at=message.at, run=run, attempt=message.attempt))
        self._slots.began(message)

    def _batch_ended(self, message: execute.BatchEnded) -> None:
        at, report = self._driver.clock(), message.report
        crash_point("driver.before_report")
        self._ended = _Left(report, message.values)
        self._driver.feed(engine.BatchFinished(at=at, report=report))
        self._ended = None
        self._over(report.batch)
        crash_point("driver.after_report")

    def _batch_lost(self, message: execute.BatchLost) -> None:
        at = self._driver.clock()
        self._over(message.batch)
        self._driver.feed(
            engine.BatchDied(
                at=at,
                batch=message.batch,
                outcome=message.outcome,
                message=message.message,
                running=message.running,
                cause=message.cause,
            )
        )

    def _calls_returned(self, message: execute.CallsReturned) -> None:
        at = self._driver.clock()
        self._driver.feed(
            engine.CallsReturned(at=at, batch=message.batch, positions=message.positions)
        )

    def _over(self, batch: int) -> None:
        self._sent.pop(batch, None)
        self._slots.batch_over(batch)

    def _backend_gone(self, message: execute.BackendGone) -> None:
        driver = self._driver
        running = [
            (run, attempt, entry)
            for run, attempt in message.running
            if (entry := driver.entries[run.node]) is not None
        ]
        driver.history.task_runs.lost(driver.clock(), message.message, running)
        raise message.error or errors.BackendError(message.message)

    # What the engine makes of it ------------------------------------------------------------------

    def _calls_completed(self, command: engine.CallsCompleted) -> None:
        driver, ended = self._driver, self._ended
        assert ended is not None, "calls complete when their batch has ended"
        driver.history.task_runs.completed(command, ended.report, driver.entry)
        self._values.completed(command, ended.report)
        self._caching.completed(command, ended.report)
        self._memory.make_sure()
        if not ended.report.own:
            driver.outcomes.completed(command.chunks, ended.handles[0])
        else:
            for chunk, position in command.chunks:
                for offset in range(chunk.size):
                    item = Chunk(chunk.node, chunk.start + offset, chunk.start + offset + 1)
                    handle, place = ended.at(position + offset)
                    driver.outcomes.completed([(item, place)], handle)
        driver.runs_over(chunk for chunk, _ in command.chunks)

    def _attempt_ended(self, command: engine.AttemptEnded) -> None:
        driver, report = self._driver, command.report
        entry = driver.entry(command.run.node)
        driver.history.task_runs.attempt_ended(command, entry)
        if command.outcome in _BROKEN_OFF and entry.settings is not None:
            self.littered.add(entry.settings.result)
        label = entry.label(command.run.map_index)
        outcome = driver.outcomes.tried(command.run, label, command.submitted_at)
        outcome.error = report.error if report else None
        if command.outcome is Outcome.COMPLETED and self._ended is not None:
            outcome.value = execute.ValueRef(*self._ended.at(command.position))
            self._values.tried(command.run, entry, report.result if report else None)

    def message_handlers(self) -> Mapping[type[object], Callable[[Any], None]]:
        """Return what handles messages to the driver."""
        return {
            execute.CallStarted: self._call_started,
            execute.BatchEnded: self._batch_ended,
            execute.BatchLost: self._batch_lost,
            execute.CallsReturned: self._calls_returned,
            execute.BackendGone: self._backend_gone,
        }

    def command_handlers(self) -> Mapping[type[object], Callable[[Any], None]]:
        """Return what carries out commands of the engine."""
        return {
            engine.SendBatch: self._send,
            engine.CancelBatch: self._cancel,
            engine.CancelCalls: self._cancel_calls,
            engine.CallsCompleted: self._calls_completed,
            engine.AttemptEnded: self._attempt_ended,
        }
