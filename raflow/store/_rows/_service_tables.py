"""The tables of the service: what waits for workers, deployments, schedules, events, tokens.

Only what orders, hands out and shows runs of deployments reads them. Deployments and pools are
known by their names, which never change; flow runs by their number, as in the record.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from raflow.store._rows import _columns as col
from raflow.store._rows import _tables

_metadata: Final = _tables.metadata


def _of(column: str, parent: sa.Column[str], *, key: bool = False) -> sa.Column[str]:
    """Return a column with the name or id of what a row belongs to."""
    owner = sa.ForeignKey(parent, ondelete="CASCADE")
    return sa.Column(column, sa.Text(), owner, primary_key=key, nullable=False)


# --- Deployments ----------------------------------------------------------------------------------

deployments: Final = sa.Table(
    "deployments",
    _metadata,
    col.key("name", text=True),
    col.text("flow"),
    col.integer("version"),
    col.boolean("paused"),
    col.text("pool"),
    col.integer("priority"),
    col.integer("concurrency", nullable=True),
    col.integer("revision"),
    col.double("created_at"),
    col.double("updated_at"),
    col.double("deleted_at", nullable=True),
    sa.Index(None, "flow"),
    sa.Index(None, "pool"),
)
"""The row of one that was removed stays, so that the numbers of its versions are not used again."""

deployment_versions: Final = sa.Table(
    "deployment_versions",
    _metadata,
    _of("deployment", deployments.c.name, key=True),
    col.key("number"),
    col.text("spec"),
    col.text("schedules"),
    col.text("digest"),
    col.text("bundle"),
    col.text("flow"),
    col.text("fingerprint"),
    col.text("entrypoint"),
    col.text("parameter_schema"),
    col.text("python"),
    col.text("packages"),
    col.text("actor"),
    col.double("created_at"),
    col.text("note"),
    sa.Index(None, "deployment", "digest"),
)

bundles: Final = sa.Table(
    "bundles",
    _metadata,
    col.key("digest", text=True),
    col.big("size"),
    col.integer("files"),
    col.big("unpacked"),
    col.text("url"),
    col.binary("manifest", nullable=False),
    col.double("created_at"),
    col.double("last_used_at"),
)

# --- Schedules and backfills ----------------------------------------------------------------------

schedules: Final = sa.Table(
    "schedules",
    _metadata,
    col.key("id", text=True),
    _of("deployment", deployments.c.name),
    col.text("name"),
    col.integer("generation"),
    col.text("rule"),
    col.text("timezone"),
    col.text("policy"),
    col.text("parameters"),
    col.double("start_at", nullable=True),
    col.double("end_at", nullable=True),
    col.double("jitter"),
    col.boolean("active"),
    col.double("cursor"),
    col.double("next_at", nullable=True),
    col.text("error"),
    col.text("tzdata"),
    col.double("created_at"),
    col.double("updated_at"),
    sa.UniqueConstraint("deployment", "name"),
    sa.Index(None, "next_at"),
)
"""`next_at` is empty while a schedule is paused, or has no more slots."""

slots: Final = sa.Table(
    "slots",
    _metadata,
    _of("schedule_id", schedules.c.id, key=True),
    col.key("generation"),
    col.time_key("instant"),
    col.text("action"),
    col.text("reason"),
    col.text("flow_run_id", nullable=True),
    col.double("decided_at"),
    sa.Index(None, "flow_run_id"),
    sa.Index(None, "schedule_id", "instant"),
    sqlite_with_rowid=False,
)

backfills: Final = sa.Table(
    "backfills",
    _metadata,
    col.key("id", text=True),
    col.text("deployment"),
    col.text("schedule_id", nullable=True),
    col.double("since"),
    col.double("until"),
    col.text("state"),
    col.integer("concurrency"),
    col.text("reprocess"),
    col.boolean("backwards"),
    col.text("parameters"),
    col.double("cursor"),
    col.integer("total"),
    col.text("actor"),
    col.double("created_at"),
    col.double("ended_at", nullable=True),
    sa.Index(None, "state"),
    sa.Index(None, "deployment"),
)

backfill_slots: Final = sa.Table(
    "backfill_slots",
    _metadata,
    _of("backfill_id", backfills.c.id, key=True),
    col.time_key("instant"),
    col.text("flow_run_id", nullable=True),
    col.integer("attempt"),
    col.text("outcome"),
    sa.Index(None, "backfill_id", "outcome", "instant"),
    sqlite_with_rowid=False,
)

# --- What waits, and who takes it -----------------------------------------------------------------

pools: Final = sa.Table(
    "pools",
    _metadata,
    col.key("name", text=True),
    col.integer("concurrency", nullable=True),
    col.boolean("paused"),
    col.text("description"),
    col.text("kind"),
    col.double("created_at"),
)

workers: Final = sa.Table(
    "workers",
    _metadata,
    col.key("id", text=True),
    col.text("name"),
    col.text("pool"),
    col.text("host"),
    col.integer("pid"),
    col.text("versions"),
    col.text("ray_address"),
    col.double("started_at"),
    col.double("seen_at"),
    col.double("expires_at"),
    col.boolean("draining"),
    col.integer("runners"),
    col.integer("busy"),
    col.text("token_id"),
    sa.Index(None, "pool", "expires_at"),
)

dispatches: Final = _tables.of_flow_run(
    "dispatches",
    col.text("pool"),
    col.text("deployment"),
    col.text("schedule_id", nullable=True),
    col.text("backfill_id", nullable=True),
    col.text("stage"),
    col.text("kind"),
    col.integer("rank"),
    col.double("begins_at"),
    col.double("ordered_at"),
    col.boolean("late"),
    col.text("worker_id", nullable=True),
    col.text("claim", nullable=True),
    col.integer("refusals"),
    col.integer("resumes"),
    col.integer("max_resumes"),
    col.text("message"),
    col.text("choice", nullable=True),
    sa.Index(None, "pool", "stage", "rank", "begins_at", "flow_run"),
    sa.Index(None, "deployment", "stage"),
    sa.Index(None, "schedule_id", "stage", "begins_at"),
    sa.Index(None, "backfill_id", "stage"),
    sa.Index(None, "worker_id"),
    sa.Index(None, "stage", "late", "begins_at"),
)
"""Runs of deployments that are not over; nothing else, so that it stays small. `rank` is minus the
priority: the lowest comes first."""

idempotency: Final = sa.Table(
    "idempotency",
    _metadata,
    col.key("scope", text=True),
    col.key("key", text=True),
    col.binary("digest", nullable=False),
    col.text("object_id"),
    col.double("at"),
    sa.Index(None, "at"),
    sqlite_with_rowid=False,
)

# --- What is found and counted --------------------------------------------------------------------

run_tallies: Final = sa.Table(
    "run_tallies",
    _metadata,
    col.key("hour"),
    col.key("flow", text=True),
    col.key("deployment", text=True),
    col.key("state", text=True),
    col.key("stripe"),
    col.big("n"),
    sa.Index(None, "deployment", "state"),
    sa.Index(None, "flow", "state"),
    sqlite_with_rowid=False,
)
"""How many flow runs that were made in an hour are over, by how they ended. Several stripes count
together, so that writers need not wait for each other."""

run_tags: Final = sa.Table(
    "run_tags",
    _metadata,
    col.key("tag", text=True),
    col.time_key("created_at"),
    sa.Column(
        "flow_run",
        col.NUMBER,
        sa.ForeignKey(_tables.flow_runs.c.number, ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Index(None, "flow_run"),
    sqlite_with_rowid=False,
)

# --- What happened --------------------------------------------------------------------------------


def _event() -> list[sa.Column[object]]:
    return [
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("object", sa.Text(), nullable=False),
        sa.Column("flow_run_id", sa.Text(), nullable=True),
        sa.Column("flow", sa.Text(), nullable=True),
        sa.Column("deployment", sa.Text(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
    ]


events: Final = sa.Table(
    "events",
    _metadata,
    col.number("seq"),
    *_event(),
    sa.Index(None, "object", "seq"),
    sa.Index(None, "kind", "seq"),
    sa.Index(None, "at"),
)

outbox: Final = sa.Table("outbox", _metadata, col.number("id"), *_event())
"""Events that have no place in the order yet: on PostgreSQL they get it after their commit."""

# --- The service itself ---------------------------------------------------------------------------

tokens: Final = sa.Table(
    "tokens",
    _metadata,
    col.key("id", text=True),
    col.binary("digest", nullable=False),
    col.text("name"),
    col.text("role"),
    col.text("kind"),
    col.text("scope"),
    col.text("actor"),
    col.double("created_at"),
    col.double("expires_at", nullable=True),
    col.double("used_at", nullable=True),
    col.double("revoked_at", nullable=True),
    sa.Index(None, "kind", "scope"),
)

installation: Final = sa.Table(
    "installation", _metadata, col.key("key", text=True), col.text("value")
)
"""What the installation knows of itself."""
