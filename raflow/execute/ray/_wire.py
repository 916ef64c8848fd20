"""What travels with a batch, as small as it can be."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from raflow.execute._backend import (
    BatchSpec,
    EachOf,
    EachPart,
    FunctionHandle,
    InBatch,
    InputSource,
    Known,
    ListOf,
    Part,
    ValueRef,
    ValueSlice,
)
from raflow.execute._jobs import Items, Job, Singles, jobs_of
from raflow.execute.ray._payload import freeze
from raflow.model import PLAIN_TYPES


class Lifted(NamedTuple):
    """Stands for an object of Ray's, which travels as an argument of its own."""

    place: int


class Shelf(NamedTuple):
    """Stands for an object of Ray's that a process fetches only if it does not know it yet."""

    place: int


Carried: TypeAlias = bytes | Shelf
"""Something that processes keep: itself, or where to get it."""

_AS_THEY_ARE: Final = frozenset({dict, bytes})
"""Types of arguments that travel with the batch itself."""


class WireBatch(NamedTuple):
    """A batch, as its process gets it."""

    session: int
    batch: int
    environment_key: str
    environment: Carried
    functions: Mapping[str, Carried]
    jobs: tuple[Job, ...]
    """`function` is its key, handles are places of lifted objects, `Known.value` is an entry."""
    budget: float
    own_values: int
    has_shelf: bool
    """Whether the last of the lifted objects is a list of ObjectRefs, which Ray leaves alone."""


class Packer:
    """Collects the objects of one batch."""

    def __init__(self) -> None:
        self._lifted: dict[Any, int] = {}
        self._shelf: dict[Any, int] = {}
        self._functions: dict[str, Carried] = {}

    def pack(
        self, session: int, batch: BatchSpec, environment: tuple[str, object]
    ) -> tuple[object, ...]:
        """Return the arguments of `run_batch`; `environment` is its key and its payload."""
        jobs = tuple(map(self._job, jobs_of(batch.calls)))
        wire = WireBatch(
            session,
            batch.id,
            environment[0],
            self._carry(environment[1]),
            self._functions,
            jobs,
            batch.budget,
            batch.own_values,
            bool(self._shelf),
        )
        shelf = [list(self._shelf)] if self._shelf else []
        return (pickle.dumps(wire, protocol=5), *self._lifted, *shelf)

    def _job(self, job: Job) -> Job:
        function = job.function
        assert isinstance(function, FunctionHandle)
        if function.key not in self._functions:
            self._functions[function.key] = self._carry(function.payload)
        if isinstance(job, Items):
            return job._replace(
                function=function.key,
                arguments=self._argument(job.arguments),
                items=None if job.items is None else self._argument(job.items),
                inputs=self._sources(job.inputs),
            )
        return Singles(
            function.key,
            job.settings,
            job.nodes,
            job.attempts,
            job.keys,
            self._arguments(job.arguments),
            {offset: self._sources(sources) for offset, sources in job.inputs.items()},
        )

    def _arguments(self, payloads: Sequence[object]) -> Sequence[object]:
        if _AS_THEY_ARE.issuperset(map(type, payloads)):
            return payloads
        return [self._argument(payload) for payload in payloads]

    def _argument(self, payload: object) -> object:
        return payload if type(payload) in _AS_THEY_ARE else Lifted(self._lift(payload))

    def _sources(self, sources: Mapping[int, InputSource]) -> dict[int, InputSource]:
        return {hole: self._source(source) for hole, source in sources.items()}

    def _source(self, source: InputSource) -> InputSource:
        match source:
            case ValueRef() | Known():
                return self._item(source)  # type: ignore[return-value]  # the same kind
            case InBatch():
                return source
            case Part(ValueRef(handle, position), index):
                return Part(ValueRef(self._lift(handle), position), index)
            case EachPart(value, start):
                return EachPart(self._item(value), start)  # type: ignore[arg-type]  # the same kind
            case ListOf(items):
                return ListOf(tuple(map(self._item, items)))
            case EachOf(items):
                return EachOf(tuple(map(self._item, items)))

    def _item(self, item: ValueRef | ValueSlice | Known) -> ValueRef | ValueSlice | Known:
        match item:
            case ValueRef(handle, position):
                return ValueRef(self._lift(handle), position)
            case ValueSlice(handle, start, stop):
                return ValueSlice(self._lift(handle), start, stop)
            case Known(value):
                return item if type(value) in PLAIN_TYPES else Known(freeze(value))

    def _lift(self, handle: object) -> int:
        return self._lifted.setdefault(handle, len(self._lifted))

    def _carry(self, payload: object) -> Carried:
        if isinstance(payload, bytes):
            return payload
        return Shelf(self._shelf.setdefault(payload, len(self._shelf)))
