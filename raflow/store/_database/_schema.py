"""The revision of a database as a whole: asking for it, and bringing it up to date."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from raflow import errors
from raflow.store._database import _engine, _revision
from raflow.store._peek import HEAD
from raflow.store._rows import _tables

# A number that no other program is likely to lock.
_ADVISORY_LOCK: Final = int.from_bytes(b"raflow")
_WAIT_SECONDS: Final = 60.0


def upgrade(url: str) -> str | None:
    """Bring a database to the revision that this code needs; make an SQLite file if there is none.

    Several processes may do so at once: one works, the others wait for it.

    Args:
        url: The database.

    Returns:
        The revision that it was at before; None if it was empty.

    Raises:
        StoreError: The database cannot be reached or changed, belongs to something else, or was
            made by a newer raflow.
    """
    database = _engine.Database.connect(
        url, create=True, wait_seconds=_WAIT_SECONDS, foreign_keys=False
    )
    try:
        return database.write(lambda connection: _upgrade(connection, database.shown))
    finally:
        database.close()


def current_revision(url: str) -> str | None:
    """Return the revision that a database is at; None if it is empty.

    Args:
        url: The database.

    Raises:
        StoreError: The database does not exist or cannot be reached.
    """
    database = _engine.Database.connect(url, create=False)
    try:
        return database.read(_revision.current)
    finally:
        database.close()


def _upgrade(connection: sa.Connection, shown: str) -> str | None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
    before = _revision.current(connection)
    if before is None:
        _refuse_foreign(connection, shown)
        _make(connection)
    elif before != HEAD:
        # Alembic takes longer to import than the rest of raflow and is hardly ever needed.
        from raflow.store._database import _migrate  # noqa: PLC0415

        _migrate.migrate(connection, shown)
    return before


def _make(connection: sa.Connection) -> None:
    """Make what all migrations together would make."""
    # Known to the metadata from then on; only the service uses them.
    from raflow.store._rows import _service_tables  # noqa: F401, PLC0415

    if connection.dialect.name == "postgresql":
        _tables.prepare_for_postgres()
    _tables.metadata.create_all(connection, checkfirst=False)
    _tables.version.create(connection)
    connection.execute(sa.insert(_tables.version).values(version_num=HEAD))


def _refuse_foreign(connection: sa.Connection, shown: str) -> None:
    present = set(sa.inspect(connection).get_table_names())
    if connection.dialect.name != "sqlite":
        # A server's database may be shared, as long as the names of the tables differ.
        present &= set(_tables.metadata.tables)
    if present:
        raise errors.StoreError(
            f"The database {shown!r} already holds tables of something else "
            f"({', '.join(sorted(present)[:5])}). Choose another one with RAFLOW_DATABASE_URL."
        )
