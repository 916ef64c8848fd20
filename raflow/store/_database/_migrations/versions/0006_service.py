"""What waits for workers, deployments, schedules, events and tokens; how many runs ended how.

Revision: 0006
"""

from __future__ import annotations

import json
from typing import Any, Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0006"
down_revision: Final = "0005"

_NUMBER: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_OVER: Final = (
    *("Completed", "Cached", "Recovered", "Failed", "TimedOut", "UpstreamFailed", "Crashed"),
    *("OutOfMemory", "Lost", "Cancelled", "RolledBack", "Skipped"),
)


def upgrade() -> None:
    _flow_runs()
    _deployments()
    _deployment_versions()
    _bundles()
    _schedules()
    _slots()
    _backfills()
    _backfill_slots()
    _pools()
    _workers()
    _dispatches()
    _idempotency()
    _run_tallies()
    _run_tags()
    _events()
    _outbox()
    _tokens()
    _installation()
    connection = op.get_bind()
    _count(connection)
    _list_tags(connection)


def _flow_runs() -> None:
    op.add_column("flow_runs", sa.Column("deployment", sa.Text(), nullable=True))
    op.add_column("flow_runs", sa.Column("deployment_version", sa.Integer(), nullable=True))
    op.add_column("flow_runs", sa.Column("bundle", sa.Text(), nullable=True))
    op.add_column("flow_runs", sa.Column("pool", sa.Text(), nullable=True))
    op.add_column("flow_runs", sa.Column("schedule_id", sa.Text(), nullable=True))
    op.add_column("flow_runs", sa.Column("slot", sa.Double(), nullable=True))
    op.add_column("flow_runs", sa.Column("backfill_id", sa.Text(), nullable=True))
    op.add_column("flow_runs", sa.Column("begins_at", sa.Double(), nullable=True))
    op.add_column("flow_runs", sa.Column("priority", sa.Integer(), nullable=True))
    op.add_column("flow_runs", sa.Column("actor", sa.Text(), nullable=True))
    op.add_column("flow_runs", sa.Column("traceparent", sa.Text(), nullable=True))
    op.drop_index("ix_flow_runs_state", table_name="flow_runs")
    op.create_index(
        "ix_flow_runs_backfill_id", "flow_runs", ["backfill_id"], **_some("backfill_id")
    )
    op.create_index(
        "ix_flow_runs_deployment_created_at_id",
        "flow_runs",
        ["deployment", "created_at", "id"],
        **_some("deployment"),
    )
    op.create_index(
        "ix_flow_runs_deployment_state_created_at_id",
        "flow_runs",
        ["deployment", "state", "created_at", "id"],
        **_some("deployment"),
    )
    op.create_index(
        "ix_flow_runs_flow_state_created_at_id", "flow_runs", ["flow", "state", "created_at", "id"]
    )
    op.create_index("ix_flow_runs_rerun_of", "flow_runs", ["rerun_of"], **_some("rerun_of"))
    op.create_index("ix_flow_runs_state_created_at_id", "flow_runs", ["state", "created_at", "id"])
    if op.get_bind().dialect.name == "postgresql":
        op.drop_index("ix_flow_runs_name", table_name="flow_runs")
        by_beginning = {"name": "text_pattern_ops"}
        op.create_index("ix_flow_runs_name", "flow_runs", ["name"], postgresql_ops=by_beginning)


def _some(column: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(f"{column} IS NOT NULL")}


def _deployments() -> None:
    op.create_table(
        "deployments",
        sa.Column("name", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("flow", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("deleted_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_deployments"),
    )
    op.create_index("ix_deployments_flow", "deployments", ["flow"])
    op.create_index("ix_deployments_pool", "deployments", ["pool"])


def _deployment_versions() -> None:
    op.create_table(
        "deployment_versions",
        sa.Column("deployment", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("schedules", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("bundle", sa.Text(), nullable=False),
        sa.Column("flow", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("entrypoint", sa.Text(), nullable=False),
        sa.Column("parameter_schema", sa.Text(), nullable=False),
        sa.Column("python", sa.Text(), nullable=False),
        sa.Column("packages", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["deployment"],
            ["deployments.name"],
            name="fk_deployment_versions_deployment_deployments",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("deployment", "number", name="pk_deployment_versions"),
    )
    op.create_index(
        "ix_deployment_versions_deployment_digest", "deployment_versions", ["deployment", "digest"]
    )


def _bundles() -> None:
    op.create_table(
        "bundles",
        sa.Column("digest", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("unpacked", sa.BigInteger(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("manifest", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("last_used_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_bundles"),
    )


def _schedules() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("deployment", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("parameters", sa.Text(), nullable=False),
        sa.Column("start_at", sa.Double(), nullable=True),
        sa.Column("end_at", sa.Double(), nullable=True),
        sa.Column("jitter", sa.Double(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("cursor", sa.Double(), nullable=False),
        sa.Column("next_at", sa.Double(), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("tzdata", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["deployment"],
            ["deployments.name"],
            name="fk_schedules_deployment_deployments",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_schedules"),
        sa.UniqueConstraint("deployment", "name", name="uq_schedules_deployment_name"),
    )
    op.create_index("ix_schedules_next_at", "schedules", ["next_at"])


def _slots() -> None:
    op.create_table(
        "slots",
        sa.Column("schedule_id", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("instant", sa.Double(), autoincrement=False, nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("flow_run_id", sa.Text(), nullable=True),
        sa.Column("decided_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["schedule_id"],
            ["schedules.id"],
            name="fk_slots_schedule_id_schedules",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("schedule_id", "generation", "instant", name="pk_slots"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_slots_flow_run_id", "slots", ["flow_run_id"])
    op.create_index("ix_slots_schedule_id_instant", "slots", ["schedule_id", "instant"])


def _backfills() -> None:
    op.create_table(
        "backfills",
        sa.Column("id", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("deployment", sa.Text(), nullable=False),
        sa.Column("schedule_id", sa.Text(), nullable=True),
        sa.Column("since", sa.Double(), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=False),
        sa.Column("reprocess", sa.Text(), nullable=False),
        sa.Column("backwards", sa.Boolean(), nullable=False),
        sa.Column("parameters", sa.Text(), nullable=False),
        sa.Column("cursor", sa.Double(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_backfills"),
    )
    op.create_index("ix_backfills_deployment", "backfills", ["deployment"])
    op.create_index("ix_backfills_state", "backfills", ["state"])


def _backfill_slots() -> None:
    op.create_table(
        "backfill_slots",
        sa.Column("backfill_id", sa.Text(), nullable=False),
        sa.Column("instant", sa.Double(), autoincrement=False, nullable=False),
        sa.Column("flow_run_id", sa.Text(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["backfill_id"],
            ["backfills.id"],
            name="fk_backfill_slots_backfill_id_backfills",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("backfill_id", "instant", name="pk_backfill_slots"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_backfill_slots_backfill_id_outcome_instant",
        "backfill_slots",
        ["backfill_id", "outcome", "instant"],
    )


def _pools() -> None:
    op.create_table(
        "pools",
        sa.Column("name", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=True),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_pools"),
    )


def _workers() -> None:
    op.create_table(
        "workers",
        sa.Column("id", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("versions", sa.Text(), nullable=False),
        sa.Column("ray_address", sa.Text(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("draining", sa.Boolean(), nullable=False),
        sa.Column("runners", sa.Integer(), nullable=False),
        sa.Column("busy", sa.Integer(), nullable=False),
        sa.Column("token_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
    )
    op.create_index("ix_workers_pool_expires_at", "workers", ["pool", "expires_at"])


def _dispatches() -> None:
    op.create_table(
        "dispatches",
        sa.Column("flow_run", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("deployment", sa.Text(), nullable=False),
        sa.Column("schedule_id", sa.Text(), nullable=True),
        sa.Column("backfill_id", sa.Text(), nullable=True),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("begins_at", sa.Double(), nullable=False),
        sa.Column("ordered_at", sa.Double(), nullable=False),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("worker_id", sa.Text(), nullable=True),
        sa.Column("claim", sa.Text(), nullable=True),
        sa.Column("refusals", sa.Integer(), nullable=False),
        sa.Column("resumes", sa.Integer(), nullable=False),
        sa.Column("max_resumes", sa.Integer(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("choice", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["flow_run"],
            ["flow_runs.number"],
            name="fk_dispatches_flow_run_flow_runs",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("flow_run", name="pk_dispatches"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_dispatches_backfill_id_stage", "dispatches", ["backfill_id", "stage"])
    op.create_index("ix_dispatches_deployment_stage", "dispatches", ["deployment", "stage"])
    op.create_index(
        "ix_dispatches_pool_stage_rank_begins_at_flow_run",
        "dispatches",
        ["pool", "stage", "rank", "begins_at", "flow_run"],
    )
    op.create_index(
        "ix_dispatches_schedule_id_stage_begins_at",
        "dispatches",
        ["schedule_id", "stage", "begins_at"],
    )
    op.create_index(
        "ix_dispatches_stage_late_begins_at", "dispatches", ["stage", "late", "begins_at"]
    )
    op.create_index("ix_dispatches_worker_id", "dispatches", ["worker_id"])


def _idempotency() -> None:
    op.create_table(
        "idempotency",
        sa.Column("scope", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("key", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "key", name="pk_idempotency"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_idempotency_at", "idempotency", ["at"])


def _run_tallies() -> None:
    op.create_table(
        "run_tallies",
        sa.Column("hour", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("flow", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("deployment", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("state", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("stripe", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "hour", "flow", "deployment", "state", "stripe", name="pk_run_tallies"
        ),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_run_tallies_deployment_state", "run_tallies", ["deployment", "state"])
    op.create_index("ix_run_tallies_flow_state", "run_tallies", ["flow", "state"])


def _run_tags() -> None:
    op.create_table(
        "run_tags",
        sa.Column("tag", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("created_at", sa.Double(), autoincrement=False, nullable=False),
        sa.Column("flow_run", _NUMBER, autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(
            ["flow_run"],
            ["flow_runs.number"],
            name="fk_run_tags_flow_run_flow_runs",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tag", "created_at", "flow_run", name="pk_run_tags"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_run_tags_flow_run", "run_tags", ["flow_run"])


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("seq", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("object", sa.Text(), nullable=False),
        sa.Column("flow_run_id", sa.Text(), nullable=True),
        sa.Column("flow", sa.Text(), nullable=True),
        sa.Column("deployment", sa.Text(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_events"),
    )
    op.create_index("ix_events_at", "events", ["at"])
    op.create_index("ix_events_kind_seq", "events", ["kind", "seq"])
    op.create_index("ix_events_object_seq", "events", ["object", "seq"])


def _outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("object", sa.Text(), nullable=False),
        sa.Column("flow_run_id", sa.Text(), nullable=True),
        sa.Column("flow", sa.Text(), nullable=True),
        sa.Column("deployment", sa.Text(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
    )


def _tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("used_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
    )
    op.create_index("ix_tokens_kind_scope", "tokens", ["kind", "scope"])


def _installation() -> None:
    op.create_table(
        "installation",
        sa.Column("key", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_installation"),
    )


def _count(connection: sa.Connection) -> None:
    """Count the flow runs that are over."""
    names = ("number", "created_at", "flow", "state")
    runs = sa.table("flow_runs", *(sa.column(name) for name in names)).c
    to = ("hour", "flow", "deployment", "state", "stripe", "n")
    tallies = sa.table("run_tallies", *(sa.column(name) for name in to))
    hour: sa.ColumnElement[Any] = runs.created_at / 3600.0
    stripe: sa.ColumnElement[Any] = sa.literal_column("0")
    if connection.dialect.name == "postgresql":
        hour, stripe = sa.func.floor(hour), runs.number % sa.literal_column("8")
    key: tuple[sa.ColumnElement[Any], ...] = (
        sa.cast(hour, sa.Integer()).label("hour"),
        runs.flow,
        sa.literal_column("''").label("deployment"),
        runs.state,
        sa.cast(stripe, sa.Integer()).label("stripe"),
    )
    query = sa.select(*key, sa.func.count()).where(runs.state.in_(_OVER))
    query = query.group_by(sa.text("1"), runs.flow, runs.state, sa.text("5"))
    connection.execute(sa.insert(tallies).from_select(to, query))


def _list_tags(connection: sa.Connection) -> None:
    """Note which flow runs have which tags. Not in SQL: PostgreSQL refuses some texts in JSON."""
    tagged = sa.text(
        "SELECT number, created_at, tags FROM flow_runs WHERE tags <> '[]' AND number > :last "
        "ORDER BY number LIMIT 1000"
    )
    insert = sa.text(
        "INSERT INTO run_tags (tag, created_at, flow_run) VALUES (:tag, :created_at, :flow_run)"
    )
    last = 0
    while rows := connection.execute(tagged, {"last": last}).all():
        last = rows[-1].number
        found = [
            {"tag": tag, "created_at": row.created_at, "flow_run": row.number}
            for row in rows
            for tag in sorted({_text(tag) for tag in json.loads(row.tags)})
        ]
        connection.execute(insert, found)


def _text(tag: str) -> str:
    return tag.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
