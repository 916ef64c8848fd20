"""The child runs of a flow run's subflow calls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from raflow import engine, errors, execute
from raflow.define import Flow, fill
from raflow.model import Chunk, FlowRun, State, StateName, StateType, TaskRunKey
from raflow.results import read_result
from raflow.runtime.attempts._scope import FlowOutcome, Parent
from raflow.runtime.calls import Inputs
from raflow.runtime.driver import ChildEnded, ChildLeft, ChildStarted, Driver


class Child(Protocol):
    """A child run, as its parent sees it."""

    id: str

    def run(self) -> FlowOutcome:
        """Run it to its end on this thread."""

    def cancel(self, reason: str) -> None:
        """Ask it to end."""

    def suspend(self, reason: str) -> None:
        """Ask it to be suspended."""

    def fence(self, error: errors.FencedError) -> None:
        """Have it end: another process drives it by now."""


class CompletedChild:
    """A child run that had completed when its process died, before its parent took note."""

    def __init__(self, run: FlowRun, value: object) -> None:
        """Begin with what is on record, and what it returned."""
        self.id = run.id
        self._outcome = FlowOutcome(flow_run=run, value=value)

    def run(self) -> FlowOutcome:
        """Return what came of it."""
        return self._outcome

    def cancel(self, reason: str) -> None:
        """See `Child`; it is over."""

    def suspend(self, reason: str) -> None:
        """See `Child`; it is over."""

    def fence(self, error: errors.FencedError) -> None:
        """See `Child`; it is over."""


def completed_child(
    run: FlowRun, flow: Flow[..., Any], signing_key: bytes
) -> CompletedChild | None:
    """Return a child run that has completed; None if it has not, or its value is gone."""
    if run.state.type is not StateType.COMPLETED or run.flow != flow.name or run.result is None:
        return None
    try:
        return CompletedChild(run, read_result(run.result, signing_key=signing_key))
    except (errors.NotFoundError, errors.ResultStorageError, errors.SerializationError):
        return None


MakeChild = Callable[[Flow[..., Any], Mapping[str, Any], Parent], Child]
"""Creates a child run, or goes on with it."""


class Children:
    """Runs each subflow call on a thread of its own."""

    def __init__(self, driver: Driver, make: MakeChild) -> None:
        """Start children of this driver's run; `make` creates one."""
        self._driver = driver
        self._make = make
        self._running: dict[TaskRunKey, Child] = {}
        self._cancelled: dict[TaskRunKey, str] = {}
        self._threads: list[threading.Thread] = []
        self.running = 0
        """How many calls there are whose child has not ended."""
        self._suspended = ""
        self._lock = threading.Lock()

    def start(self, run: TaskRunKey) -> None:
        """Begin the child run of a call whose inputs are there."""
        entry = self._driver.entry(run.node)
        inputs = Inputs(self._driver.outcomes).of(entry, Chunk(run.node))
        with self._lock:
            self.running += 1
        name = f"raflow-subflow-{entry.key}"
        thread = threading.Thread(target=self._work, args=(run, inputs), name=name, daemon=True)
        self._threads = [one for one in self._threads if one.is_alive()] + [thread]
        thread.start()

    def cancel(self, run: TaskRunKey, reason: str) -> None:
        """Ask a child run to end; one that has not begun yet will not."""
        with self._lock:
            self._cancelled[run] = reason
            child = self._running.get(run)
        if child is not None:
            child.cancel(reason)

    def wait(self, seconds: float) -> None:
        """Wait for the ends of child runs that have no reason to go on, but not for ever."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def suspend(self, reason: str) -> None:
        """Ask all child runs to be suspended; those that have not begun yet will not begin."""
        with self._lock:
            self._suspended = reason
            children = list(self._running.values())
        for child in children:
            child.suspend(reason)

    def fence(self, error: errors.FencedError) -> None:
        """Have all child runs end here: another process drives them by now."""
        with self._lock:
            self._suspended = str(error)
            children = list(self._running.values())
        for child in children:
            child.fence(error)

    def _work(self, run: TaskRunKey, inputs: Mapping[int, execute.InputSource]) -> None:
        try:
            outcome = self._run_child(run, inputs)
        except BaseException as error:
            self._end(run, StateName.FAILED, f"{type(error).__name__}: {error}", error=error)
            return
        if self._suspended and (outcome is None or outcome.flow_run.state.type is StateType.PAUSED):
            with self._lock:
                self.running -= 1
            self._driver.post(ChildLeft(run))
        elif outcome is None:
            self._end(run, StateName.CANCELLED, self._cancelled[run])
        else:
            state = outcome.flow_run.state
            self._end(run, state.name, state.message, outcome.value, outcome.error)

    def _run_child(
        self, run: TaskRunKey, inputs: Mapping[int, execute.InputSource]
    ) -> FlowOutcome | None:
        """Run the child; None if it was cancelled, or its parent suspended, before it began."""
        request = self._driver.entry(run.node).request
        flow = request.target
        assert isinstance(flow, Flow)
        values = {
            edge: self._driver.session.fetch(source)  # type: ignore[arg-type]  # one call's inputs
            for edge, source in inputs.items()
        }
        parameters = flow.validate_arguments(fill(request.arguments, values))
        parent = Parent(self._driver.history.flow_run.id, run.node)
        with self._lock:
            if run in self._cancelled or self._suspended:
                return None
            child = self._running[run] = self._make(flow, parameters, parent)
        self._driver.post(ChildStarted(run, child.id))
        return child.run()

    def _end(
        self,
        run: TaskRunKey,
        name: StateName,
        message: str,
        value: Any = None,
        error: BaseException | None = None,
    ) -> None:
        with self._lock:
            self.running -= 1
        now = self._driver.clock()
        event = engine.SubflowEnded(
            at=now,
            run=run,
            state=State(name=name, at=now, message=message),
            length=len(value) if isinstance(value, list | tuple | dict) else None,
            truth=bool(value) if isinstance(value, _PLAIN) else None,
        )
        self._driver.post(ChildEnded(event, value, error))


_PLAIN = (bool, int, float, str, bytes, list, tuple, dict, type(None))
