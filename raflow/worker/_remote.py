"""A worker's work out of the pool of a service, over HTTP and from here to there only."""

from __future__ import annotations

import io
import logging
import threading
import time
from pathlib import Path
from typing import Final

from raflow import config, errors
from raflow.bundles import unpack
from raflow.client import WorkClient
from raflow.model import Claim, DeploymentVersion, Poll, Polled

_WAIT_SECONDS: Final = 20.0
_SEEN_SECONDS: Final = 5.0
"""How often the service is told that the worker is there, which it believes for 30 s."""
_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 10.0
_END_SECONDS: Final = 5.0
_LOG: Final = logging.getLogger("raflow.worker")


class RemoteWork:
    """Hands out the runs of a pool of a service; while that is away, none."""

    def __init__(self, client: WorkClient, settings: config.Settings) -> None:
        """Take whom to ask; the settings say where code is unpacked."""
        self._client = client
        self._codes = settings.home / "code"
        self._versions: dict[tuple[str, int], DeploymentVersion] = {}
        self._waiting = _Waiting(client)
        self._told = Polled()
        self._draining = False
        self._next_at = 0.0
        self._pause = 0.0

    def poll(self, ask: Poll) -> Polled:
        """Return runs that the service has given meanwhile, and ask for more; see `Work.poll`."""
        return self._waiting.poll(ask)

    def seen(self, ask: Poll) -> Polled:
        """Tell the service, every few seconds, that the worker is there; see `Work.seen`."""
        news = ask.info.draining and not self._draining
        if time.monotonic() < self._next_at and not news:
            return self._told
        if ask.info.draining:
            self._draining = True
            self._waiting.close()
        try:
            self._told = self._client.seen(ask)
        except errors.StoreError:
            self._pause = min(2 * self._pause or _FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
            self._next_at = time.monotonic() + self._pause
            raise
        if self._pause:
            _LOG.info("the service is there again")
        self._pause = 0.0
        self._next_at = time.monotonic() + _SEEN_SECONDS
        return self._told

    def version(self, claim: Claim) -> DeploymentVersion:
        """Return the version that a run is of, which never changes; see `Work.version`."""
        origin = claim.flow_run.origin
        assert origin is not None
        key = origin.deployment, origin.version
        if key not in self._versions:
            self._versions[key] = self._client.version(claim.flow_run.id)
        return self._versions[key]

    def folder(self, version: DeploymentVersion) -> Path:
        """Return where the code of a version is, fetched if it is not here; see `Work.folder`."""
        try:
            # An empty archive: nothing is read of it if the code is here, and whole.
            return unpack(io.BytesIO(), version.bundle, self._codes)
        except errors.BundleError:
            archive = io.BytesIO(self._client.bundle(version.bundle))
            return unpack(archive, version.bundle, self._codes)

    def give_back(
        self, flow_run_id: str, incarnation: int, *, message: str, permanent: bool = False
    ) -> bool:
        """Give back a run that has not begun; see `Work.give_back`."""
        return self._client.give_back(
            flow_run_id, incarnation, message=message, permanent=permanent
        )

    def died(self, flow_run_id: str, incarnation: int, *, message: str) -> bool:
        """Tell that the process of a run is gone; see `Work.died`."""
        return self._client.died(flow_run_id, incarnation, message=message)

    def move(self, flow_run_id: str, *, by: str, message: str) -> None:
        """Have a run suspended; see `Work.move`."""
        self._client.move(flow_run_id, by=by, message=message)

    def leave(self, worker_id: str) -> None:
        """Say that the worker ends, and take no more runs; see `Work.leave`."""
        self._waiting.close()
        self._client.leave(worker_id)
        self._waiting.join(_END_SECONDS)


class _Waiting:
    """Asks for runs on a thread of its own, as the service lets it wait until there are some."""

    def __init__(self, client: WorkClient) -> None:
        self._client = client
        self._changed = threading.Condition()
        self._ask: Poll | None = None
        self._found: Polled | errors.RaflowError | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="raflow-poll", daemon=True)

    def poll(self, ask: Poll) -> Polled:
        """Return what was found, or have it looked for; does not wait."""
        with self._changed:
            found, self._found = self._found, None
            self._ask = ask if found is None else None
            if self._thread.ident is None:
                self._thread.start()
            self._changed.notify_all()
        if isinstance(found, errors.RaflowError):
            raise found
        return found or Polled()

    def close(self) -> None:
        """Look for nothing more, and give back what nobody has asked for."""
        with self._changed:
            self._closed = True
            found, self._found = self._found, None
            self._changed.notify_all()
        self._give_back(found)

    def join(self, seconds: float) -> None:
        """Wait for the thread to end, whose last question the service may still hold."""
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _work(self) -> None:
        pause = 0.0
        while (ask := self._next(pause)) is not None:
            found: Polled | errors.RaflowError
            try:
                found, pause = self._client.poll(ask, wait=_WAIT_SECONDS), 0.0
            except errors.StoreError:
                # `seen` tells of it.
                pause = min(2 * pause or _FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
                continue
            except errors.RaflowError as error:
                found = error
            if isinstance(found, Polled) and not found.claims:
                pause = _FIRST_PAUSE_SECONDS if found.drain else 0.0
                continue
            with self._changed:
                if not self._closed:
                    self._found, self._ask = found, None
                    continue
            self._give_back(found)

    def _next(self, pause: float) -> Poll | None:
        """Return what is to be asked, after a pause; None: nothing more."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed, pause)
            self._changed.wait_for(
                lambda: self._closed or (self._ask is not None and self._found is None)
            )
            return None if self._closed else self._ask

    def _give_back(self, found: Polled | errors.RaflowError | None) -> None:
        for claim in found.claims if isinstance(found, Polled) else ():
            run = claim.flow_run.id
            try:
                self._client.give_back(
                    run, claim.incarnation, message="its worker ends", permanent=False
                )
            except errors.RaflowError as error:
                _LOG.warning("cannot give flow run %s back: %s", run, error)
