"""A flow context that notes what the body asks for and answers from a table."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from raflow import errors
from raflow.define import (
    CallKeys,
    CallRequest,
    Columns,
    Question,
    Registered,
    SlotsWanted,
    active_flow,
)
from raflow.model import State, StateName, TaskRunKey


class FakeSlots:
    """Stands where slots of limits are counted; notes what was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[dict[str, int], float | None, int]] = []
        self.held: list[str] = []
        self.lost: dict[str, errors.SlotLostError] = {}

    def acquire(self, wanted: SlotsWanted) -> str:
        self.asked.append((dict(wanted.amounts), wanted.timeout_seconds, wanted.priority))
        holder = f"holder-{len(self.asked)}"
        self.held.append(holder)
        return holder

    async def acquire_async(self, wanted: SlotsWanted) -> str:
        return self.acquire(wanted)

    def release(self, holder: str) -> errors.SlotLostError | None:
        self.held.remove(holder)
        return self.lost.get(holder)


class FakeFlow:
    """Stands where the runtime would stand."""

    def __init__(self) -> None:
        self.requests: list[CallRequest] = []
        self.values: dict[tuple[int, int | None], Any] = {}
        self.lengths: dict[int, int] = {}
        self.states: dict[TaskRunKey, State] = {}
        self.waits: list[tuple[int, int | None, float | None]] = []
        self.over = True
        self.dropped: list[int] = []
        self.cancelled: list[tuple[int, int | None]] = []
        self.slots = FakeSlots()
        self.questions: list[Question] = []
        self.answer = b"null"
        self.stops: list[tuple[str, float | None]] = []
        self._keys = CallKeys()

    @property
    def last(self) -> CallRequest:
        return self.requests[-1]

    def call(self, request: CallRequest) -> Registered:
        self.requests.append(request)
        return Registered(len(self.requests) - 1, self._keys.next(request.target.name))

    def drop(self, node: int) -> None:
        self.dropped.append(node)

    def length(self, node: int) -> int:
        return self.lengths[node]

    def state(self, run: TaskRunKey) -> State:
        return self.states.get(run, State(name=StateName.PENDING, at=0.0))

    def result(
        self, node: int, item: int | None, *, timeout: float | None, raise_on_failure: bool
    ) -> Any:
        value = self.values[node, item]
        if isinstance(value, BaseException) and raise_on_failure:
            raise value
        return value

    async def result_async(self, node: int, item: int | None) -> Any:
        return self.result(node, item, timeout=None, raise_on_failure=True)

    def wait(self, node: int, item: int | None, *, timeout: float | None) -> bool:
        self.waits.append((node, item, timeout))
        return self.over

    def cancel(self, node: int, item: int | None) -> None:
        self.cancelled.append((node, item))

    def acquire(self, wanted: SlotsWanted) -> str:
        return self.slots.acquire(wanted)

    async def acquire_async(self, wanted: SlotsWanted) -> str:
        return self.slots.acquire(wanted)

    def release(self, holder: str) -> errors.SlotLostError | None:
        return self.slots.release(holder)

    def occasion(self, what: str) -> str:
        return what

    def ask(self, question: Question) -> bytes:
        self.questions.append(question)
        return self.answer

    async def ask_async(self, question: Question) -> bytes:
        return self.ask(question)

    def pause(self, timeout_seconds: float | None) -> None:
        self.stops.append(("pause", timeout_seconds))

    async def pause_async(self, timeout_seconds: float | None) -> None:
        self.stops.append(("pause_async", timeout_seconds))

    def suspend(self) -> None:
        self.stops.append(("suspend", None))

    async def suspend_async(self) -> None:
        self.stops.append(("suspend_async", None))


def rows(request: CallRequest) -> list[dict[str, Any]]:
    """Return the arguments of each item of a map, one after the other."""
    assert request.items is not None
    columns = request.items
    if not isinstance(columns, Columns):
        columns = columns.take(1000)
    found = columns.slice(0, len(columns))
    return [{name: column[i] for name, column in found.items()} for i in range(len(columns))]


@contextlib.contextmanager
def body_of(context: FakeFlow) -> Iterator[FakeFlow]:
    """Be the body of a flow."""
    token = active_flow.set(context)
    try:
        yield context
    finally:
        active_flow.reset(token)
