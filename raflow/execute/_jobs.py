"""The calls of a batch, put together where they share function and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from raflow.execute._backend import Call, CallSettings, InputSource
from raflow.model import Chunk, TaskRunKey


class Singles(NamedTuple):
    """Single calls, one after the other; the sequences have an entry for each."""

    function: object
    """What `Loader.function` takes."""
    settings: CallSettings
    nodes: Sequence[int]
    attempts: Sequence[int]
    keys: Sequence[str]
    arguments: Sequence[object]
    """What `Loader.arguments` takes."""
    inputs: Mapping[int, Mapping[int, InputSource]]
    """What fills the holes, by offset; calls without holes are left out."""

    @property
    def size(self) -> int:
        """How many calls there are."""
        return len(self.nodes)

    def run(self, offset: int) -> TaskRunKey:
        """Return which task run the call at an offset is."""
        return TaskRunKey(self.nodes[offset])

    def attempt(self, offset: int) -> int:
        """Return which attempt it is."""
        return self.attempts[offset]

    def label(self, offset: int) -> str:
        """Return its name."""
        return self.keys[offset]


class Items(NamedTuple):
    """Neighbouring items of a map."""

    function: object
    """What `Loader.function` takes."""
    settings: CallSettings
    chunk: Chunk
    key: str
    arguments: object
    """What `Loader.arguments` takes; what the items share."""
    items: object | None
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
    last: Call | None = None
    for call in calls:
        chunk, function, arguments, items, inputs, key, settings = call
        node, start, _, attempt = chunk
        if start >= 0:
            payload = None if items is None else items.payload
            jobs.append(Items(function, settings, chunk, key, arguments.payload, payload, inputs))
            last = None
            continue
        if last is None or function.key != last.function.key or settings != last.settings:
            nodes: list[int] = []
            attempts: list[int] = []
            keys: list[str] = []
            payloads: list[object] = []
            holes: dict[int, Mapping[int, InputSource]] = {}
            jobs.append(Singles(function, settings, nodes, attempts, keys, payloads, holes))
        last = call
        if inputs:
            holes[len(nodes)] = inputs
        nodes.append(node)
        attempts.append(attempt)
        keys.append(key)
        payloads.append(arguments.payload)
    return jobs
