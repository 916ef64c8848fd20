"""A flow context that notes what the body asks for and answers from a table."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from raflow.define import CallKeys, CallRequest, Columns, Registered, active_flow
from raflow.model import State, StateName, TaskRunKey


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
