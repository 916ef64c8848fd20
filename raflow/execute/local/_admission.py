"""Which waiting batch may start: the resources of this process, handed out fairly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_EPSILON: Final = 1e-9
"""Sums of fractions of CPUs are not exact."""


@dataclass(slots=True)
class _Waiting(Generic[T]):
    item: T
    amounts: Mapping[str, float]
    overtaken: int = 0


class Admission(Generic[T]):
    """Hands out amounts of named resources, first come first served.

    An item that fits may start before an older one that does not fit yet. So that a large item is
    not passed for ever, this ends once `patience` items have passed it.
    """

    def __init__(
        self, total: Mapping[str, float], *, patience: int = 16, lookahead: int = 64
    ) -> None:
        """Begin with everything free.

        Args:
            total: What there is, by name.
            patience: How many younger items may pass one that waits.
            lookahead: How many waiting items are looked at to find one that fits.
        """
        self._free = dict(total)
        self._waiting: list[_Waiting[T]] = []
        self._patience = patience
        self._lookahead = lookahead

    def ask(self, item: T, amounts: Mapping[str, float]) -> list[T]:
        """Queue an item; returns the items that may start now."""
        self._waiting.append(_Waiting(item, amounts))
        return self._admit()

    def withdraw(self, item: T) -> tuple[bool, list[T]]:
        """Take an item out of the queue; returns whether it waited, and what may start now."""
        others = [entry for entry in self._waiting if entry.item is not item]
        waited = len(others) < len(self._waiting)
        self._waiting = others
        return waited, self._admit()

    def give_back(self, amounts: Mapping[str, float]) -> list[T]:
        """Free what an item had; returns the items that may start now."""
        for name, amount in amounts.items():
            self._free[name] += amount
        return self._admit()

    def _admit(self) -> list[T]:
        started: list[T] = []
        position = 0
        while position < min(len(self._waiting), self._lookahead):
            if position and self._waiting[0].overtaken >= self._patience:
                break
            entry = self._waiting[position]
            if not _fits(entry.amounts, self._free):
                position += 1
                continue
            for name, amount in entry.amounts.items():
                self._free[name] -= amount
            for older in self._waiting[:position]:
                older.overtaken += 1
            del self._waiting[position]
            started.append(entry.item)
        return started


def _fits(amounts: Mapping[str, float], free: Mapping[str, float]) -> bool:
    return all(free.get(name, 0.0) >= amount - _EPSILON for name, amount in amounts.items())
