"""Deployments: names that point at one of their versions, and the bundles of these."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
import zstandard

from raflow import errors, model
from raflow.store._database import _clock
from raflow.store._deployments import _deployment_rows
from raflow.store._rows import _rows, _service_tables, _tables, _upserts, _values
from raflow.store._schedules import _schedules
from raflow.store._work import _orders, _returns

if TYPE_CHECKING:
    from raflow.store._database._engine import Database

_table = _service_tables.deployments
_versions = _service_tables.deployment_versions
_bundles = _service_tables.bundles
_dispatches = _service_tables.dispatches
_UNTAKEN: Final = (model.Stage.WAITING.value, model.Stage.HELD.value)


class Deployments:
    """Deployments and their versions. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- Reading ----------------------------------------------------------------------------------

    def get(self, name: str) -> model.Deployment:
        """Return a deployment.

        Raises:
            NotFoundError: There is none of that name; names the closest.
        """
        return self._database.read(lambda c: _read(c, _row(c, name)))

    def all(self, *, flow: str | None = None, pool: str | None = None) -> list[model.Deployment]:
        """Return the deployments, sorted by name.

        Args:
            flow: Only those of this flow.
            pool: Only those whose runs this pool takes.
        """
        return self._database.read(lambda c: _all(c, flow, pool))

    def version(self, name: str, number: int | None = None) -> model.DeploymentVersion:
        """Return a version of a deployment.

        Args:
            name: The deployment.
            number: Of the version. Default: the one that new runs use.

        Raises:
            NotFoundError: There is no such deployment or version.
        """
        return self._database.read(
            lambda c: _version(c, name, _row(c, name).version if number is None else number)
        )

    def versions(self, name: str) -> list[model.DeploymentVersion]:
        """Return the versions of a deployment, the newest first.

        Raises:
            NotFoundError: There is no deployment of that name.
        """

        def read(connection: sa.Connection) -> list[model.DeploymentVersion]:
            _row(connection, name)
            query = sa.select(_versions).where(_versions.c.deployment == name)
            rows = connection.execute(query.order_by(_versions.c.number.desc()))
            return [_deployment_rows.read_version(row) for row in rows]

        return self._database.read(read)

    def uses(self, name: str, version: model.DeploymentVersion) -> bool:
        """Whether a deployment uses just what this version says: putting it changes nothing."""
        digest = _deployment_rows.digest(version)

        def read(connection: sa.Connection) -> bool:
            query = sa.select(_versions.c.digest).join_from(
                _table,
                _versions,
                sa.and_(
                    _versions.c.deployment == _table.c.name, _versions.c.number == _table.c.version
                ),
            )
            query = query.where(_table.c.name == name, _table.c.deleted_at.is_(None))
            return connection.execute(query).scalar() == digest

        return self._database.read(read)

    def bundle(self, digest: str) -> model.Bundle | None:
        """Return what is known of a bundle; None if no version has used it."""
        return self._database.read(lambda c: _bundle(c, digest))

    # --- Writing ----------------------------------------------------------------------------------

    def put(
        self,
        name: str,
        version: model.DeploymentVersion,
        flow_version: model.FlowVersion,
        *,
        if_match: int | None = None,
    ) -> tuple[model.Deployment, bool]:
        """Have a deployment use this version: make the deployment, or the version, or neither.

        What equals the version that is in use changes nothing, whoever made that and when. A new
        version also sets pool, priority, concurrency and schedules to what it says.

        Args:
            name: The deployment.
            version: Its number, digest and time are given by the store.
            flow_version: The code, as runs of it will refer to it.
            if_match: The revision that this is a change of. Default: any.

        Returns:
            The deployment, and whether a version was made.

        Raises:
            BundleMissingError: Nobody has kept the bundle of the version.
            StaleError: The deployment has another revision.
        """
        return self._database.write(lambda c: _put(c, name, version, flow_version, if_match))

    def keep_bundle(self, bundle: model.Bundle) -> None:
        """Note that a bundle is in storage."""
        self._database.write(lambda c: _keep_bundle(c, bundle))

    def use(self, name: str, number: int, *, if_match: int | None = None) -> model.Deployment:
        """Have new runs of a deployment use one of its versions.

        Raises:
            NotFoundError: There is no such deployment or version.
            StaleError: The deployment has another revision.
        """

        def write(connection: sa.Connection) -> model.Deployment:
            row = _locked(connection, name, if_match)
            version = _version(connection, name, number)
            if row.version != number:
                _point(connection, name, version, row.revision + 1, actor="")
            return _read(connection, _row(connection, name))

        return self._database.write(write)

    def set_paused(
        self, name: str, paused: bool, *, if_match: int | None = None
    ) -> model.Deployment:
        """Let no run of a deployment begin, nor its schedules start any; or let them again.

        Runs that have begun go on.

        Raises:
            NotFoundError: There is none of that name.
            StaleError: The deployment has another revision.
        """

        def write(connection: sa.Connection) -> model.Deployment:
            row = _locked(connection, name, if_match)
            if row.paused is not paused:
                update = sa.update(_table).where(_table.c.name == name)
                now = _clock.now(connection)
                values = {"paused": paused, "revision": row.revision + 1, "updated_at": now}
                connection.execute(update.values(values))
            return _read(connection, _row(connection, name))

        return self._database.write(write)

    def remove(self, name: str, *, if_match: int | None = None) -> int:
        """Remove a deployment: runs that wait are cancelled, others go on.

        Its versions stay known to the runs that used them.

        Returns:
            How many runs were cancelled.

        Raises:
            NotFoundError: There is none of that name.
            StaleError: The deployment has another revision.
        """

        def write(connection: sa.Connection) -> int:
            revision = _locked(connection, name, if_match).revision
            now = _clock.now(connection)
            update = sa.update(_table).where(_table.c.name == name)
            # One of the same name that comes later is another wish.
            gone = {"deleted_at": now, "updated_at": now, "paused": False}
            connection.execute(update.values(revision=revision + 1, **gone))
            message = f"its deployment {name!r} was removed"
            waiting = _waiting(connection, name)
            return sum(_returns.cancel_waiting(connection, r, message=message) for r in waiting)

        return self._database.write(write)


# --- Reading --------------------------------------------------------------------------------------


def _all(connection: sa.Connection, flow: str | None, pool: str | None) -> list[model.Deployment]:
    query = sa.select(_table).where(_table.c.deleted_at.is_(None)).order_by(_table.c.name)
    if flow is not None:
        query = query.where(_table.c.flow == flow)
    if pool is not None:
        query = query.where(_table.c.pool == pool)
    rows = connection.execute(query).all()
    used = {(row.name, row.version) for row in rows}
    specs = _specs(connection, used)
    return [_deployment_rows.read_deployment(row, specs[row.name, row.version]) for row in rows]


def _specs(
    connection: sa.Connection, used: Iterable[tuple[str, int]]
) -> dict[tuple[str, int], model.DeploymentSpec]:
    key = sa.tuple_(_versions.c.deployment, _versions.c.number)
    query = sa.select(_versions.c.deployment, _versions.c.number, _versions.c.spec)
    rows = connection.execute(query.where(key.in_(sorted(used))))
    return {(name, number): _deployment_rows.read_spec(spec) for name, number, spec in rows}


def _row(connection: sa.Connection, name: str, *, lock: bool = False) -> sa.Row[Any]:
    query = sa.select(_table).where(_table.c.name == name, _table.c.deleted_at.is_(None))
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is None:
        living = sa.select(_table.c.name).where(_table.c.deleted_at.is_(None))
        known = connection.execute(living).scalars()
        raise errors.NotFoundError.of("deployment", name, known)
    return row


def _locked(connection: sa.Connection, name: str, if_match: int | None) -> sa.Row[Any]:
    """Return the row of a deployment, which nobody else changes until the transaction ends."""
    row = _row(connection, name, lock=True)
    _check_revision(row, if_match)
    return row


def _check_revision(row: sa.Row[Any], if_match: int | None) -> None:
    if if_match is not None and row.revision != if_match:
        raise errors.StaleError(
            f"Deployment {row.name!r} is at revision {row.revision}, not {if_match}: somebody has "
            "changed it meanwhile. Look at it again, then repeat your change.",
            revision=row.revision,
        )


def _version(connection: sa.Connection, name: str, number: int) -> model.DeploymentVersion:
    query = sa.select(_versions).where(_versions.c.deployment == name)
    row = connection.execute(query.where(_versions.c.number == number)).first()
    if row is None:
        newest = sa.select(sa.func.max(_versions.c.number)).where(_versions.c.deployment == name)
        last = connection.execute(newest).scalar_one()
        raise errors.NotFoundError(
            f"Deployment {name!r} has no version {number}: its versions are 1 to {last}."
        )
    return _deployment_rows.read_version(row)


def _read(connection: sa.Connection, row: sa.Row[Any]) -> model.Deployment:
    return _deployment_rows.read_deployment(row, _version(connection, row.name, row.version).spec)


def _bundle(connection: sa.Connection, digest: str) -> model.Bundle | None:
    row = connection.execute(sa.select(_bundles).where(_bundles.c.digest == digest)).first()
    if row is None:
        return None
    return model.Bundle(
        digest=row.digest,
        size=row.size,
        files=row.files,
        unpacked=row.unpacked,
        url=row.url,
        manifest=zstandard.decompress(bytes(row.manifest)),
    )


def _waiting(connection: sa.Connection, name: str) -> list[str]:
    """Return the ids of runs of a deployment that nobody has taken."""
    runs = _tables.flow_runs
    query = sa.select(runs.c.id).join_from(_dispatches, runs)
    query = query.where(_dispatches.c.deployment == name, _dispatches.c.stage.in_(_UNTAKEN))
    return list(connection.execute(query.order_by(_dispatches.c.flow_run)).scalars())


# --- Writing --------------------------------------------------------------------------------------


def _put(
    connection: sa.Connection,
    name: str,
    version: model.DeploymentVersion,
    flow_version: model.FlowVersion,
    if_match: int | None,
) -> tuple[model.Deployment, bool]:
    now = _clock.now(connection)
    row = _ensure(connection, name, version, now)
    living = row if row.version and row.deleted_at is None else None
    if living is not None:
        _check_revision(living, if_match)
    _use_bundle(connection, version.bundle, now)
    _keep_code(connection, flow_version)
    digest = _deployment_rows.digest(version)
    if living is not None and _version(connection, name, row.version).digest == digest:
        return _read(connection, living), False
    numbers = sa.select(sa.func.max(_versions.c.number)).where(_versions.c.deployment == name)
    number = (connection.execute(numbers).scalar_one() or 0) + 1
    made = dataclasses.replace(version, number=number, digest=digest, created_at=now)
    _upserts.upsert(connection, _versions, [_deployment_rows.version(name, made)])
    _orders.ensure_pools(connection, [version.spec.pool], now)
    _point(connection, name, made, row.revision + 1, actor=version.actor)
    return _read(connection, _row(connection, name)), True


def _ensure(
    connection: sa.Connection, name: str, version: model.DeploymentVersion, now: float
) -> sa.Row[Any]:
    """Return the row of a deployment, locked: a new one has version 0."""
    spec = version.spec
    flow, pool = _values.text(spec.flow), _values.text(spec.pool)
    new = (name, flow, 0, False, pool, spec.priority, spec.concurrency, 0, now, now, None)
    _upserts.insert_new(connection, _table, [new])
    query = sa.select(_table).where(_table.c.name == name).with_for_update()
    return connection.execute(query).one()


def _point(
    connection: sa.Connection,
    name: str,
    version: model.DeploymentVersion,
    revision: int,
    *,
    actor: str,
) -> None:
    """Have a deployment use a version, with all that it says."""
    spec = version.spec
    living = sa.select(_table.c.name).where(_table.c.name == name, _table.c.deleted_at.is_(None))
    # One that comes back after it was removed begins with what it says itself.
    is_there = connection.execute(living).first() is not None
    spared = _schedules.by_hand(connection, name) if is_there else set()
    update = sa.update(_table).where(_table.c.name == name)
    connection.execute(
        update.values(
            version=version.number,
            flow=_values.text(spec.flow),
            pool=_values.text(spec.pool),
            priority=spec.priority,
            concurrency=spec.concurrency,
            revision=revision,
            updated_at=_clock.now(connection),
            deleted_at=None,
        )
    )
    _schedules.put(connection, name, version.schedules, spared=spared, actor=actor)


def _keep_code(connection: sa.Connection, flow_version: model.FlowVersion) -> None:
    """Note what code there is: runs refer to it before anybody has run it."""
    flow = _values.text(flow_version.flow)
    _upserts.insert_new(connection, _tables.flows, [(flow,)])
    _upserts.insert_new(connection, _tables.flow_versions, [_rows.flow_version(flow_version)])


def _keep_bundle(connection: sa.Connection, bundle: model.Bundle) -> None:
    now = _clock.now(connection)
    manifest = zstandard.compress(bundle.manifest)
    sizes = (bundle.size, bundle.files, bundle.unpacked)
    row = (bundle.digest, *sizes, _values.text(bundle.url), manifest, now, now)
    _upserts.upsert(connection, _bundles, [row])


def _use_bundle(connection: sa.Connection, digest: str, now: float) -> None:
    update = sa.update(_bundles).where(_bundles.c.digest == digest)
    if not connection.execute(update.values(last_used_at=now)).rowcount:
        raise errors.BundleMissingError(
            f"Bundle {digest!r} is not there. Send it first, then deploy again.", digest=digest
        )
