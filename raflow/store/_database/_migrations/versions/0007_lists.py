"""Lists by pool, schedule, backfill and trigger are in order; days, and all runs, are counted.

Revision: 0007
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0007"
down_revision: Final = "0006"


def upgrade() -> None:
    op.drop_index("ix_flow_runs_backfill_id", table_name="flow_runs")
    for column in ("pool", "schedule_id", "backfill_id"):
        _index(column, sqlite_where=sa.text(f"{column} IS NOT NULL"))
    _index("trigger")
    _count_together()


def _index(column: str, **options: Any) -> None:
    name = f"ix_flow_runs_{column}_created_at_id"
    op.create_index(name, "flow_runs", [column, "created_at", "id"], **options)


def _count_together() -> None:
    """Count the runs that are over by days, and all of them, which stand for hours of their own."""
    hours = sa.text("SELECT DISTINCT hour FROM run_tallies")
    connection = op.get_bind()
    days = {hour // 24 for hour in connection.execute(hours).scalars()}
    for day in sorted(days):
        _sum({"key": -(2**30) + day, "since": day * 24, "until": day * 24 + 24})
    _sum({"key": -(2**31), "since": -(2**29), "until": 2**31 - 1})


def _sum(values: dict[str, int]) -> None:
    op.get_bind().execute(
        sa.text(
            "INSERT INTO run_tallies (hour, flow, deployment, state, stripe, n) "
            "SELECT :key, flow, deployment, state, stripe, SUM(n) FROM run_tallies "
            "WHERE hour >= :since AND hour < :until GROUP BY flow, deployment, state, stripe"
        ),
        values,
    )
