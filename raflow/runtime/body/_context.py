"""What the body of a running flow talks to: it registers calls and waits for their outcome."""

from __future__ import annotations

import asyncio
import itertools
import threading
from concurrent.futures import Future
from typing import Any, Final

from raflow import engine, errors
from raflow._util import maker
from raflow.define import (
    CallKeys,
    CallRequest,
    Columns,
    Occasions,
    Question,
    Registered,
    SlotsWanted,
    Stream,
    Task,
)
from raflow.model import (
    Capacity,
    Edge,
    State,
    StateType,
    TaskRunKey,
)
from raflow.runtime.body._finding import Finding
from raflow.runtime.body._sending import Sending
from raflow.runtime.body._slots import BodySlots
from raflow.runtime.body._waiting import wait_async
from raflow.runtime.calls import (
    CallEntry,
    Given,
    Items,
    Streamed,
    call_inputs,
)
from raflow.runtime.desk import Desk
from raflow.runtime.driver import (
    Driver,
    GoOn,
    InputAwaited,
    InputGiven,
    PauseWanted,
    SuspendWanted,
)


class RunContext:
    """A running flow, as `raflow.define.FlowContext`."""

    def __init__(
        self,
        driver: Driver,
        capacity: Capacity,
        desk: Desk,
        *,
        flow_run_id: str,
        keep_all: bool = False,
        suspended_before: int = 0,
    ) -> None:
        """Talk to a driver.

        Args:
            driver: Of the run.
            capacity: What its backend offers.
            desk: Where the run asks for slots and input.
            flow_run_id: The run.
            keep_all: Whether values are kept at any size, unless their task says otherwise.
            suspended_before: How many times the body has suspended the run before.
        """
        self._driver = driver
        self.drop = driver.drop
        """Takes note that no future of a node is left; see `FlowContext.drop`."""
        self._pack = driver.session.pack
        self._clock = driver.clock
        self._lock = threading.Lock()
        self._keys = CallKeys()
        sending = Sending(driver, capacity, keep_all=keep_all)
        self._sent = sending.of
        self._code = sending.code
        finding = Finding(driver)
        self._outcome = finding.outcome
        self._see = finding.see
        self._desk = desk
        self._recall = driver.memory.recall
        self._questions = itertools.count()
        self._slots = BodySlots(driver, desk.slots)
        self._suspensions = suspended_before
        self._flow_run_id = flow_run_id
        self._occasions = Occasions()

    def occasion(self, what: str) -> str:
        """Return the name of a request; see `FlowContext.occasion`."""
        return f"{self._flow_run_id}/body/{self._occasions.next(what)}"

    def call(self, request: CallRequest) -> Registered:
        """Take a call; see `FlowContext.call`."""
        driver = self._driver
        _, target, options, given, dependencies, columns, item_arguments, _, _, _ = request
        function = settings = arguments = None
        inputs = call_inputs(request)
        if isinstance(target, Task):
            _, _, function, settings, code = self._sent(target, options)
            packed = {**given, **item_arguments} if item_arguments else given
            arguments = self._pack(target.name, packed)
        else:
            code = self._code(target)
        edges: tuple[Edge, ...] = ()
        items = None
        with self._lock:
            node, key = len(driver.entries), self._keys.next(target.name)
            if dependencies:
                edges = tuple([found.edge(node) for found in dependencies])
            now = self._clock()
            entry = CallEntry(
                request, key, now, edges, function, settings, arguments, None, inputs, code
            )
            if self._recall is not None:
                self._recall.check(node, entry)
            if columns is not None:
                items = entry.items = self._items(request, columns, node)
            driver.call(entry)
        if isinstance(items, Streamed):
            items.start()
        return _registered((node, key))

    def _items(self, request: CallRequest, items: Columns | Stream, node: int) -> Items:
        """Prepare the items of a map; the first is packed now, to see whether it can travel."""
        if isinstance(items, Columns):
            if len(items):
                self._driver.session.pack_items(request.target.name, items.slice(0, 1))
            return Given(items)
        return Streamed(node, items, self._driver.post, self._clock)

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

    def cancel(self, node: int, item: int | None) -> None:
        """Ask that a run, or each item of a map, be cancelled; see `FlowContext.cancel`."""
        at = self._clock()
        self._driver.post(
            engine.CallCancelAsked(at=at, node=node, item=item, reason="cancelled by the flow")
        )

    # Slots, people, pauses ------------------------------------------------------------------------

    def acquire(self, wanted: SlotsWanted) -> str:
        """Wait for slots of limits and hold them; see `SlotGate.acquire`."""
        return self._slots.acquire(wanted)

    async def acquire_async(self, wanted: SlotsWanted) -> str:
        """Do as `acquire` without blocking the event loop."""
        return await self._slots.acquire_async(wanted)

    def release(self, holder: str) -> errors.SlotLostError | None:
        """Give slots back; see `SlotGate.release`."""
        return self._slots.release(holder)

    def ask(self, question: Question) -> bytes:
        """Ask people and wait for the answer; see `FlowContext.ask`."""
        answer, reason = self._question_asked(question)
        try:
            return answer.result()
        finally:
            self._driver.post(InputGiven(reason))

    async def ask_async(self, question: Question) -> bytes:
        """Do as `ask` without blocking the event loop."""
        answer, reason = self._question_asked(question)
        try:
            await wait_async(answer)
            return answer.result()
        finally:
            self._driver.post(InputGiven(reason))

    def _question_asked(self, question: Question) -> tuple[Future[bytes], str]:
        number, run = next(self._questions), self._driver.history.flow_run
        who = ", ".join(question.assignees) or "anybody"
        reason = (
            f"{question.title!r} waits for an answer of {who}: "
            f"`raflow input answer {run.short_name} {number}`"
        )
        self._driver.post(InputAwaited(reason))
        answer = self._desk.people.ask(question, number)
        return self._driver.outcomes.until_the_end(answer), reason

    def pause(self, timeout_seconds: float | None) -> None:
        """Pause the run and wait until somebody lets it go on; see `FlowContext.pause`."""
        over = self._paused()
        try:
            over.result(timeout_seconds)
        except TimeoutError:
            self._driver.post(GoOn())
            raise _not_continued(timeout_seconds) from None

    async def pause_async(self, timeout_seconds: float | None) -> None:
        """Do as `pause` without blocking the event loop."""
        over = self._paused()
        try:
            async with asyncio.timeout(timeout_seconds):
                await wait_async(over)
            over.result()
        except TimeoutError:
            self._driver.post(GoOn())
            raise _not_continued(timeout_seconds) from None

    def _paused(self) -> Future[None]:
        over: Future[None] = Future()
        run = self._driver.history.flow_run
        reason = f"paused by the flow, until `raflow unpause {run.short_name}`"
        self._driver.post(PauseWanted(reason, over))
        return self._driver.outcomes.until_the_end(over)

    def suspend(self) -> None:
        """End the body here; another process goes on; see `FlowContext.suspend`."""
        if not self._goes_on():
            self._driver.outcomes.until_the_end(Future[None]()).result()

    async def suspend_async(self) -> None:
        """Do as `suspend` without blocking the event loop."""
        if not self._goes_on():
            never = self._driver.outcomes.until_the_end(Future[None]())
            await wait_async(never)
            never.result()

    def _goes_on(self) -> bool:
        """Tell whether this is a place where the run was suspended before; if not, suspend it."""
        if self._suspensions:
            self._suspensions -= 1
            return True
        self._driver.post(SuspendWanted(BY_ITSELF))
        return False

    def _watch(self, node: int, item: int | None) -> Future[None]:
        if item is None and self._driver.is_map(node):
            return self._driver.outcomes.watch_whole(node)
        return self._driver.outcomes.watch_run(TaskRunKey(node, -1 if item is None else item))


_registered: Final = maker(Registered)

BY_ITSELF: Final = "suspended by the flow"
"""Why a run is suspended whose body asked for that."""


def _not_continued(seconds: float | None) -> TimeoutError:
    return TimeoutError(f"Nobody let the flow run go on within {seconds:g} seconds.")


_HAPPY = frozenset({StateType.COMPLETED, StateType.SKIPPED})
