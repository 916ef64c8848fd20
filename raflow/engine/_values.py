"""Where the inputs of a call are, and which of them nobody has at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from raflow.engine import _codes as codes
from raflow.engine._events import CallMade
from raflow.engine._ledger import Ledger
from raflow.engine._release import RELEASED, USES
from raflow.engine._revival import revive
from raflow.engine._runs import Mapped, Runs
from raflow.model import Edge, EdgeKind

Recall: TypeAlias = Callable[[int], CallMade | None]
"""Returns the definition of a call all of whose runs are final; None if nobody can run it again."""
Run: TypeAlias = tuple[Runs, int]

DOUBTED: Final = 1
"""Of a value, in `Runs.gone`: it is not at hand, but it may be kept somewhere."""
GONE: Final = 2
"""Nobody has it."""


class Values:
    """Tells which completed runs lack their value."""

    def __init__(self, ledger: Ledger, recall: Recall) -> None:
        """Begin with all values at hand."""
        self._ledger = ledger
        self._recall = recall
        self.again: set[Run] = set()
        """Runs that were completed, run again, and are not final yet."""

    def source(self, edge: Edge) -> Mapped | None:
        """Return the map that an edge comes from; None if it is none, or has no items."""
        if edge.source in self._ledger.past_maps:
            revive(edge.source, self._ledger, self._recall)
        found = self._ledger.maps.get(edge.source)
        return None if found is None or found.given_up else found

    def sources(self, edge: Edge, item: int) -> Iterator[Run]:
        """Yield the runs that an edge comes from, for an item of its target."""
        mapped = self.source(edge)
        if mapped is None:
            yield self._ledger.calls, edge.source
            return
        only = item if edge.kind is EdgeKind.ITEM else edge.source_item
        for index in range(mapped.length) if only is None else (only,):
            if index < mapped.length:
                yield mapped, index

    def lacking(self, edge: Edge, item: int) -> Iterator[Run]:
        """Yield those of them that have completed, and whose value is needed but not at hand."""
        if edge.kind in USES:
            for run in self.sources(edge, item):
                if run in self.again or self.is_gone(*run):
                    yield run

    def unfinished(self, edge: Edge, item: int) -> Iterator[Run]:
        """Yield what a run that runs again has to wait for besides.

        Where it was recalled, what it depends on may run for the first time in this process. A map
        that has not all its items is its row among the single calls.
        """
        if edge.kind in USES:
            mapped = self.source(edge)
            if mapped is not None and not mapped.complete and edge.kind is not EdgeKind.ITEM:
                yield self._ledger.calls, edge.source
                return
            for runs, index in self.sources(edge, item):
                if not runs.end(index):
                    yield runs, index

    def is_gone(self, runs: Runs, index: int) -> bool:
        """Tell whether a run has completed, and its value is not at hand."""
        if runs.end(index) != codes.SUCCEEDED:
            return False
        if isinstance(runs, Mapped):
            return bool(runs.gone[index] or runs.released[index])
        return bool(runs.gone[index]) or self._ledger.calls.dropped[index] == RELEASED

    def is_forgotten(self, runs: Runs, index: int) -> bool:
        """Tell whether this stands for a map that cannot be made again."""
        return runs is self._ledger.calls and index in self._ledger.past_maps

    def suspects(self, edge: Edge, start: int, stop: int) -> bytes:
        """Return what is not zero for items whose source, an item of a map, may lack its value."""
        source, size = self.source(edge), stop - start
        if source is None:
            return bytes(size)
        ends = bytes(source.states[start:stop].translate(_IS_NO_SUCCESS))
        gone = codes.either(source.gone.part(start, stop), ends.ljust(size, b"\1"))
        return codes.either(gone, source.released[start:stop].ljust(size, b"\0"))


_IS_NO_SUCCESS: Final = codes.IS_SUCCEEDED.translate(codes.IS_ZERO)
