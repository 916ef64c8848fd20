"""The service is the database of this machine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from raflow.bundles import BundleStore
from raflow.model import Deployment, DeploymentVersion, FlowVersion

if TYPE_CHECKING:
    from raflow.store import Store


class LocalDeploys:
    """Takes deployments straight into a database, and their code into storage."""

    def __init__(self, store: Store, storage: str) -> None:
        """Use a store.

        Args:
            store: The database.
            storage: fsspec URL, or path, of the bundles.
        """
        self._store = store
        self._bundles = BundleStore(storage)

    def has_bundle(self, digest: str) -> bool:
        """Whether the code of that name is there, and on record."""
        known = self._store.deployments.bundle(digest)
        return known is not None and self._bundles.have(digest)

    def put_bundle(self, digest: str, chunks: Iterable[bytes]) -> None:
        """Keep the archive of a bundle."""
        self._store.deployments.keep_bundle(self._bundles.keep(digest, chunks))

    def put(
        self, name: str, version: DeploymentVersion, code: FlowVersion
    ) -> tuple[Deployment, bool]:
        """Have a deployment use a version; return whether it was made."""
        return self._store.deployments.put(name, version, code)
