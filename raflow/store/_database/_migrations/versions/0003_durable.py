"""Leases of flow runs, requests, limits, kept values, and why attempts ended.

Revision: 0003
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0003"
down_revision: Final = "0002"

_NUMBER: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _flow_runs()
    _attempts()
    _run_leases()
    _run_processes()
    _run_requests()
    _input_requests()
    _limits()
    _slot_leases()
    _cache_entries()
    _cache_claims()


def _flow_runs() -> None:
    incarnation = sa.Column(
        "incarnation", sa.Integer(), nullable=False, server_default=sa.text("1")
    )
    for column in (incarnation, *_result("inputs")):
        op.add_column("flow_runs", column)
    op.create_index("ix_flow_runs_state", "flow_runs", ["state"])
    # Once, each retry of a flow was a run of its own.
    op.execute(sa.text("""UPDATE flow_runs SET "trigger" = 'manual' WHERE "trigger" = 'retry'"""))


def _attempts() -> None:
    op.add_column("attempts", sa.Column("cause", sa.Text(), nullable=True))
    op.add_column("attempts", sa.Column("signal", sa.Integer(), nullable=True))
    op.add_column("attempts", sa.Column("exit_code", sa.Integer(), nullable=True))
    op.add_column("attempts", sa.Column("cause_facts", sa.Text(), nullable=True))


def _run_leases() -> None:
    op.create_table(
        "run_leases",
        sa.Column("flow_run", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("incarnation", sa.Integer(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("process_started", sa.Double(), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.Column("renewed_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        _of_flow_run("run_leases"),
        sa.PrimaryKeyConstraint("flow_run", name="pk_run_leases"),
        sqlite_with_rowid=False,
    )


def _run_processes() -> None:
    op.create_table(
        "run_processes",
        sa.Column("flow_run", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("host", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("pid", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("started_at", sa.Double(), autoincrement=False, nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        _of_flow_run("run_processes"),
        sa.PrimaryKeyConstraint("flow_run", "host", "pid", "started_at", name="pk_run_processes"),
        sqlite_with_rowid=False,
    )


def _run_requests() -> None:
    op.create_table(
        "run_requests",
        sa.Column("number", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("flow_run", _NUMBER, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("asked_by", sa.Text(), nullable=False),
        sa.Column("asked_at", sa.Double(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        _of_flow_run("run_requests"),
        sa.PrimaryKeyConstraint("number", name="pk_run_requests"),
    )
    op.create_index("ix_run_requests_flow_run", "run_requests", ["flow_run"])


def _input_requests() -> None:
    op.create_table(
        "input_requests",
        sa.Column("flow_run", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("form", sa.Text(), nullable=False),
        sa.Column("asked_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("default_answer", sa.LargeBinary(), nullable=True),
        sa.Column("assignees", sa.Text(), nullable=False),
        sa.Column("answer", sa.LargeBinary(), nullable=True),
        sa.Column("answered_by", sa.Text(), nullable=False),
        sa.Column("answered_at", sa.Double(), nullable=True),
        _of_flow_run("input_requests"),
        sa.PrimaryKeyConstraint("flow_run", "number", name="pk_input_requests"),
        sqlite_with_rowid=False,
    )


def _limits() -> None:
    op.create_table(
        "limits",
        sa.Column("name", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("per_seconds", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_limits"),
    )


def _slot_leases() -> None:
    op.create_table(
        "slot_leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("ticket", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("flow_run_id", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("amount", sa.Integer(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("asked_at", sa.Double(), nullable=False),
        sa.Column("granted_at", sa.Double(), nullable=True),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["name"], ["limits.name"], name="fk_slot_leases_name_limits", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("name", "ticket", name="pk_slot_leases"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_slot_leases_holder", "slot_leases", ["holder"])
    op.create_index("ix_slot_leases_flow_run_id", "slot_leases", ["flow_run_id"])


def _cache_entries() -> None:
    op.create_table(
        "cache_entries",
        sa.Column("key", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("flow_run_id", sa.Text(), nullable=False),
        sa.Column("node", sa.Integer(), nullable=False),
        sa.Column("map_index", sa.Integer(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        *_result("result"),
        sa.PrimaryKeyConstraint("key", name="pk_cache_entries"),
    )
    op.create_index("ix_cache_entries_task_created_at", "cache_entries", ["task", "created_at"])
    op.create_index("ix_cache_entries_created_at", "cache_entries", ["created_at"])


def _cache_claims() -> None:
    op.create_table(
        "cache_claims",
        sa.Column("key", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("flow_run_id", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_cache_claims"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_cache_claims_holder", "cache_claims", ["holder"])
    op.create_index("ix_cache_claims_flow_run_id", "cache_claims", ["flow_run_id"])


def _of_flow_run(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["flow_run"],
        ["flow_runs.number"],
        name=f"fk_{table}_flow_run_flow_runs",
        ondelete="CASCADE",
    )


def _result(of: str) -> list[sa.Column[Any]]:
    return [
        sa.Column(f"{of}_type", sa.Text(), nullable=True),
        sa.Column(f"{of}_size", sa.BigInteger(), nullable=True),
        sa.Column(f"{of}_preview", sa.Text(), nullable=True),
        sa.Column(f"{of}_length", sa.BigInteger(), nullable=True),
        sa.Column(f"{of}_truth", sa.Boolean(), nullable=True),
        sa.Column(f"{of}_serializer", sa.Text(), nullable=True),
        sa.Column(f"{of}_inline", sa.LargeBinary(), nullable=True),
        sa.Column(f"{of}_url", sa.Text(), nullable=True),
        sa.Column(f"{of}_digest", sa.Text(), nullable=True),
    ]
