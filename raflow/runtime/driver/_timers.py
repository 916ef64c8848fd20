"""What is to be done at set times."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Timers(Generic[T]):
    """Things that become due; equal times keep their order."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._heap: list[tuple[float, int, T]] = []
        self._order = itertools.count()

    def add(self, due: float, what: T) -> None:
        """Have something become due at a time."""
        heapq.heappush(self._heap, (due, next(self._order), what))

    def wait(self, now: float) -> float | None:
        """Return the seconds until the next is due; None if there is none."""
        return max(0.0, self._heap[0][0] - now) if self._heap else None

    def due(self, now: float) -> Iterator[T]:
        """Take out what is due, in order."""
        while self._heap and self._heap[0][0] <= now:
            yield heapq.heappop(self._heap)[2]
