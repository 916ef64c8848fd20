"""Where a worker gets its work from."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from raflow.model import Claim, DeploymentVersion, Poll, Polled


class Work(Protocol):
    """Hands out runs and their code, and takes runs back. Every method may raise StoreError."""

    def poll(self, ask: Poll) -> Polled:
        """Take runs, if there are any; does not wait for them to come."""

    def seen(self, ask: Poll) -> Polled:
        """Say that the worker is there, once a second or so; takes no runs."""

    def version(self, claim: Claim) -> DeploymentVersion:
        """Return the version of its deployment that a run is of.

        Raises:
            NotFoundError: The deployment is gone.
        """

    def folder(self, version: DeploymentVersion) -> Path:
        """Return where the code of a version is, fetched and unpacked.

        Raises:
            BundleMissingError: Its bundle is gone.
            BundleError: Its bundle is damaged, or cannot be unpacked.
        """

    def give_back(
        self, flow_run_id: str, incarnation: int, *, message: str, permanent: bool = False
    ) -> bool:
        """Give back a run that has not begun; see `Dispatches.give_back`."""

    def died(self, flow_run_id: str, incarnation: int, *, message: str) -> bool:
        """Tell that the process of a run is surely gone; see `Dispatches.put_back`."""

    def move(self, flow_run_id: str, *, by: str, message: str) -> None:
        """Have a run suspended, as soon as it can be; another worker goes on with it then."""

    def leave(self, worker_id: str) -> None:
        """Say that the worker ends."""
