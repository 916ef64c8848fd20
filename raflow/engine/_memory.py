"""What a task run asks for after it ran out of memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from raflow.engine._runs import Runs
from raflow.model import Resources

_STEP: Final = 2**20
"""The most that fits is found to this many bytes."""


class MemoryGrowth:
    """Lets a run ask for more, but not for more than there is."""

    def __init__(self, slots: Callable[[Resources], int]) -> None:
        """Begin with nothing; `slots` tells how many calls with these resources fit."""
        self._slots = slots

    def grow(self, runs: Runs, index: int, peak: int) -> None:
        """Have the next attempt ask for more than the last one did.

        Args:
            runs: The table of the run.
            index: Its row.
            peak: Bytes that its process has used; 0 if that is not known.
        """
        options = runs.options(index)
        if options.memory_growth <= 1:
            return
        tally = runs.tally(index)
        had = tally.memory or options.resources.memory or peak
        tally.memory = self._fitting(options.resources, had, int(had * options.memory_growth))

    def _fitting(self, resources: Resources, had: int, wanted: int) -> int:
        """Return what is wanted, or as much of it as some node has; never less than before."""
        if self._fits(resources, wanted):
            return wanted
        low, high = had, wanted
        while high - low > _STEP:
            middle = (low + high) // 2
            if self._fits(resources, middle):
                low = middle
            else:
                high = middle
        return low

    def _fits(self, resources: Resources, memory: int) -> bool:
        return self._slots(replace(resources, memory=memory)) > 0
