"""Limits that runs share, and values that were computed before."""

from __future__ import annotations

from raflow import errors, model
from raflow.service._signals import Signals
from raflow.store import Store


class Limits:
    """Limits, who holds their slots, and who waits."""

    def __init__(self, store: Store, signals: Signals) -> None:
        self._store = store
        self._signals = signals

    def all(self) -> list[model.LimitState]:
        """Return every limit, sorted by name."""
        return self._store.limits.all()

    def get(self, name: str) -> model.LimitState:
        """Return a limit.

        Raises:
            UnknownLimitError: Nobody has set it.
        """
        found = {state.limit.name: state for state in self._store.limits.all()}
        if name not in found:
            raise errors.UnknownLimitError.of("limit", name, found)
        return found[name]

    def set(self, limit: model.Limit) -> model.LimitState:
        """Set a limit, or change it.

        Raises:
            ConfigError: Its name is empty, or a number is negative.
        """
        self._store.limits.set(limit)
        self._signals.wake(f"limit:{limit.name}", "feed")
        return self.get(limit.name)

    def remove(self, name: str) -> None:
        """Remove a limit, with those who hold or await its slots.

        Raises:
            UnknownLimitError: Nobody has set it.
        """
        self._store.limits.remove(name)
        self._signals.wake(f"limit:{name}", "feed")


class Cache:
    """Values that were computed before."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def entries(self, *, task: str | None, limit: int) -> list[model.CacheEntry]:
        """Return what is kept, expired or not, newest first."""
        return self._store.cache.entries(task=task, limit=limit)

    def clear(self, *, key: str | None, task: str | None, older_than: float | None) -> int:
        """Forget values; return how many there were."""
        return self._store.cache.clear(key=key, task=task, older_than=older_than)
