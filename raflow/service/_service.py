"""All that can be asked of a store of runs, by those who may."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from raflow.service._backfills import Backfills
from raflow.service._events import Events
from raflow.service._flows import Flows
from raflow.service._inputs import Inputs
from raflow.service._limits import Cache, Limits
from raflow.service._pools import Pools, Workers
from raflow.service._runs import Runs
from raflow.service._schedules import Schedules
from raflow.service._signals import Signals
from raflow.service._tokens import Tokens
from raflow.store import Store

if TYPE_CHECKING:
    from raflow.service._deployments import Deployments


class Service:
    """The verbs, by group, for one actor over one store; making one costs nothing."""

    def __init__(
        self, store: Store, *, actor: str, signals: Signals | None = None, storage: str = ""
    ) -> None:
        """Take what it works on.

        Args:
            store: The record.
            actor: Who asks: `user@host`, or the name of a token. It stands in the record.
            signals: What wakes those who wait in this process. Default: nobody waits.
            storage: fsspec URL, or path, of the code of deployments. Only those who deal with code
                need it.
        """
        self._store = store
        self._actor = actor
        self._signals = signals or Signals()
        self._storage = storage

    @functools.cached_property
    def flows(self) -> Flows:
        """Flows and the versions of their code."""
        return Flows(self._store)

    @functools.cached_property
    def runs(self) -> Runs:
        """Flow runs."""
        return Runs(self._store, self._signals, self._actor)

    @functools.cached_property
    def limits(self) -> Limits:
        """Limits that runs share."""
        return Limits(self._store, self._signals)

    @functools.cached_property
    def cache(self) -> Cache:
        """Values that were computed before."""
        return Cache(self._store)

    @functools.cached_property
    def inputs(self) -> Inputs:
        """What flow runs ask of people."""
        return Inputs(self._store, self._signals, self._actor)

    @functools.cached_property
    def deployments(self) -> Deployments:
        """Which code runs under which name."""
        # fsspec takes a while to load, and few who steer runs need it.
        from raflow.service._deployments import Deployments  # noqa: PLC0415

        return Deployments(self._store, self._signals, self._actor, self._storage)

    @functools.cached_property
    def pools(self) -> Pools:
        """Work pools."""
        return Pools(self._store, self._signals)

    @functools.cached_property
    def workers(self) -> Workers:
        """Who takes the runs of pools."""
        return Workers(self._store, self._signals)

    @functools.cached_property
    def schedules(self) -> Schedules:
        """When deployments run by themselves."""
        return Schedules(self._store, self._signals, self._actor)

    @functools.cached_property
    def backfills(self) -> Backfills:
        """Runs for slots of the past."""
        return Backfills(self._store, self._signals, self._actor)

    @functools.cached_property
    def events(self) -> Events:
        """Everything that happens, in one order."""
        return Events(self._store)

    @functools.cached_property
    def tokens(self) -> Tokens:
        """Who may use the service."""
        return Tokens(self._store, self._signals, self._actor)
