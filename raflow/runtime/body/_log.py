"""Keeps what the body of a flow prints and logs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from raflow.execute import Capture, Sink, Sinking
from raflow.model import LogLine


class _BodySink(Sink):
    """Hands on each line when it is complete, because a body may run for days."""

    def __init__(self, *, prints: bool, level: int, keep: Callable[[LogLine], None]) -> None:
        super().__init__(prints=prints, level=level)
        self._keep = keep

    def _add(self, line: LogLine) -> None:
        self._keep(line)


@contextlib.contextmanager
def body_log(*, prints: bool, level: int, keep: Callable[[LogLine], None]) -> Iterator[None]:
    """Hand the lines that this context prints and logs to `keep`, besides where they go anyway.

    Args:
        prints: Whether what is printed counts, besides what is logged.
        level: Lowest level of log records that count.
        keep: Called with each line.
    """
    sink = _BodySink(prints=prints, level=level, keep=keep)
    with Capture(level), Sinking(sink, whole_process=False):
        yield
    sink.close()
