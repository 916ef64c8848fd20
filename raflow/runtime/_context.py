"""What the body of a running flow talks to: it registers calls and waits for their outcome."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any, NamedTuple

from raflow import engine, errors, execute
from raflow.define import CallKeys, CallRequest, Columns, Registered, Stream, Task
from raflow.model import (
    Capacity,
    Edge,
    Resources,
    State,
    StateType,
    TaskOptions,
    TaskRunKey,
    shortfall,
)
from raflow.runtime._calls import CallEntry
from raflow.runtime._driver import Driver
from raflow.runtime._items import Given, Items, Streamed
from raflow.runtime._outcomes import RunOutcome


class RunContext:
    """A running flow, as `raflow.define.FlowContext`."""

    def __init__(self, driver: Driver, capacity: Capacity) -> None:
        """Talk to this driver, whose backend offers this capacity."""
        self._driver = driver
        self._pack = driver.session.pack
        self._clock = driver.clock
        self._capacity = capacity
        self._lock = threading.Lock()
        self._keys = CallKeys()
        self._known: dict[int, _Known] = {}
        self._feasible: set[Resources] = set()

    def call(self, request: CallRequest) -> Registered:
        """Take a call; see `FlowContext.call`."""
        driver, target = self._driver, request.target
        function = settings = arguments = None
        if isinstance(target, Task):
            function, settings = self._prepared(target, request.options)
            packed = request.arguments
            if request.item_arguments:
                packed = {**packed, **request.item_arguments}
            arguments = self._pack(target.name, packed)
        edges: tuple[Edge, ...] = ()
        items = None
        with self._lock:
            node, key = len(driver.entries), self._keys.next(target.name)
            if request.dependencies:
                edges = tuple([found.edge(node) for found in request.dependencies])
            if request.items is not None:
                items = self._items(request, request.items, node)
            now = self._clock()
            driver.call(CallEntry(request, key, now, edges, function, settings, arguments, items))
        if isinstance(items, Streamed):
            items.start()
        return Registered(node, key)

    def drop(self, node: int) -> None:
        """Take note that no future of a node is left; see `FlowContext.drop`."""
        self._driver.drop(node)

    def _prepared(
        self, task: Task[..., Any], options: TaskOptions
    ) -> tuple[execute.FunctionHandle, execute.CallSettings]:
        """Return how calls of a task with these options are sent; made once, and checked then."""
        known = self._known.get(id(task))
        if known is None or known.options is not options:
            if options.resources not in self._feasible:
                check_feasible(task.name, options.resources, self._capacity)
                self._feasible.add(options.resources)
            settings = execute.CallSettings(
                options.result,
                options.timeout_seconds,
                options.log_prints,
                options.concurrency_per_worker,
            )
            known = _Known(task, options, self._function(task), settings)
            self._known[id(task)] = known
        return known.function, known.settings

    def _items(self, request: CallRequest, items: Columns | Stream, node: int) -> Items:
        """Prepare the items of a map; the first is packed now, to see whether it can travel."""
        if isinstance(items, Columns):
            if len(items):
                self._driver.session.pack_items(request.target.name, items.slice(0, 1))
            return Given(items)
        return Streamed(node, items, self._driver.post, self._clock)

    def _function(self, task: Task[..., Any]) -> execute.FunctionHandle:
        """Make a task known to the backend."""
        # First of all, because it settles how objects of the task's module travel.
        function = execute.TaskFunction(
            name=task.name,
            key=f"{self._driver.history.flow_run.id}/{len(self._known)}",
            fn=task.fn,
            form=task.form,
            run_if=task.run_if,
            retry_condition_fn=task.retry_condition_fn,
            task_run_name=task.run_name,
        )
        return self._driver.session.register(function)

    def length(self, node: int) -> int:
        """Return the number of items of a map; see `FlowContext.length`."""
        self._driver.outcomes.watch_length(node).result()
        length = self._driver.outcomes.length(node)
        assert length is not None
        return length

    def state(self, run: TaskRunKey) -> State:
        """Return the present state of a task run; see `FlowContext.state`."""
        state = self._driver.state(run)
        if state.is_final and state.type not in _HAPPY:
            self._see([run])
        return state

    def wait(self, node: int, item: int | None, *, timeout: float | None) -> bool:
        """Wait until the run, or each item of a map, is final; see `FlowContext.wait`."""
        run = TaskRunKey(node, -1 if item is None else item)
        if not self._driver.is_map(node) and self._driver.outcomes.is_final(run):
            return True
        try:
            self._watch(node, item).result(timeout)
        except TimeoutError:
            return False
        return True

    def result(
        self, node: int, item: int | None, *, timeout: float | None, raise_on_failure: bool
    ) -> Any:
        """Wait for a value and return it; see `FlowContext.result`."""
        if not self.wait(node, item, timeout=timeout):
            entry = self._driver.entries[node]
            # Without an entry it has ended just now.
            if entry is not None:
                key = entry.label(-1 if item is None else item)
                raise TimeoutError(f"{key!r} did not end within {timeout:g} seconds.")
        return self._outcome(node, item, raise_on_failure=raise_on_failure)

    async def result_async(self, node: int, item: int | None) -> Any:
        """Wait for a value without blocking the event loop; see `FlowContext.result_async`."""
        await wait_async(self._watch(node, item))
        return await asyncio.to_thread(self._outcome, node, item, raise_on_failure=True)

    def _watch(self, node: int, item: int | None) -> Future[None]:
        if item is None and self._driver.is_map(node):
            return self._driver.outcomes.watch_whole(node)
        return self._driver.outcomes.watch_run(TaskRunKey(node, -1 if item is None else item))

    def _outcome(self, node: int, item: int | None, *, raise_on_failure: bool) -> Any:
        if item is None and self._driver.is_map(node):
            return self._whole_map(node, raise_on_failure=raise_on_failure)
        run = TaskRunKey(node, -1 if item is None else item)
        found = self._driver.outcomes.find(run)
        if isinstance(found, RunOutcome) and found.failed:
            self._see([run])
        return self._value(found, raise_on_failure=raise_on_failure)

    def _whole_map(self, node: int, *, raise_on_failure: bool) -> list[Any]:
        self._see(self._driver.outcomes.failures(node))
        values: list[Any] = []
        for piece in self._driver.outcomes.items(node):
            if isinstance(piece, execute.ValueSlice):
                several: Any = self._driver.session.fetch(execute.ListOf((piece,)))
                values += several
            else:
                values.append(self._value(piece, raise_on_failure=raise_on_failure))
        return values

    def _see(self, failed: Iterable[TaskRunKey]) -> None:
        """Tell the engine which failures the body has looked at."""
        for key in failed:
            self._driver.post(engine.FailureSeen(at=self._driver.clock(), run=key))

    def _value(self, found: execute.ValueRef | RunOutcome | None, *, raise_on_failure: bool) -> Any:
        if isinstance(found, execute.ValueRef):
            return self._driver.session.fetch(found)
        assert found is not None, "a value is asked for once the run is final"
        if found.state.type is StateType.SKIPPED:
            return None
        if found.failed:
            if raise_on_failure:
                raise found.failure()
            return found.failure()
        assert found.value is not None
        return self._driver.session.fetch(found.value)


class _Known(NamedTuple):
    """How calls of a task are sent. Keeps the task alive, and so its `id`."""

    task: Task[..., Any]
    options: TaskOptions
    function: execute.FunctionHandle
    settings: execute.CallSettings


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
