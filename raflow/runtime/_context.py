"""What the body of a running flow talks to: it registers calls and waits for their outcome."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

from raflow import engine, errors, execute
from raflow.define import CallKeys, CallRequest, Registered, Task
from raflow.model import (
    Capacity,
    GraphNode,
    NodeKind,
    Resources,
    State,
    StateName,
    StateType,
    TaskRunKey,
    shortfall,
)
from raflow.runtime._calls import CallEntry
from raflow.runtime._driver import Driver, NodeMade
from raflow.runtime._outcomes import RunOutcome


class RunContext:
    """A running flow, as `raflow.define.FlowContext`."""

    def __init__(self, driver: Driver, capacity: Capacity) -> None:
        """Talk to this driver, whose backend offers this capacity."""
        self._driver = driver
        self._capacity = capacity
        self._lock = threading.Lock()
        self._keys = CallKeys()
        self._functions: dict[int, execute.FunctionHandle] = {}
        self._feasible: set[Resources] = set()

    def call(self, request: CallRequest) -> Registered:
        """Take a call; see `FlowContext.call`."""
        function, shared, items = self._packed(request)
        with self._lock:
            node = len(self._driver.entries)
            key = self._keys.next(request.target.name)
            entry = CallEntry(
                request=request,
                key=key,
                edges=tuple(found.edge(node) for found in request.dependencies),
                function=function,
                shared=shared,
                items=items,
            )
            self._driver.entries.append(entry)
            self._driver.post(_made(node, entry, self._driver.now()))
        return Registered(node, key)

    def _packed(
        self, request: CallRequest
    ) -> tuple[execute.FunctionHandle | None, execute.Packed | None, tuple[execute.Packed, ...]]:
        if not isinstance(request.target, Task):
            return None, None, ()
        name, pack = request.target.name, self._driver.session.pack
        if request.options.resources not in self._feasible:
            check_feasible(name, request.options.resources, self._capacity)
            self._feasible.add(request.options.resources)
        # First, because it settles how objects of the task's module travel.
        function = self._function(request.target)
        shared = pack(name, {**request.arguments, **request.item_arguments})
        items = tuple(pack(name, item) for item in request.items or ())
        return function, shared, items

    def _function(self, task: Task[..., Any]) -> execute.FunctionHandle:
        """Make a task known to the backend, once; its entry keeps it alive, and so its `id`."""
        handle = self._functions.get(id(task))
        if handle is None:
            function = execute.TaskFunction(
                name=task.name,
                key=f"{self._driver.history.flow_run.id}/{len(self._functions)}",
                fn=task.fn,
                form=task.form,
                run_if=task.run_if,
                retry_condition_fn=task.retry_condition_fn,
                task_run_name=task.run_name,
            )
            handle = self._functions[id(task)] = self._driver.session.register(function)
        return handle

    def length(self, node: int) -> int:
        """Return the number of items of a map; see `FlowContext.length`."""
        self._driver.outcomes.watch_length(node).result()
        length = self._driver.outcomes.length(node)
        assert length is not None
        return length

    def state(self, run: TaskRunKey) -> State:
        """Return the present state of a task run; see `FlowContext.state`."""
        try:
            outcome = self._driver.outcomes.get(run)
        except KeyError:
            # The driver has not yet come to the call that the body has just made.
            return State(name=StateName.PENDING, at=self._driver.now())
        self._see([(run, outcome)])
        return outcome.state

    def wait(self, node: int, item: int | None, *, timeout: float | None) -> bool:
        """Wait until the run, or each item of a map, is final; see `FlowContext.wait`."""
        try:
            self._watch(node, item).result(timeout)
        except TimeoutError:
            return False
        return True

    def result(
        self, node: int, item: int | None, *, timeout: float | None, raise_on_failure: bool
    ) -> Any:
        """Wait for a value and return it; see `FlowContext.result`."""
        try:
            self._watch(node, item).result(timeout)
        except TimeoutError:
            key = self._driver.entries[node].label(-1 if item is None else item)
            message = f"{key!r} did not end within {timeout:g} seconds."
            raise TimeoutError(message) from None
        return self._outcome(node, item, raise_on_failure=raise_on_failure)

    async def result_async(self, node: int, item: int | None) -> Any:
        """Wait for a value without blocking the event loop; see `FlowContext.result_async`."""
        await wait_async(self._watch(node, item))
        return await asyncio.to_thread(self._outcome, node, item, raise_on_failure=True)

    def _watch(self, node: int, item: int | None) -> Future[None]:
        if item is None and self._is_map(node):
            return self._driver.outcomes.watch_whole(node)
        return self._driver.outcomes.watch_run(TaskRunKey(node, -1 if item is None else item))

    def _is_map(self, node: int) -> bool:
        return self._driver.entries[node].request.kind is NodeKind.MAP

    def _outcome(self, node: int, item: int | None, *, raise_on_failure: bool) -> Any:
        if item is None and self._is_map(node):
            return self._whole_map(node, raise_on_failure=raise_on_failure)
        run = TaskRunKey(node, -1 if item is None else item)
        outcome = self._driver.outcomes.get(run)
        self._see([(run, outcome)])
        return self._value(outcome, raise_on_failure=raise_on_failure)

    def _whole_map(self, node: int, *, raise_on_failure: bool) -> list[Any]:
        outcomes = self._driver.outcomes.runs(node)
        without_items = self._driver.outcomes.length(node) == 0
        keys = [TaskRunKey(node, -1 if without_items else i) for i in range(len(outcomes))]
        self._see(zip(keys, outcomes, strict=True))
        return [self._value(outcome, raise_on_failure=raise_on_failure) for outcome in outcomes]

    def _see(self, runs: Iterable[tuple[TaskRunKey, RunOutcome]]) -> None:
        """Tell the engine which failures the body has looked at."""
        for key, outcome in runs:
            failed = outcome.state.is_final and outcome.state.type not in _HAPPY
            if failed:
                self._driver.post(engine.FailureSeen(at=self._driver.now(), run=key))

    def _value(self, outcome: RunOutcome, *, raise_on_failure: bool) -> Any:
        if outcome.state.type is StateType.SKIPPED:
            return None
        if outcome.state.type is not StateType.COMPLETED:
            if raise_on_failure:
                raise outcome.failure()
            return outcome.failure()
        if isinstance(outcome.value, execute.ValueRef):
            return self._driver.session.fetch(outcome.value)
        assert outcome.value is not None
        return outcome.value.value


def check_feasible(task: str, resources: Resources, capacity: Capacity) -> None:
    """Refuse hints that no node can ever meet.

    Raises:
        InfeasibleResourcesError: Names the task, the hint, what there is, and the remedy.
    """
    missing = shortfall(resources, capacity)
    if missing is not None:
        raise errors.InfeasibleResourcesError(
            f"Task {task!r} asks for {missing}. Lower the hint, for one call by "
            f"with_options(...). {capacity.remedy or 'Or add a node that has it.'}",
            task=task,
        )


_HAPPY = frozenset({StateType.COMPLETED, StateType.SKIPPED})


async def wait_async(future: Future[Any]) -> None:
    """Wait for another thread's future without blocking; giving up leaves the future alone."""
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def done(_: Future[Any]) -> None:
        loop.call_soon_threadsafe(wake)

    future.add_done_callback(done)
    await waiter


def _made(node: int, entry: CallEntry, at: float) -> NodeMade:
    request = entry.request
    length = len(entry.items) if request.items is not None else None
    is_task = request.kind is not NodeKind.SUBFLOW
    drawn = GraphNode(
        id=node,
        key=entry.key,
        kind=request.kind,
        name=request.target.name,
        label=entry.key,
        line=request.line,
        length=length,
        trigger_rule=request.options.trigger_rule,
        resources=request.options.resources if is_task else None,
    )
    event = engine.CallRegistered(
        at=at,
        node=node,
        kind=request.kind,
        name=request.target.name,
        key=entry.key,
        options=request.options,
        edges=entry.edges,
        length=length,
        runnable=request.runnable,
    )
    return NodeMade(entry, drawn, event)
