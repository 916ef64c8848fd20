"""How long the calls of each task take, as far as is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

_WEIGHT: Final = 0.3
"""How much a new batch counts against all before it."""


class Learned(NamedTuple):
    """What is known of the calls of one task."""

    seconds: float
    """Mean duration."""
    bytes: float
    """Mean size of the value."""


class Pace:
    """Running means per task, by name; earlier runs of the same code give the first guess."""

    def __init__(self, known: Mapping[str, Learned] | None = None) -> None:
        """Begin with what earlier runs have taught."""
        self._learned = dict(known or {})

    @property
    def learned(self) -> Mapping[str, Learned]:
        """What is known now, by name of the task."""
        return self._learned

    def seconds(self, task: str) -> float | None:
        """Return how long a call takes; None if nothing is known."""
        learned = self._learned.get(task)
        return None if learned is None else learned.seconds

    def bytes(self, task: str) -> float:
        """Return how large a value is; 0 if nothing is known."""
        learned = self._learned.get(task)
        return 0.0 if learned is None else learned.bytes

    def recall(self, known: Mapping[str, Learned]) -> None:
        """Take in what earlier runs have taught; what this one has shown counts instead."""
        self._learned = {**known, **self._learned}

    def learn(self, task: str, seconds: float, size: float) -> None:
        """Take in what one batch has shown: means over its calls of the task."""
        before = self._learned.get(task)
        if before is None:
            self._learned[task] = Learned(seconds, size)
        else:
            self._learned[task] = Learned(
                before.seconds + _WEIGHT * (seconds - before.seconds),
                before.bytes + _WEIGHT * (size - before.bytes),
            )
