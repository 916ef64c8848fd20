"""How often Python's garbage collector looks at what a flow run makes."""

from __future__ import annotations

import gc
import threading
from types import TracebackType
from typing import Final

_YOUNG: Final = 50_000
"""Objects made before the collector looks at the young ones. Python's own number is 700."""


class FewerCollections:
    """Lets the collector look less often while flow runs are under way in this process.

    A run makes some small objects for each call, and none of them is part of a cycle: with Python's
    own thresholds the collector takes more time than everything else that the driver does. What a
    program has set itself is left alone.
    """

    def __init__(self) -> None:
        """Begin with no run under way."""
        self._lock = threading.Lock()
        self._runs = 0
        self._before: tuple[int, int, int] | None = None

    def __enter__(self) -> None:
        with self._lock:
            self._runs += 1
            before = gc.get_threshold()
            if self._runs == 1 and 0 < before[0] < _YOUNG:
                self._before = before
                gc.set_threshold(_YOUNG, *before[1:])

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            self._runs -= 1
            if self._runs == 0 and self._before is not None:
                gc.set_threshold(*self._before)
                self._before = None


fewer_collections: Final = FewerCollections()
