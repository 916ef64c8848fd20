"""Fusion: calls that wait only for calls of a batch may follow them in it."""

from __future__ import annotations

from collections import deque
from typing import Final

from raflow.engine import _codes as codes
from raflow.engine._events import CallMade
from raflow.engine._kinds import Kinds
from raflow.engine._ledger import Ledger
from raflow.engine._ready import LIGHT_SECONDS, Draft, Piece, Queue
from raflow.engine._runs import WATCHED
from raflow.model import Edge, EdgeKind, NodeKind, TriggerRule

_NEVER: Final = 1 << 60
_UNKNOWN_CALLS: Final = 2
"""Calls of unknown duration that may follow others."""
_KINDS: Final = frozenset({EdgeKind.DATA, EdgeKind.ORDER})


def watched(pieces: list[Piece], ledger: Ledger) -> list[int]:
    """Return the single calls among pieces that others wait for."""
    calls = ledger.calls
    return [
        node
        for piece in pieces
        if piece.runs is calls
        for node in range(piece.start, piece.stop)
        if calls.marks[node] & WATCHED
    ]


class Fusion:
    """Lets calls follow those they wait for."""

    def __init__(self, draft: Draft, queue: Queue, ledger: Ledger, kinds: Kinds) -> None:
        """Begin with a batch in the making."""
        self._draft = draft
        self._queue = queue
        self._ledger = ledger
        self._kinds = kinds
        self._unknown = _UNKNOWN_CALLS
        self._missing: dict[int, int] = {}
        """By call: how many of its sources are neither final nor in the batch."""

    def follow(self, heads: list[Piece], *, sparing: bool) -> None:
        """Append what may follow.

        Args:
            heads: Calls that have been added to the batch.
            sparing: Leave work for idle workers: of several calls that wait for the same one, only
                one follows it, and only if it is light.
        """
        line = deque(watched(heads, self._ledger))
        while line and self._draft.size < self._draft.most:
            followers = 0
            edges = self._ledger.calls.waiters.get(line.popleft(), ())
            for edge in edges:
                if not self._is_met(edge) or (sparing and followers):
                    continue
                if self._take(edge.target, light=sparing and len(edges) > 1):
                    followers += 1
                    if self._ledger.calls.marks[edge.target] & WATCHED:
                        line.append(edge.target)

    def joins(self, piece: Piece) -> bool:
        """Tell whether the first of these calls has a follower in common with the batch."""
        calls = self._ledger.calls
        if piece.runs is not calls or self._draft.room(piece.name) <= 0:
            return False
        edges = calls.waiters.get(piece.start, ())
        return any(0 < self._missing.get(edge.target, 0) < _NEVER for edge in edges)

    def _is_met(self, edge: Edge) -> bool:
        """Count a source in the batch; tell whether it was the last that its target waits for."""
        target = edge.target
        missing = self._missing.get(target)
        if missing is None:
            missing = self._sources(target)
        missing = missing - 1 if edge.kind in _KINDS else _NEVER
        self._missing[target] = missing
        return missing == 0

    def _sources(self, target: int) -> int:
        """Return how many sources a call waits for; very many if it cannot follow them."""
        calls, waiting = self._ledger.calls, self._ledger.waiting.get(target)
        if waiting is None or calls.states[target] != codes.PENDING:
            return _NEVER
        call = calls.call(target)
        kind = self._kinds.of_call(target)
        fits = (
            call.kind is NodeKind.TASK
            and call.runnable
            and not kind.gated
            and call.options.trigger_rule is TriggerRule.ALL_SUCCESS
            and not (waiting.failed or waiting.skipped or waiting.falsy or waiting.odd)
            and kind.queue is self._queue
            and not (self._ledger.has_gone and self._lacks_values(call))
        )
        return waiting.total - waiting.succeeded if fits else _NEVER

    def _lacks_values(self, call: CallMade) -> bool:
        """Tell whether some input of a call may have to be computed again first."""
        maps, calls = self._ledger.maps, self._ledger.calls
        return any(
            bool(maps[edge.source].gone) if edge.source in maps else calls.gone[edge.source]
            for edge in call.edges
        )

    def _take(self, target: int, *, light: bool) -> bool:
        draft, kind = self._draft, self._kinds.of_call(target)
        if draft.large or draft.costs.is_large(kind.name):
            # All values of a batch stay in memory until it ends.
            return False
        known = draft.costs.known(kind.name)
        if known is None:
            if not self._unknown or light:
                return False
            self._unknown -= 1
        elif draft.seconds + known > draft.costs.budget or (light and known > LIGHT_SECONDS):
            return False
        attempt = self._ledger.calls.attempts(target) + 1
        draft.add(Piece(self._ledger.calls, target, target + 1, kind, attempt))
        return True
