"""What travels with a batch, as small as it can be."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from raflow.execute._backend import (
    BatchSpec,
    CallSettings,
    EachOf,
    EachPart,
    FunctionHandle,
    InBatch,
    InputSource,
    Kept,
    Known,
    ListOf,
    Part,
    ValueRef,
    ValueSlice,
)
from raflow.execute._jobs import Items, Job, SingleCalls, Singles, jobs_of
from raflow.execute.ray._payload import freeze, loads
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


_NO_COLUMNS: Final[tuple[object, ...]] = ((), (), (), (), {})


POOL: Final = -1
"""Stands where else the place of a lifted object stands: the pool of the batch."""


class Mailed:
    """The values of a batch that came by mail: a handle, as an ObjectRef of such a list is."""

    __slots__ = ("_data", "_entries")

    def __init__(self, data: bytes) -> None:
        """Take a pickled list of entries; most of them nobody ever looks at."""
        self._data = data
        self._entries: list[object] | None = None

    @property
    def entries(self) -> list[object]:
        """The entries, by position."""
        if self._entries is None:
            self._entries = loads(self._data)
            self._data = b""
        return self._entries


class WireBatch(NamedTuple):
    """A batch, as its process gets it."""

    session: int
    batch: int
    environment_key: str
    environment: Carried
    functions: Mapping[str, Carried]
    jobs: tuple[Job, ...]
    """`function` is its key, handles are places of lifted objects or `POOL`, `Known.value` is an
    entry."""
    budget: float
    own_values: int
    has_shelf: bool
    """Whether the last of the lifted objects is a list of ObjectRefs, which Ray leaves alone."""
    pool: Sequence[object]
    """Entries of values that came by mail."""


def read_batch(head: bytes) -> WireBatch:
    """Read what `Packer.pack` wrote."""
    session, batch, key, environment, functions, jobs, columns, *rest = loads(head)
    singles = SingleCalls(*columns)
    for position, sources in singles.inputs.items():
        singles.inputs[position] = {hole: _expanded(source) for hole, source in sources.items()}
    made = tuple(
        job if isinstance(job, Items) else Singles(job[0], job[1], singles, job[2], job[3])
        for job in jobs
    )
    return WireBatch(session, batch, key, environment, functions, made, *rest)


class Packer:
    """Collects the objects of one batch."""

    def __init__(self) -> None:
        self._lifted: dict[Any, int] = {}
        self._shelf: dict[Any, int] = {}
        self._functions: dict[str, Carried] = {}
        self._pool: list[object] = []
        self._pooled: dict[tuple[Mailed, int], int] = {}

    def pack(
        self, session: int, batch: BatchSpec, environment: tuple[str, object]
    ) -> tuple[bytes, *tuple[object, ...]]:
        """Return the arguments of `run_batch`; `environment` is its key and its payload."""
        jobs: list[Items | tuple[str, CallSettings, int, int]] = []
        columns: tuple[object, ...] | None = None
        for job in jobs_of(batch.calls):
            key = self._function(job.function)
            if isinstance(job, Items):
                jobs.append(self._items(job, key))
            else:
                columns = columns or self._columns(job.calls)
                jobs.append((key, job.settings, job.first, job.size))
        head = (
            session,
            batch.id,
            environment[0],
            self._carry(environment[1]),
            self._functions,
            jobs,
            columns or _NO_COLUMNS,
            batch.budget,
            batch.own_values,
            bool(self._shelf),
            self._pool,
        )
        shelf = [list(self._shelf)] if self._shelf else []
        return (pickle.dumps(head, protocol=5), *self._lifted, *shelf)

    def _function(self, function: FunctionHandle) -> str:
        if function.key not in self._functions:
            self._functions[function.key] = self._carry(function.payload)
        return function.key

    def _items(self, job: Items, key: str) -> Items:
        return job._replace(
            function=key,
            arguments=self._argument(job.arguments),
            items=None if job.items is None else self._argument(job.items),
            inputs={hole: self._source(source) for hole, source in job.inputs.items()},
        )

    def _columns(self, calls: SingleCalls) -> tuple[object, ...]:
        arguments = calls.arguments
        if not _AS_THEY_ARE.issuperset(map(type, arguments)):
            arguments = [self._argument(payload) for payload in arguments]
        inputs = {
            position: {hole: self._short(source) for hole, source in sources.items()}
            for position, sources in calls.inputs.items()
        }
        return (calls.nodes, calls.attempts, calls.keys, arguments, inputs)

    def _argument(self, payload: object) -> object:
        return payload if type(payload) in _AS_THEY_ARE else Lifted(self._lift(payload))

    def _short(self, source: InputSource) -> object:
        """Write the most frequent sources as a tuple and a number, which are pickled faster."""
        if isinstance(source, ValueRef):
            return tuple(self._ref(source))
        return source.position if isinstance(source, InBatch) else self._source(source)

    def _source(self, source: InputSource) -> InputSource:
        match source:
            case ValueRef() | Known():
                return self._item(source)  # type: ignore[return-value]  # the same kind
            case InBatch() | Kept():
                return source
            case Part(value, index):
                return Part(self._item(value), index)  # type: ignore[arg-type]  # the same kind
            case EachPart(value, start):
                return EachPart(self._item(value), start)  # type: ignore[arg-type]  # the same kind
            case ListOf(items):
                return ListOf(tuple(map(self._item, items)))
            case EachOf(items):
                return EachOf(tuple(map(self._item, items)))

    def _item(
        self, item: ValueRef | ValueSlice | Known | Kept
    ) -> ValueRef | ValueSlice | Known | Kept:
        match item:
            case Kept():
                return item
            case ValueRef():
                return self._ref(item)
            case ValueSlice(Mailed() as mailed, start, stop):
                first = len(self._pool)
                self._pool += mailed.entries[start:stop]
                return ValueSlice(POOL, first, len(self._pool))
            case ValueSlice(handle, start, stop):
                return ValueSlice(self._lift(handle), start, stop)
            case Known(value):
                return item if type(value) in PLAIN_TYPES else Known(freeze(value))

    def _ref(self, ref: ValueRef) -> ValueRef:
        handle, position = ref
        if not isinstance(handle, Mailed):
            return ValueRef(self._lift(handle), position)
        place = self._pooled.setdefault((handle, position), len(self._pool))
        if place == len(self._pool):
            self._pool.append(handle.entries[position])
        return ValueRef(POOL, place)

    def _lift(self, handle: object) -> int:
        return self._lifted.setdefault(handle, len(self._lifted))

    def _carry(self, payload: object) -> Carried:
        if isinstance(payload, bytes):
            return payload
        return Shelf(self._shelf.setdefault(payload, len(self._shelf)))


def _expanded(source: Any) -> InputSource:
    kind = type(source)
    if kind is tuple:
        return ValueRef(*source)
    expanded: InputSource = InBatch(source) if kind is int else source
    return expanded
