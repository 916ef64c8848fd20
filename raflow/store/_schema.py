"""The revision of a database as a whole: asking for it, and bringing it up to date."""

from __future__ import annotations

from typing import Final

from raflow.store import _engine, _revision, _tables

EXPECTED_REVISION: Final = _tables.HEAD
"""The revision that this code needs."""


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
    # Alembic takes longer to import than the rest of raflow and is hardly ever needed.
    from raflow.store import _migrate  # noqa: PLC0415

    return _migrate.upgrade(url)


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
