"""Keeping count of the flow runs that are over, in the transactions that end them.

Those that are not over are few, and counted when somebody asks.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import sqlalchemy as sa

from raflow import model

SECONDS: Final = 3600
DAY: Final = 24
"""Hours of a day: those of a whole one are counted together, too."""
EVER: Final = -(2**31)
"""Stands for an hour where all of them are counted together."""
_DAY_ZERO: Final = -(2**30)
"""Stands for an hour where the first day of the Unix epoch is counted; the others lie around it."""
_EARLIEST: Final = -(2**29)
"""No hour is before it, and no day behind it."""
_STRIPES: Final = 8
"""On PostgreSQL so many transactions can count the same at the same time."""

# As a text: the end of each short flow waits for it.
_ADD: Final = sa.text(
    "INSERT INTO run_tallies (hour, flow, deployment, state, stripe, n) "
    "VALUES (:hour, :flow, :deployment, :state, :stripe, :n) "
    "ON CONFLICT (hour, flow, deployment, state, stripe) "
    "DO UPDATE SET n = run_tallies.n + excluded.n"
)


def hour_of(connection: sa.Connection, column: sa.Column[float]) -> sa.ColumnElement[int]:
    """Return the hour of a time, for a query."""
    hours = column / float(SECONDS)
    # The one cuts off, the other rounds.
    whole = hours if connection.dialect.name == "sqlite" else sa.func.floor(hours)
    return sa.cast(whole, sa.Integer())


def is_hour(column: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    """Return the condition that a row counts a single hour."""
    return column >= _EARLIEST


def within(
    column: sa.ColumnElement[int], since: int | None, until: int | None
) -> sa.ColumnElement[bool]:
    """Return the condition for the rows that together count some hours once, and are few.

    Args:
        column: `hour` of the rows.
        since: The first hour. None: all from the beginning.
        until: The one behind the last. None: all there are.
    """
    if since is None and until is None:
        return column == EVER
    first_day = None if since is None else -(-since // DAY)
    last_day = None if until is None else until // DAY
    if first_day is not None and last_day is not None and first_day >= last_day:
        return sa.and_(column >= since, column < until)
    days = [column < _EARLIEST, column > EVER]
    edges = []
    if since is not None and first_day is not None:
        days.append(column >= _DAY_ZERO + first_day)
        edges.append(sa.and_(column >= since, column < first_day * DAY))
    if until is not None and last_day is not None:
        days.append(column < _DAY_ZERO + last_day)
        edges.append(sa.and_(column >= last_day * DAY, column < until))
    return sa.or_(sa.and_(*days), *edges)


def fill_together(connection: sa.Connection) -> None:
    """Count days, and all there is, by the hours."""
    for key in (f"{_DAY_ZERO} + {_DAY_OF[connection.dialect.name]}", str(EVER)):
        connection.exec_driver_sql(_TOGETHER.format(key=key, earliest=_EARLIEST))


# Rounded down, also before the Unix epoch, where division rounds up.
_DAY_OF: Final = {
    "sqlite": f"((hour - ((hour % {DAY} + {DAY}) % {DAY})) / {DAY})",
    "postgresql": f"((hour - ((hour %% {DAY} + {DAY}) %% {DAY})) / {DAY})",
}
_TOGETHER: Final = (
    "INSERT INTO run_tallies (hour, flow, deployment, state, stripe, n) "
    "SELECT {key}, flow, deployment, state, stripe, SUM(n) FROM run_tallies "
    "WHERE hour >= {earliest} GROUP BY 1, flow, deployment, state, stripe"
)


class Counted(NamedTuple):
    """What a flow run counts as."""

    created_at: float
    flow: str
    deployment: str
    """Empty: none."""
    state: model.StateName


def move(
    connection: sa.Connection, number: int, before: Counted | None, after: Counted | None
) -> None:
    """Count a flow run as something else, if it did or does count.

    Args:
        connection: One that writes, and keeps the flow run locked.
        number: Of the flow run.
        before: What it counted as; None: it was not recorded.
        after: What it is now.
    """
    if before == after:
        return
    stripe = 0 if connection.dialect.name == "sqlite" else number % _STRIPES
    rows = [
        {
            "hour": hour,
            "flow": counted.flow,
            "deployment": counted.deployment,
            "state": counted.state.value,
            "stripe": stripe,
            "n": change,
        }
        for counted, change in ((before, -1), (after, 1))
        if counted is not None and counted.state.type.is_final
        for hour in _levels(int(counted.created_at // SECONDS))
    ]
    # Sorted, so that two transactions never wait for each other's rows.
    if rows:
        connection.execute(_ADD, sorted(rows, key=repr))


def _levels(hour: int) -> tuple[int, int, int]:
    """Return where a run of an hour counts."""
    return hour, _DAY_ZERO + hour // DAY, EVER
