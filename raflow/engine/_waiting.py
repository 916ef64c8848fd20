"""Texts about what a task run waits for, and how many items a map over task values has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from raflow.engine import _codes as codes
from raflow.engine._ledger import Ledger
from raflow.engine._runs import Mapped
from raflow.model import Edge, EdgeKind, TaskRunEvent, TaskRunKey

_NAMED: Final = 3


class Reasons(Protocol):
    """Knows what holds runs back whose inputs are there."""

    def reason(self, key: TaskRunKey) -> str:
        """Say it; empty if nothing does."""


def waits_for(key: TaskRunKey, ledger: Ledger, reasons: Reasons) -> str:
    """Say what a run waits for; empty if it waits for nothing but a place to run."""
    runs, index = ledger.find(key)
    mapped = ledger.maps.get(key.node)
    code = runs.states[index]
    if code == codes.AWAITING_RETRY:
        tally = runs.tallies.get(index)
        return tally.reason if tally else ""
    if codes.IS_HELD[code] or codes.IS_QUEUED[code]:
        return reasons.reason(key)
    if code != codes.PENDING and (code != codes.MAPPED or mapped is None or mapped.expanded):
        return ""
    call = mapped.call if mapped else ledger.calls.calls[key.node]
    edges = call.edges if call else ()
    sources = [edge for edge in edges if edge.target_item in (None, key.map_index)]
    open_sources = [ledger.calls.keys[e.source] for e in sources if not _is_final(e, ledger)]
    return f"waits for {_listed(open_sources)}" if open_sources else ""


def _is_final(edge: Edge, ledger: Ledger) -> bool:
    found = ledger.maps.get(edge.source)
    return bool(ledger.calls.end(edge.source)) if found is None else found.is_final


def failed_sources(edges: Sequence[Edge], mapped: Mapped | None, item: int, ledger: Ledger) -> str:
    """Say which sources of a run did not complete."""
    names: list[str] = []
    for edge in edges:
        if edge.target_item not in (None, item):
            continue
        source = ledger.maps.get(edge.source)
        if mapped is not None and edge.kind is EdgeKind.ITEM and source is not None:
            if source.end(item) == codes.FAILED:
                names.append(source.label(item))
        else:
            names += ledger.labels_of_failures([edge])
    return f"{_listed(names)} did not complete"


class NoItems(NamedTuple):
    """Why a map can never be expanded."""

    event: TaskRunEvent
    message: str


def map_length(mapped: Mapped, ledger: Ledger) -> int | NoItems | None:
    """Return how many items a map over task values has; None as long as that is not known."""
    lengths: dict[str, int] = {}
    for edge in mapped.call.edges:
        if edge.kind is EdgeKind.ITEM:
            found = _item_count(edge.source, ledger)
            if not isinstance(found, int):
                return found
            lengths[edge.parameter or ledger.calls.keys[edge.source]] = found
    if mapped.call.length is not None:
        lengths["the other inputs"] = mapped.call.length
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        message = (
            f"The inputs of one map must be equally long, but their lengths are {told}. Wrap what "
            "all items share in unmapped(...)."
        )
        return NoItems(TaskRunEvent.FAILED, message)
    return next(iter(lengths.values()))


def _item_count(node: int, ledger: Ledger) -> int | NoItems | None:
    calls, source = ledger.calls, ledger.maps.get(node)
    key = calls.keys[node]
    if source is not None and not source.given_up:
        return source.length if source.complete else None
    end = calls.end(node)
    if end == codes.OPEN:
        return None
    if end == codes.FAILED:
        return NoItems(TaskRunEvent.UPSTREAM_FAILED, f"{key} did not complete")
    if end == codes.SKIPPED:
        return NoItems(TaskRunEvent.SKIPPED, f"{key} was skipped")
    length = calls.lengths.get(node)
    if length is None:
        message = f"The value of {key} has no length, so nothing can be mapped over it. "
        return NoItems(TaskRunEvent.FAILED, message + "Return a list from it.")
    return length


def _listed(names: Sequence[str]) -> str:
    unique = list(dict.fromkeys(names))
    more = f" and {len(unique) - _NAMED} more" if len(unique) > _NAMED else ""
    return f"{', '.join(unique[:_NAMED])}{more}"
