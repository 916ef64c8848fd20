"""Bringing a database to the revision that this code needs."""

from __future__ import annotations

from importlib import resources
from typing import Final

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from raflow import errors
from raflow.store import _engine, _revision, _tables

# A number that no other program is likely to lock.
_ADVISORY_LOCK: Final = int.from_bytes(b"raflow")
_WAIT_SECONDS: Final = 60.0


def upgrade(url: str, *, to: str = "head") -> str | None:
    """Bring a database to the revision that this code needs; see `raflow.store.upgrade`."""
    database = _engine.Database.connect(
        url, create=True, wait_seconds=_WAIT_SECONDS, foreign_keys=False
    )
    try:
        return database.write(lambda connection: _upgrade(connection, database.shown, to))
    finally:
        database.close()


def _upgrade(connection: sa.Connection, shown: str, to: str) -> str | None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
    before = _revision.current(connection)
    if before == _tables.HEAD:
        return before
    with resources.as_file(resources.files("raflow.store") / "_migrations") as scripts:
        config = Config()
        config.set_main_option("script_location", str(scripts).replace("%", "%%"))
        if before is None:
            _refuse_foreign(connection, shown)
        else:
            _refuse_newer(config, before, shown)
        config.attributes["connection"] = connection
        command.upgrade(config, to)
    return before


def _refuse_newer(config: Config, revision: str, shown: str) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision not in known:
        raise _revision.newer(revision, shown)


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
