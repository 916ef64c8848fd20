"""Which task runs a block holds, in a form that says so of many with a few numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from raflow.model._report import Chunk

_FARTHEST: Final = 64
"""Of nodes that lie farther apart, a span would be open for long when many are read in order."""


class Span(NamedTuple):
    """Chunks of nodes at equal distances, each with the same items.

    A loop that calls two tasks leaves every second node to each of them.
    """

    node: int
    """Id of the first node."""
    step: int
    """From the id of one node to that of the next; at least 1."""
    nodes: int
    """How many nodes."""
    start: int
    """Map index of the first item of each; -1 for single calls."""
    stop: int
    """Map index after the last item of each; 0 for single calls."""

    @property
    def size(self) -> int:
        """How many task runs it stands for."""
        return self.nodes * (self.stop - self.start)

    @property
    def node_ids(self) -> range:
        """Ids of its nodes."""
        return range(self.node, self.node + self.step * self.nodes, self.step)


def spans_of(chunks: Iterable[Chunk]) -> list[Span]:
    """Return the spans of chunks, in order."""
    spans: list[Span] = []
    first, step, last, start, stop = -1, 1, -1, 0, 0
    for node, its_start, its_stop, _ in chunks:
        if its_start == start and its_stop == stop:
            if node - last == step:
                last = node
                continue
            if first == last < node <= first + _FARTHEST:
                step, last = node - last, node
                continue
        if first >= 0:
            spans.append(Span(first, step, (last - first) // step + 1, start, stop))
        first = last = node
        step, start, stop = 1, its_start, its_stop
    if first >= 0:
        spans.append(Span(first, step, (last - first) // step + 1, start, stop))
    return spans


def chunks_of(spans: Iterable[Span]) -> Iterator[Chunk]:
    """Yield the chunks that spans stand for: first attempts, as all in a block are."""
    return (Chunk(node, span.start, span.stop) for span in spans for node in span.node_ids)
