"""The subflow calls of a run: each is a flow run of its own, which somebody else drives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from raflow import engine, errors, execute
from raflow._util import crash_point
from raflow.model import TaskRunKey
from raflow.runtime.driver._driven import Driven
from raflow.runtime.driver._messages import ChildEnded, ChildStarted, Fenced


class Subflows(Protocol):
    """How a driver has the child runs of its subflow calls started and cancelled."""

    def start(self, run: TaskRunKey) -> None:
        """Begin the child flow run of a call whose inputs are there. Does not block."""

    def cancel(self, run: TaskRunKey, reason: str) -> None:
        """Ask a child flow run to end. Does not block."""

    def suspend(self, reason: str) -> None:
        """Ask all child flow runs to be suspended. Does not block."""

    def fence(self, error: errors.FencedError) -> None:
        """Have all child flow runs end: another process drives them by now. Does not block."""

    @property
    def running(self) -> int:
        """How many child flow runs there are that have not ended."""


class SubflowCalls:
    """Has child runs started and cancelled, and takes what becomes of them."""

    def __init__(self, driver: Driven) -> None:
        """Begin with none."""
        self._driver = driver
        self._subflows: Subflows | None = None

    def begin(self, subflows: Subflows) -> None:
        """Take whoever runs them; before the first call."""
        self._subflows = subflows

    @property
    def subflows(self) -> Subflows:
        """Whoever runs them."""
        assert self._subflows is not None, "no call is made before the run has begun"
        return self._subflows

    def _start(self, command: engine.StartSubflow) -> None:
        crash_point("driver.before_subflow")
        self.subflows.start(command.run)

    def _cancel(self, command: engine.CancelSubflow) -> None:
        self.subflows.cancel(command.run, command.reason)

    def _started(self, message: ChildStarted) -> None:
        driver = self._driver
        driver.feed(engine.CallBegan(at=driver.clock(), run=message.run, attempt=1))
        driver.history.task_runs.child_started(message.run, message.flow_run_id)

    def _ended(self, message: ChildEnded) -> None:
        event, value, error = message
        driver = self._driver
        child = driver.outcomes.tried(event.run, driver.entry(event.run.node).key, event.at)
        child.value, child.exception = execute.Known(value), error
        driver.feed(event)

    def _fenced(self, message: Fenced) -> None:
        self.subflows.fence(message.error)
        raise message.error

    def message_handlers(self) -> Mapping[type[object], Callable[[Any], None]]:
        """Return what handles messages to the driver."""
        return {
            ChildStarted: self._started,
            ChildEnded: self._ended,
            Fenced: self._fenced,
        }

    def command_handlers(self) -> Mapping[type[object], Callable[[Any], None]]:
        """Return what carries out commands of the engine."""
        return {engine.StartSubflow: self._start, engine.CancelSubflow: self._cancel}
