"""The clock of leases: the database's own, so that hosts whose clocks differ agree."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final

import sqlalchemy as sa

# Not `now()`, which stands still for the length of a transaction.
_NOW: Final = sa.select(
    sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double).label("now")
)


def now(connection: sa.Connection) -> float:
    """Return the time: seconds since the Unix epoch. A database in a file has this machine's."""
    if connection.dialect.name == "sqlite":
        return time.time()
    return float(connection.execute(_NOW).scalar_one())


def time_of_day(at: float, now: float) -> str:
    """Return a time for people, with the date if that is another day."""
    local, today = (datetime.fromtimestamp(when, UTC).astimezone() for when in (at, now))
    return local.strftime("%H:%M:%S" if local.date() == today.date() else "%Y-%m-%d %H:%M:%S")
