"""Who may write to standard output while a flow runs in this process."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from raflow.define import active_task


@contextlib.contextmanager
def only_the_body(*, stdout: TextIO | None = None) -> Iterator[None]:
    """Let what the flow's body prints through, and hold back what its tasks print.

    With the local backend tasks run in this process. What they print is in their log, which is
    shown with their label; without this it would be seen twice.

    Args:
        stdout: Where the body's standard output goes. Default: where it went before.
    """
    before = sys.stdout, sys.stderr
    own = _BodyOnly(stdout or sys.stdout), _BodyOnly(sys.stderr)
    sys.stdout, sys.stderr = own
    try:
        yield
    finally:
        # Not if somebody else took their place: that one puts back what it found.
        if sys.stdout is own[0]:
            sys.stdout = before[0]
        if sys.stderr is own[1]:
            sys.stderr = before[1]


def is_one_place(one: TextIO, other: TextIO) -> bool:
    """Return whether two streams end in the same terminal, file or pipe."""
    try:
        return os.path.sameopenfile(one.fileno(), other.fileno())
    except (OSError, ValueError):
        return False


class _BodyOnly:
    """Stands for a stream; everything but writing is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return len(text) if active_task.get() is not None else self._stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
