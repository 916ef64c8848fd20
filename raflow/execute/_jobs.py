"""The calls of a batch, put together where they share function and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from raflow.execute._backend import Call, CallSettings, InputSource
from raflow.model import Chunk, TaskRunKey


class SingleCalls(NamedTuple):
    """The single calls of a batch, in order, as columns."""

    nodes: list[int]
    attempts: list[int]
    keys: list[str]
    arguments: list[Any]
    """What `Loader.arguments` takes."""
    inputs: dict[int, Mapping[int, InputSource]]
    """What fills the holes, by position in the columns; calls without holes are left out."""


class Singles(NamedTuple):
    """Single calls, one after the other."""

    function: Any
    """What `Loader.function` takes."""
    settings: CallSettings
    calls: SingleCalls
    first: int
    """Position in the columns of the first of them."""
    size: int
    """How many there are."""

    def run(self, offset: int) -> TaskRunKey:
        """Return which task run the call at an offset is."""
        return TaskRunKey(self.calls.nodes[self.first + offset])

    def attempt(self, offset: int) -> int:
        """Return which attempt it is."""
        return self.calls.attempts[self.first + offset]

    def label(self, offset: int) -> str:
        """Return its name."""
        return self.calls.keys[self.first + offset]


class Items(NamedTuple):
    """Neighbouring items of a map."""

    function: Any
    """What `Loader.function` takes."""
    settings: CallSettings
    chunk: Chunk
    key: str
    arguments: Any
    """What `Loader.arguments` takes; what the items share."""
    items: Any
    """The same, for the arguments that each item has for itself: columns."""
    inputs: Mapping[int, InputSource]

    @property
    def size(self) -> int:
        """How many calls there are."""
        return self.chunk.size

    def run(self, offset: int) -> TaskRunKey:
        """Return which task run the call at an offset is."""
        return self.chunk.key(offset)

    def attempt(self, offset: int) -> int:  # noqa: ARG002 - the same for all
        """Return which attempt it is."""
        return self.chunk.attempt

    def label(self, offset: int) -> str:
        """Return its name."""
        return f"{self.key}[{self.chunk.start + offset}]"


Job: TypeAlias = Singles | Items


def jobs_of(calls: Sequence[Call]) -> list[Job]:
    """Put the calls of a batch together; their order stays."""
    jobs: list[Job] = []
    singles = SingleCalls([], [], [], [], {})
    nodes, attempts, keys, payloads, holes = singles
    first: Call | None = None
    same_function: object = None
    same_settings: object = None
    for call in calls:
        (node, start, _, attempt), function, arguments, items, inputs, key, settings = call
        if start >= 0:
            _close(jobs, first, singles)
            payload = None if items is None else items.payload
            chunk = call.chunk
            jobs.append(Items(function, settings, chunk, key, arguments.payload, payload, inputs))
            first = None
            continue
        if first is None or not (
            (function is same_function or function.key == first.function.key)
            and (settings is same_settings or settings == first.settings)
        ):
            _close(jobs, first, singles)
            jobs.append(Singles(function, settings, singles, len(nodes), 0))
            first, same_function, same_settings = call, function, settings
        if inputs:
            holes[len(nodes)] = inputs
        nodes.append(node)
        attempts.append(attempt)
        keys.append(key)
        payloads.append(arguments[0])
    _close(jobs, first, singles)
    return jobs


def _close(jobs: list[Job], first: Call | None, singles: SingleCalls) -> None:
    """Note how many single calls there were, if some came last."""
    if first is not None:
        last = jobs[-1]
        assert isinstance(last, Singles)
        function, settings, _, start, _ = last
        jobs[-1] = Singles(function, settings, singles, start, len(singles.nodes) - start)
