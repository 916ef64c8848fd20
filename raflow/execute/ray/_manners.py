"""What a call may have changed for its whole process, and the next batch must not find changed."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Final

UNFIT: Final = 87
"""Exit status of a process that no call can use any more."""


class Manners:
    """Settings of a worker process, as they were before the first batch."""

    def __init__(self) -> None:
        """Note them."""
        self._directory = os.getcwd()
        self._umask = os.umask(0)
        os.umask(self._umask)
        self._recursion_limit = sys.getrecursionlimit()

    def restore(self) -> None:
        """Set them again, before a batch."""
        os.umask(self._umask)
        with contextlib.suppress(OSError):  # it may have been removed
            os.chdir(self._directory)
        if sys.getrecursionlimit() != self._recursion_limit:
            sys.setrecursionlimit(self._recursion_limit)


def end_if_unfit() -> None:
    """End the process if it cannot even open a file.

    A call has used up its file descriptors, or limited them. To be called when a batch has begun
    and none of its calls has: all of them are then sent to another process.
    """
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        os._exit(UNFIT)
