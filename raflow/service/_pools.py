"""Work pools and the workers that take their runs."""

from __future__ import annotations

import dataclasses

from raflow import errors, model
from raflow.service._signals import Signals
from raflow.store import Store


class Pools:
    """Work pools."""

    def __init__(self, store: Store, signals: Signals) -> None:
        self._store = store
        self._signals = signals

    def all(self) -> list[model.PoolState]:
        """Return every pool and what goes on in it, sorted by name."""
        return self._store.work.pools()

    def get(self, name: str) -> model.PoolState:
        """Return a pool and what goes on in it.

        Raises:
            NotFoundError: There is no such pool.
        """
        return self._store.work.pool(name)

    def set(
        self, name: str, *, concurrency: int | None, description: str | None = None
    ) -> model.PoolState:
        """Make a pool, or change it; what is under way goes on.

        Args:
            name: The pool.
            concurrency: How many of its runs may be under way; None: any number.
            description: For people. Default: as it is.

        Raises:
            ConfigError: It has no name, or its concurrency is negative.
        """
        known = {state.pool.name: state.pool for state in self.all()}
        pool = dataclasses.replace(known.get(name, model.Pool(name=name)), concurrency=concurrency)
        if description is not None:
            pool = dataclasses.replace(pool, description=description)
        return self._changed(pool)

    def pause(self, name: str) -> model.PoolState:
        """Let the workers of a pool take no runs. What is under way goes on.

        Raises:
            NotFoundError: There is no such pool.
        """
        return self._changed(dataclasses.replace(self.get(name).pool, paused=True))

    def resume(self, name: str) -> model.PoolState:
        """Let the workers of a pool take runs again.

        Raises:
            NotFoundError: There is no such pool.
        """
        return self._changed(dataclasses.replace(self.get(name).pool, paused=False))

    def remove(self, name: str) -> None:
        """Remove a pool.

        Raises:
            NotFoundError: There is no such pool.
            ConfigError: It has runs that are not over.
        """
        self._store.work.remove_pool(name)
        self._signals.wake("feed")

    def _changed(self, pool: model.Pool) -> model.PoolState:
        self._store.work.set_pool(pool)
        self._signals.wake(f"pool:{pool.name}", "feed")
        return self.get(pool.name)


class Workers:
    """Processes that take runs of pools."""

    def __init__(self, store: Store, signals: Signals) -> None:
        self._store = store
        self._signals = signals

    def all(self, pool: str | None = None) -> list[model.WorkerInfo]:
        """Return workers, also those that have not been seen for long, by pool and name."""
        return self._store.work.workers(pool)

    def drain(self, worker: str) -> list[model.WorkerInfo]:
        """Have workers take no more runs, and end when their own are over.

        Args:
            worker: The id of one, or a name, which several may have.

        Returns:
            Those that were told.

        Raises:
            NotFoundError: There is none.
        """
        known = self.all()
        meant = [one for one in known if worker in {one.name, one.id}]
        if not meant:
            names = [one.name for one in known]
            raise errors.NotFoundError.of("worker", worker, names, "See `raflow workers ls`.")
        for one in meant:
            self._store.work.drain(one.id)
            self._signals.wake(f"worker:{one.id}", "feed")
        return [dataclasses.replace(one, draining=True) for one in meant]
