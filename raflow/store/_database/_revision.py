"""At which revision a database is, and what it means if that is not the one the code needs."""

from __future__ import annotations

import sqlalchemy as sa

from raflow import errors
from raflow.store._peek import HEAD
from raflow.store._rows import _tables


def current(connection: sa.Connection) -> str | None:
    """Return the revision of a database; None if it holds no record yet."""
    if not sa.inspect(connection).has_table(_tables.version.name):
        return None
    return connection.execute(sa.select(_tables.version.c.version_num)).scalar()


def outdated(revision: str | None, shown: str) -> errors.StoreError:
    """Return the error for a database that was to be used as it is, and cannot."""
    if revision is None:
        return errors.StoreError(
            f"The database {shown!r} holds no record yet. `raflow db upgrade` makes it, and so "
            "does the first run of a flow."
        )
    return errors.StoreError(
        f"The database {shown!r} is at revision {revision!r}, and this raflow needs "
        f"{HEAD!r}. Bring it there with `raflow db upgrade`; if that refuses, a newer "
        "raflow made it."
    )


def newer(revision: str, shown: str) -> errors.StoreError:
    """Return the error for a database that a newer raflow has upgraded."""
    return errors.StoreError(
        f"The database {shown!r} is at revision {revision!r}, which this raflow does not know (it "
        f"needs {HEAD!r}): a newer raflow made it. Install that one, or choose another "
        "database with RAFLOW_DATABASE_URL."
    )
