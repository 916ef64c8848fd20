"""Which values nobody can use any more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from raflow.engine import _codes as codes
from raflow.engine import _commands as commands
from raflow.engine._ledger import Ledger, PastMap
from raflow.engine._runs import Mapped, single_chunks
from raflow.model import Chunk, Edge, EdgeKind, StateName

USES: Final = frozenset({EdgeKind.DATA, EdgeKind.ITEM})
DROPPED: Final = 1
RELEASED: Final = 2
"""In `Calls.dropped`: the value has been let go."""


class Releases:
    """Counts who may still use the value of a node, and lets go of it after the last."""

    def __init__(self, ledger: Ledger) -> None:
        """Begin without nodes."""
        self._ledger = ledger
        self._uses: dict[int, int] = {}
        """By node: edges to nodes that are not final and take its value."""

    def used(self, edges: Sequence[Edge]) -> None:
        """Note that a new node may use the values of others."""
        for edge in edges:
            if edge.kind in USES:
                self._uses[edge.source] = self._uses.get(edge.source, 0) + 1

    def is_needed(self, node: int) -> None:
        """Note that a value that was let go is needed again, and is to be let go again."""
        calls = self._ledger.calls
        if calls.dropped[node] == RELEASED:
            calls.dropped[node] = DROPPED

    def user_is_final(self, edges: Sequence[Edge]) -> None:
        """Note that a node uses nothing any more."""
        for edge in edges:
            if edge.kind in USES:
                left = self._uses[edge.source] - 1
                if left:
                    self._uses[edge.source] = left
                else:
                    del self._uses[edge.source]
                    self._try(edge.source)

    def dropped(self, nodes: Iterable[int]) -> None:
        """Note that the body has no futures of these nodes any more."""
        calls = self._ledger.calls
        for start, stop in codes.rows(sorted(set(nodes))):
            if any(calls.dropped[start:stop]):
                for node in range(start, stop):
                    calls.dropped[node] = calls.dropped[node] or DROPPED
            else:
                calls.dropped[start:stop] = bytes([DROPPED]) * (stop - start)
            final = calls.states[start:stop].translate(codes.IS_FINAL)
            for first, last in codes.stretches(final):
                self.calls_are_final(start + first, start + last)
            if self._ledger.maps:
                for node in self._ledger.maps.keys() & range(start, stop):
                    self._try(node)
                    self._sweep(self._ledger.maps.get(node))

    def calls_are_final(self, start: int, stop: int) -> None:
        """Let go of what nobody uses among single calls that have become final."""
        calls = self._ledger.calls
        dropped = calls.dropped[start:stop]
        if not any(dropped):
            return
        if dropped.count(DROPPED) == stop - start and self._uses.keys().isdisjoint(
            range(start, stop)
        ):
            calls.dropped[start:stop] = bytes([RELEASED]) * (stop - start)
            self._say(self._let_go(start, stop))
            return
        for node in range(start, stop):
            self._try(node)

    def items_are_final(self, mapped: Mapped, start: int, stop: int) -> None:
        """Let go of what these items used as the only ones, and of theirs if it was used up."""
        for _, source in mapped.sources:
            self._sweep_items(source, mapped, start, stop)
        for follower in mapped.followers:
            self._sweep_items(mapped, follower, start, stop)

    def map_is_final(self, mapped: Mapped) -> None:
        """Let go of what a map used, and of its own values if nobody uses them."""
        self.user_is_final(mapped.call.edges)
        self._try(mapped.node)

    def _try(self, node: int) -> None:
        calls, mapped = self._ledger.calls, self._ledger.maps.get(node)
        if calls.dropped[node] != DROPPED or node in self._uses:
            return
        if mapped is None:
            if codes.ENDS[calls.states[node]]:
                calls.dropped[node] = RELEASED
                self._say(self._let_go(node, node + 1))
        elif mapped.told and mapped.closed:
            calls.dropped[node] = RELEASED
            self._let_map_go(mapped)

    def _let_go(self, start: int, stop: int) -> list[Chunk]:
        """Forget what is known of single calls; return those that have values."""
        calls = self._ledger.calls
        states = calls.states[start:stop]
        if states.count(codes.COMPLETED) == stop - start:
            calls.keys[start:stop] = [""] * (stop - start)
            if calls.lengths:
                for node in range(start, stop):
                    calls.lengths.pop(node, None)
            return single_chunks(start, stop, 0)
        chunks: list[Chunk] = []
        for node in range(start, stop):
            if codes.IS_SUCCEEDED[calls.states[node]]:
                calls.keys[node] = ""
                calls.lengths.pop(node, None)
                chunks += single_chunks(node, node + 1, 0)
        return chunks

    # Maps ---------------------------------------------------------------------------------------

    def _let_map_go(self, mapped: Mapped) -> None:
        self._say_items(mapped, 0, mapped.states.translate(codes.IS_SUCCEEDED))
        if mapped.failed or mapped.given_up:
            return
        # Its failures decide about the flow run; without any, the row of the node says enough.
        calls, node = self._ledger.calls, mapped.node
        ended = mapped.outcome() == codes.SUCCEEDED
        calls.states[node] = codes.COMPLETED if ended else codes.CODES[StateName.SKIPPED]
        calls.keys[node] = ""
        del self._ledger.maps[node]
        self._ledger.past_maps[node] = PastMap.of(mapped)

    def _sweep(self, mapped: Mapped | None) -> None:
        if mapped is not None:
            for follower in mapped.followers:
                self._sweep_items(mapped, follower, 0, mapped.length)

    def _sweep_items(self, mapped: Mapped, user: Mapped, start: int, stop: int) -> None:
        """Let go of items whose only user is final, before the rest of the map is."""
        uses = self._uses.get(mapped.node)
        if self._ledger.calls.dropped[mapped.node] != DROPPED or uses != 1 or user.told:
            return
        used = user.states[start:stop].translate(codes.IS_FINAL)
        ready = mapped.states[start : start + len(used)].translate(codes.IS_SUCCEEDED)
        self._say_items(mapped, start, codes.both(used, ready))

    def _say_items(self, mapped: Mapped, offset: int, which: bytes | bytearray) -> None:
        """Let go of marked items that have not been let go of before."""
        fresh = codes.both(which, mapped.released[offset : offset + len(which)].translate(_NOT))
        chunks: list[Chunk] = []
        for first, last in codes.stretches(fresh):
            start, stop = offset + first, offset + last
            mapped.released[start:stop] = b"\1" * (stop - start)
            chunks.append(Chunk(mapped.node, start, stop, 0))
        self._say(chunks)

    def _say(self, chunks: Sequence[Chunk]) -> None:
        if chunks:
            self._ledger.out.append(commands.ReleaseValues(chunks=tuple(chunks)))


_NOT: Final = bytes([1, 0]) + bytes(254)
