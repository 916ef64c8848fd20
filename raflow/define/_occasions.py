"""Telling apart what a body asks for more than once, in the same way each time it is run."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from typing import Final

_counting: Final = threading.Lock()


class Occasions:
    """Names the requests of a body, or of a task: one that is run again makes them again.

    Requests of the same content are numbered in their order; in which order others come between
    them, as they may where threads or an event loop make them, does not matter.
    """

    def __init__(self) -> None:
        """Begin a body."""
        self._counts: Counter[str] = Counter()

    def next(self, what: str) -> str:
        """Return the name of the next request with this content."""
        name = hashlib.sha256(what.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        with _counting:
            number = self._counts[name]
            self._counts[name] += 1
        return f"{name}/{number}"
