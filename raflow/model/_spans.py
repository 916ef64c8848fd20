"""Which task runs a block holds, in a form that says so of many with a few numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from raflow.model._report import Chunk


class Span(NamedTuple):
    """Chunks of neighbouring nodes, each with the same items."""

    node: int
    """Id of the first node."""
    nodes: int
    """How many nodes, with ids that count up."""
    start: int
    """Map index of the first item of each; -1 for single calls."""
    stop: int
    """Map index after the last item of each; 0 for single calls."""

    @property
    def size(self) -> int:
        """How many task runs it stands for."""
        return self.nodes * (self.stop - self.start)


def spans_of(chunks: Iterable[Chunk]) -> list[Span]:
    """Return the spans of chunks, in order."""
    spans: list[Span] = []
    first, following, start, stop = 0, None, 0, 0
    for node, its_start, its_stop, _ in chunks:
        if node == following and its_start == start and its_stop == stop:
            following += 1
            continue
        if following is not None:
            spans.append(Span(first, following - first, start, stop))
        first, following, start, stop = node, node + 1, its_start, its_stop
    if following is not None:
        spans.append(Span(first, following - first, start, stop))
    return spans


def chunks_of(spans: Iterable[Span]) -> Iterator[Chunk]:
    """Yield the chunks that spans stand for: first attempts, as all in a block are."""
    for first, nodes, start, stop in spans:
        for node in range(first, first + nodes):
            yield Chunk(node, start, stop)
