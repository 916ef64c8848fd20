"""Maps that were let go, and of whose items some have to run again."""

from __future__ import annotations

from collections.abc import Callable

from raflow.engine import _codes as codes
from raflow.engine._events import CallMade
from raflow.engine._ledger import Ledger
from raflow.engine._release import DROPPED
from raflow.engine._runs import Mapped
from raflow.model import EdgeKind


def revive(node: int, ledger: Ledger, recall: Callable[[int], CallMade | None]) -> None:
    """Make the table of a map again, and of the maps that it is fed by.

    One that nobody knows any more stays forgotten.
    """
    found: dict[int, CallMade] = {}
    line = [node]
    while line:
        call = recall(line.pop())
        if call is None:
            continue
        found[call.node] = call
        line += [edge.source for edge in call.edges if _is_forgotten(edge.source, ledger, found)]
    for _, call in sorted(found.items()):
        _revive(call, ledger)


def _is_forgotten(node: int, ledger: Ledger, found: dict[int, CallMade]) -> bool:
    return node in ledger.past_maps and node not in found


def _revive(call: CallMade, ledger: Ledger) -> None:
    maps, calls, node = ledger.maps, ledger.calls, call.node
    fed = [edge for edge in call.edges if edge.kind is EdgeKind.ITEM and edge.source in maps]
    past = ledger.past_maps.pop(node)
    mapped = maps[node] = Mapped(call, [(edge, maps[edge.source]) for edge in fed])
    mapped.grow(past.length, calls.since[node])
    mapped.states[:] = past.states or bytes([codes.COMPLETED]) * past.length
    mapped.unfinished = 0
    mapped.skipped = mapped.states.translate(codes.ENDS).count(codes.SKIPPED)
    mapped.released[:] = b"\1" * past.length
    mapped.past = dict(past.past)
    if past.losses is not None:
        mapped.losses = past.losses
    mapped.expanded = mapped.complete = mapped.closed = mapped.told = True
    calls.states[node] = codes.MAPPED
    calls.keys[node] = call.key
    calls.dropped[node] = DROPPED
