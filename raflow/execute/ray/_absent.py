"""Which calls of a batch cannot run because objects that they need are gone."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import ray
from ray.experimental import get_local_object_locations

from raflow.execute._backend import (
    BatchSpec,
    EachOf,
    EachPart,
    InputSource,
    ListOf,
    Part,
    ValueRef,
    ValueSlice,
)
from raflow.execute.ray._wire import Mailed

_IN_STORE: Final = 100 * 1024
"""Smaller objects may be in the memory of this process, and have no place among the nodes."""


def handles_of(spec: BatchSpec) -> set[object]:
    """Return the objects of Ray's that the inputs of a batch refer to."""
    return {
        handle
        for call in spec.calls
        for source in call.inputs.values()
        for handle in _handles(source)
        if not isinstance(handle, Mailed)
    }


def lost_inputs(spec: BatchSpec, lost: Collection[object]) -> Mapping[int, tuple[int, ...]]:
    """Return by position which edges of a call are without a value, if objects are gone."""
    found: defaultdict[int, tuple[int, ...]] = defaultdict(tuple)
    base = 0
    for call in spec.calls:
        size = call.chunk.size
        for edge, source in call.inputs.items():
            for offset in _offsets(source, size, lost):
                found[base + offset] += (edge,)
        base += size
    return dict(found)


def gone_among(handles: Iterable[object], alive: Collection[str] | None) -> set[object]:
    """Return the objects of which no copy is left, as far as the owner of them all knows here.

    Args:
        handles: Objects of Ray's whose values are there.
        alive: The nodes that live, by Ray's ids. Default: those that Ray knows of.
    """
    asked: list[Any] = list(handles)
    found: dict[Any, Any] = {}
    with contextlib.suppress(Exception):  # then the one who waits finds out, a little later
        found = get_local_object_locations(asked)
    return {
        handle
        for handle, place in found.items()
        if (place.get("object_size") or 0) > _IN_STORE
        and not place.get("did_spill")
        and not any(alive is None or node in alive for node in place["node_ids"])
    }


def nodes_alive() -> Mapping[str, tuple[str, int]]:
    """Ask Ray for the nodes that live as far as it knows, and where their raylets listen."""
    return {
        node["NodeID"]: (node["NodeManagerAddress"], node["NodeManagerPort"])
        for node in ray.nodes()
        if node["Alive"]
    }


def _handles(source: InputSource) -> Iterable[object]:
    match source:
        case ValueRef():
            return (source.handle,)
        case Part(value, _) | EachPart(value, _):
            return (value.handle,) if isinstance(value, ValueRef) else ()
        case ListOf(items) | EachOf(items):
            return (item.handle for item in items if isinstance(item, ValueRef | ValueSlice))
    return ()


def _offsets(source: InputSource, size: int, lost: Collection[object]) -> Iterable[int]:
    """Return which calls of a chunk need a lost object for this input."""
    if not isinstance(source, EachOf):
        return range(size) if any(handle in lost for handle in _handles(source)) else ()
    offsets: list[int] = []
    start = 0
    for item in source.items:
        stop = start + (item.stop - item.start if isinstance(item, ValueSlice) else 1)
        if isinstance(item, ValueRef | ValueSlice) and item.handle in lost:
            offsets += range(start, stop)
        start = stop
    return offsets
