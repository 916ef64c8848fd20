"""Deployments: the code that runs under a name, its versions, and what is different in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from raflow import errors, model
from raflow.bundles import BundleStore, Limits, Manifest
from raflow.service import _forms
from raflow.service._diff import Change, FileChange, changes, file_changes
from raflow.service._signals import Signals
from raflow.store import Store

_PIECE: Final = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """What is different between two versions of a deployment."""

    before: int
    after: int
    settings: tuple[Change, ...]
    files: tuple[FileChange, ...]


class Deployments:
    """Deployments. Each method that takes a name raises `NotFoundError`, which names the closest.

    Those that take `if_match` raise `StaleError` if the deployment has another revision by now.
    """

    def __init__(self, store: Store, signals: Signals, actor: str, storage: str) -> None:
        self._store = store
        self._signals = signals
        self._actor = actor
        self._storage = storage

    # --- Looking ----------------------------------------------------------------------------------

    def all(self, *, flow: str | None = None, pool: str | None = None) -> list[model.Deployment]:
        """Return deployments, sorted by name."""
        return self._store.deployments.all(flow=flow, pool=pool)

    def get(self, name: str) -> model.Deployment:
        """Return a deployment."""
        return self._store.deployments.get(name)

    def version(self, name: str, number: int | None = None) -> model.DeploymentVersion:
        """Return a version of a deployment; by default the one that new runs use."""
        return self._store.deployments.version(name, number)

    def versions(self, name: str) -> list[model.DeploymentVersion]:
        """Return the versions of a deployment, the newest first."""
        return self._store.deployments.versions(name)

    def diff(self, name: str, *, before: int | None = None, after: int | None = None) -> Diff:
        """Return what is different between two versions.

        Args:
            name: The deployment.
            before: The earlier version. Default: the one before the later.
            after: The later version. Default: the one that new runs use.
        """
        new = self.version(name, after)
        old = self.version(name, before or max(1, new.number - 1))
        return Diff(
            before=old.number,
            after=new.number,
            settings=tuple(changes(old, new)),
            files=tuple(file_changes(self.manifest(old.bundle), self.manifest(new.bundle))),
        )

    # --- Code -------------------------------------------------------------------------------------

    def bundle(self, digest: str) -> model.Bundle:
        """Return what is known of a bundle.

        Raises:
            BundleMissingError: Nobody has kept it, or it is gone from storage.
        """
        found = self._store.deployments.bundle(digest)
        if found is None or not self._bundles().have(digest):
            raise errors.BundleMissingError(
                f"There is no bundle {digest!r}. Deploy again to put it there.", digest=digest
            )
        return found

    def has_bundle(self, digest: str) -> bool:
        """Whether a bundle is there, and on record."""
        known = self._store.deployments.bundle(digest)
        return known is not None and self._bundles().have(digest)

    def put_bundle(self, digest: str, chunks: Iterable[bytes]) -> None:
        """Keep the archive of a bundle; it is read and compared with its name, never unpacked.

        Raises:
            BundleError: The archive is damaged, or too large.
            BundleMismatchError: It is another bundle than that.
            BundleStorageError: Storage cannot be written.
        """
        self._store.deployments.keep_bundle(self._bundles().keep(digest, chunks))

    def archive(self, digest: str) -> Iterator[bytes]:
        """Return the archive of a bundle as it is stored, piece by piece.

        Raises:
            BundleMissingError: It is not there.
            BundleStorageError: Storage cannot be read.
        """
        with self._bundles().open(digest) as stored:
            while piece := stored.read(_PIECE):
                yield piece

    def manifest(self, digest: str) -> Manifest:
        """Return what is in a bundle that a version uses."""
        found = self._store.deployments.bundle(digest)
        assert found is not None, "every version has its bundle on record"
        return Manifest.parse(found.manifest, Limits())

    def _bundles(self) -> BundleStore:
        return BundleStore(self._storage)

    # --- Changing ---------------------------------------------------------------------------------

    def put(
        self,
        name: str,
        version: model.DeploymentVersion,
        code: model.FlowVersion,
        *,
        if_match: int | None = None,
    ) -> tuple[model.Deployment, bool]:
        """Have a deployment use a version; return it, and whether the version was made.

        Raises:
            DefinitionError: The name is none for a deployment, or the schema of its parameters is
                no schema.
            ParameterError: The flow does not take the parameters that it says.
            BundleMissingError: Nobody has kept its bundle.
        """
        model.check_deployment_name(name)
        _check(name, version)
        if not version.actor:
            version = dataclasses.replace(version, actor=self._actor)
        done = self._store.deployments.put(name, version, code, if_match=if_match)
        self._signals.wake("schedules", "feed")
        return done

    def use(self, name: str, number: int, *, if_match: int | None = None) -> model.Deployment:
        """Have new runs of a deployment use one of its versions."""
        return self._told(self._store.deployments.use(name, number, if_match=if_match))

    def pause(self, name: str) -> model.Deployment:
        """Let no run of a deployment begin, nor its schedules start any. What has begun goes on."""
        return self._told(self._store.deployments.set_paused(name, True))

    def resume(self, name: str) -> model.Deployment:
        """Let runs of a deployment begin again."""
        return self._told(self._store.deployments.set_paused(name, False))

    def remove(self, name: str, *, if_match: int | None = None) -> int:
        """Remove a deployment: runs that wait are cancelled, others go on; return how many were."""
        cancelled = self._store.deployments.remove(name, if_match=if_match)
        self._signals.wake("schedules", "feed")
        return cancelled

    def _told(self, deployment: model.Deployment) -> model.Deployment:
        self._signals.wake(f"pool:{deployment.spec.pool}", "schedules", "feed")
        return deployment


def _check(name: str, version: model.DeploymentVersion) -> None:
    """Refuse what could never run: a client of ours has looked at the flow, others may not."""
    schema: Mapping[str, Any] = version.parameter_schema
    if why := _forms.what_is_wrong_with(schema):
        raise errors.DefinitionError(
            f"The parameter schema of deployment {name!r} is no JSON Schema that can be used: {why}"
        )
    known = schema.get("properties", {})
    for given in (version.spec.parameters, *(one.parameters for one in version.schedules)):
        for parameter in given:
            if parameter not in known:
                raise errors.ParameterError(
                    f"Flow {version.spec.flow!r} of deployment {name!r} has no parameter "
                    f"{parameter!r}."
                )
