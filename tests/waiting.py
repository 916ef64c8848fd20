"""Waits for what happens, however slow the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_SECONDS = 100.0
"""Only what never happens takes so long: what a test is to end lasts longer by itself."""

LIMITS = (0.5, 5.0, 50.0)
"""Time limits to try in turn, until what has to begin in time does so, however slow it begins."""


def wait_for(holds: Callable[[], object]) -> None:
    """Wait until that is true."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
