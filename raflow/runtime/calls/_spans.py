"""Where the values of a map's items are."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from typing import NamedTuple

from raflow.execute import ValueRef, ValueSlice


class ValueSpan(NamedTuple):
    """Neighbouring items whose values lie side by side in one object."""

    start: int
    """The first item."""
    stop: int
    """The item after the last."""
    handle: object
    position: int
    """Where the value of the first is in the object; -1: the object is the value of this item."""

    def cut(self, start: int, stop: int) -> ValueSpan:
        """Return the part for these items, which must be among its own."""
        if self.position < 0:
            return self
        return ValueSpan(start, stop, self.handle, self.position + start - self.start)

    def source(self) -> ValueRef | ValueSlice:
        """Return it as an input."""
        if self.stop - self.start == 1:
            return ValueRef(self.handle, self.position)
        return ValueSlice(self.handle, self.position, self.position + self.stop - self.start)


class ValueSpans:
    """Values of a map, in the order of items; holes are items that have none."""

    def __init__(self) -> None:
        """Begin with no values."""
        self._spans: list[ValueSpan] = []

    def add(self, span: ValueSpan) -> None:
        """Take note of values; those of the same items must have been dropped."""
        if self._spans and self._spans[-1].start > span.start:
            bisect.insort(self._spans, span, key=_start)
        else:
            self._spans.append(span)

    def between(self, start: int, stop: int) -> Iterator[ValueSpan]:
        """Yield where the values of these items are, in order, cut to them."""
        first = max(bisect.bisect_right(self._spans, start, key=_start) - 1, 0)
        for span in self._spans[first:]:
            if span.start >= stop:
                return
            if span.stop > start:
                yield span.cut(max(start, span.start), min(stop, span.stop))

    def drop(self, start: int, stop: int) -> None:
        """Forget the values of these items; an object is let go with its last one."""
        kept: list[ValueSpan] = []
        for span in self._spans:
            if span.stop <= start or span.start >= stop:
                kept.append(span)
                continue
            if span.start < start:
                kept.append(span.cut(span.start, start))
            if span.stop > stop:
                kept.append(span.cut(stop, span.stop))
        self._spans = kept


def _start(span: ValueSpan) -> int:
    return span.start
