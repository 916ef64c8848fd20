"""A worker's work out of the database of this machine, without a service."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from raflow import config
from raflow.bundles import BundleStore, unpack
from raflow.model import Claim, DeploymentVersion, Poll, Polled, WorkerInfo
from raflow.service import Reaper

if TYPE_CHECKING:
    from raflow.store import Store

_LEASE_SECONDS: Final = 30.0
_REST_SECONDS: Final = 0.25
"""After a claim that brought nothing, where runs wait: their pool or deployment has no room."""


class LocalWork:
    """Hands out the runs of a database; where nobody else does, it also looks after them."""

    def __init__(self, store: Store, settings: config.Settings) -> None:
        """Use a store; the settings name where bundles are."""
        self._store = store
        self._bundles = BundleStore(settings.bundles)
        self._codes = settings.home / "code"
        self._reaper = Reaper(store)
        self._rests_until = 0.0

    def poll(self, ask: Poll) -> Polled:
        """Take runs; see `Work.poll`."""
        claims = self._claims(ask.info, ask) if ask.most else ()
        return Polled(claims=claims)

    def _claims(self, info: WorkerInfo, ask: Poll) -> tuple[Claim, ...]:
        work = self._store.work
        # Claiming keeps all others from writing for a moment; looking does not.
        if time.monotonic() < self._rests_until or work.due_in(info.pool) != 0.0:
            return ()
        found = work.claim(
            info.pool, info.id, most=ask.most, seconds=_LEASE_SECONDS, claim=ask.claim
        )
        if not found:
            self._rests_until = time.monotonic() + _REST_SECONDS
        return tuple(found)

    def seen(self, ask: Poll) -> Polled:
        """Note that the worker is there, and put back what others have left; see `Work.seen`."""
        seen = self._store.work.worker_seen
        known = seen(ask.info, seconds=_LEASE_SECONDS, claimed=ask.waiting)
        self._reaper.look()
        return Polled(drain=known.draining)

    def folder(self, version: DeploymentVersion) -> Path:
        """Return where the code of a version is; see `Work.folder`."""
        with self._bundles.open(version.bundle) as archive:
            return unpack(archive, version.bundle, self._codes)

    def version(self, claim: Claim) -> DeploymentVersion:
        """Return the version that a run is of; see `Work.version`."""
        origin = claim.flow_run.origin
        assert origin is not None
        return self._store.deployments.version(origin.deployment, origin.version)

    def give_back(
        self, flow_run_id: str, incarnation: int, *, message: str, permanent: bool = False
    ) -> bool:
        """Give back a run that has not begun; see `Work.give_back`."""
        return self._store.work.give_back(
            flow_run_id, incarnation, message=message, permanent=permanent
        )

    def died(self, flow_run_id: str, incarnation: int, *, message: str) -> bool:
        """Tell that the process of a run is gone; see `Work.died`."""
        return self._store.work.put_back(flow_run_id, message=message, died=incarnation)

    def move(self, flow_run_id: str, *, by: str, message: str) -> None:
        """Have a run suspended; see `Work.move`."""
        self._store.work.hand_over(flow_run_id, by=by, message=message)

    def leave(self, worker_id: str) -> None:
        """Say that the worker ends; see `Work.leave`."""
        self._store.work.worker_gone(worker_id)
