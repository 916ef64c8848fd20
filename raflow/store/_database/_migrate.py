"""Bringing an older database to the revision that this code needs, step by step."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from raflow.store._database import _revision

if TYPE_CHECKING:
    import sqlalchemy as sa


def migrate(connection: sa.Connection, shown: str, *, to: str = "head") -> None:
    """Apply the migrations that come after the revision of a database, in its transaction.

    Args:
        connection: A connection that writes.
        shown: URL of the database for messages.
        to: The revision to stop at. Default: the last one.

    Raises:
        StoreError: The database was made by a newer raflow.
    """
    with resources.as_file(resources.files("raflow.store._database") / "_migrations") as scripts:
        config = Config()
        config.set_main_option("script_location", str(scripts).replace("%", "%%"))
        before = _revision.current(connection)
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if before is not None and before not in known:
            raise _revision.newer(before, shown)
        config.attributes["connection"] = connection
        command.upgrade(config, to)
