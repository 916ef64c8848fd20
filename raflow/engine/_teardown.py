"""Teardowns: calls that run whatever happened, if there is something to tear down."""

from __future__ import annotations

from raflow.engine import _codes as codes
from raflow.engine._events import CallMade
from raflow.engine._ledger import Ledger
from raflow.engine._rules import Upstream
from raflow.model import EdgeKind


def teardown_made(call: CallMade, ledger: Ledger) -> None:
    """Take note of a call that is to run whatever happens."""
    if not call.options.teardown_counts:
        ledger.teardowns.add(call.node)
    if not ledger.killing:
        ledger.spared.add(call.node)


def setups_of(call: CallMade, item: int, ledger: Ledger) -> Upstream:
    """Count how what a teardown is for was set up; a map counts as its items.

    Args:
        call: The teardown.
        item: Which of its items, if it is a map: what feeds that item counts for it.
        ledger: What is known of all runs.
    """
    fed = {edge.source for edge in call.edges if edge.kind is EdgeKind.ITEM}
    ends = bytearray()
    for node in call.teardown_of:
        mapped = ledger.maps.get(node)
        if mapped is None or mapped.given_up:
            ends.append(ledger.calls.end(node))
        elif node in fed:
            ends.append(mapped.end(item))
        else:
            ends += mapped.states.translate(codes.ENDS)
    return Upstream(
        total=len(ends),
        succeeded=ends.count(codes.SUCCEEDED),
        failed=ends.count(codes.FAILED),
        skipped=ends.count(codes.SKIPPED),
    )
