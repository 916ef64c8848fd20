"""The child runs of a flow run's subflow calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from raflow import engine, execute
from raflow.define import Flow, fill
from raflow.model import Chunk, State, StateName, TaskRunKey
from raflow.runtime._calls import Inputs
from raflow.runtime._driver import Driver
from raflow.runtime._messages import ChildEnded, ChildStarted
from raflow.runtime._retries import FlowRetries
from raflow.runtime._scope import FlowOutcome, Parent


class Child(Protocol):
    """A child run, as its parent sees it."""

    id: str

    def run(self) -> FlowOutcome:
        """Run it to its end on this thread."""

    def cancel(self, reason: str) -> None:
        """Ask it to end."""


MakeChild = Callable[[Flow[..., Any], Mapping[str, Any], Parent, str], Child]
"""Creates a child run; the last argument says which retry it is, if it is one."""


class Children:
    """Runs each subflow call on a thread of its own."""

    def __init__(self, driver: Driver, make: MakeChild) -> None:
        """Start children of this driver's run; `make` creates one."""
        self._driver = driver
        self._make = make
        self._running: dict[TaskRunKey, Child] = {}
        self._cancelled: dict[TaskRunKey, str] = {}
        self._stopping = threading.Event()
        self._lock = threading.Lock()

    def start(self, run: TaskRunKey) -> None:
        """Begin the child run of a call whose inputs are there."""
        entry = self._driver.entry(run.node)
        inputs = Inputs(self._driver.outcomes).of(entry, Chunk(run.node))
        name = f"raflow-subflow-{entry.key}"
        threading.Thread(target=self._work, args=(run, inputs), name=name, daemon=True).start()

    def cancel(self, run: TaskRunKey, reason: str) -> None:
        """Ask a child run to end; one that has not begun yet will not."""
        with self._lock:
            self._cancelled[run] = reason
            child = self._running.get(run)
        self._stopping.set()
        if child is not None:
            child.cancel(reason)

    def _work(self, run: TaskRunKey, inputs: Mapping[int, execute.InputSource]) -> None:
        try:
            outcome = self._run_child(run, inputs)
        except BaseException as error:
            self._end(run, StateName.FAILED, f"{type(error).__name__}: {error}", error=error)
            return
        if outcome is None:
            self._end(run, StateName.CANCELLED, self._cancelled[run])
        else:
            state = outcome.flow_run.state
            self._end(run, state.name, state.message, outcome.value, outcome.error)

    def _run_child(
        self, run: TaskRunKey, inputs: Mapping[int, execute.InputSource]
    ) -> FlowOutcome | None:
        """Run the child, again if its retries say so; None if it was cancelled before it began."""
        request = self._driver.entry(run.node).request
        flow = request.target
        assert isinstance(flow, Flow)
        values = {
            edge: self._driver.session.fetch(source)  # type: ignore[arg-type]  # one call's inputs
            for edge, source in inputs.items()
        }
        parameters = flow.validate_arguments(fill(request.arguments, values))
        retries = FlowRetries(flow.options.retry)
        outcome: FlowOutcome | None = None
        delay: float | None = 0.0
        while delay is not None:
            self._stopping.wait(delay)
            child = self._begin(run, flow, parameters, retries.reason)
            if child is None:
                break
            outcome = child.run()
            delay = retries.delay_after(outcome.flow_run)
        return outcome

    def _begin(
        self, run: TaskRunKey, flow: Flow[..., Any], parameters: Mapping[str, Any], retry: str
    ) -> Child | None:
        parent = Parent(self._driver.history.flow_run.id, run.node)
        with self._lock:
            if run in self._cancelled:
                return None
            child = self._running[run] = self._make(flow, parameters, parent, retry)
        self._driver.post(ChildStarted(run, child.id))
        return child

    def _end(
        self,
        run: TaskRunKey,
        name: StateName,
        message: str,
        value: Any = None,
        error: BaseException | None = None,
    ) -> None:
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
