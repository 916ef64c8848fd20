"""The first tables of the record.

Revision: 0001
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0001"
down_revision: Final = None

_NUMBER: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _flows()
    _flow_versions()
    _flow_runs()
    _nodes()
    _edges()
    _task_runs()
    _attempts()
    _states()
    _log_segments()
    _applied_batches()


def _flows() -> None:
    op.create_table(
        "flows",
        sa.Column("name", sa.Text(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_flows"),
    )


def _flow_versions() -> None:
    op.create_table(
        "flow_versions",
        sa.Column("flow", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("entrypoint", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("parameter_schema", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["flow"], ["flows.name"], name="fk_flow_versions_flow_flows"),
        sa.PrimaryKeyConstraint("flow", "fingerprint", name="pk_flow_versions"),
    )
    op.create_index("ix_flow_versions_fingerprint", "flow_versions", ["fingerprint"])


def _flow_runs() -> None:
    op.create_table(
        "flow_runs",
        sa.Column("number", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("flow", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("state_at", sa.Double(), nullable=False),
        sa.Column("state_message", sa.Text(), nullable=False),
        sa.Column("state_reason", sa.Text(), nullable=False),
        sa.Column("parameters", sa.Text(), nullable=False),
        sa.Column("trigger", sa.Text(), nullable=False),
        sa.Column("backend", sa.Text(), nullable=False),
        sa.Column("parent_id", sa.Text(), nullable=True),
        sa.Column("parent_node", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("versions", sa.Text(), nullable=False),
        sa.Column("error_type", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("error_traceback", sa.Text(), nullable=True),
        sa.Column("error_pickled", sa.LargeBinary(), nullable=True),
        sa.Column("result_type", sa.Text(), nullable=True),
        sa.Column("result_size", sa.BigInteger(), nullable=True),
        sa.Column("result_preview", sa.Text(), nullable=True),
        sa.Column("result_length", sa.BigInteger(), nullable=True),
        sa.Column("result_truth", sa.Boolean(), nullable=True),
        sa.Column("result_serializer", sa.Text(), nullable=True),
        sa.Column("result_inline", sa.LargeBinary(), nullable=True),
        sa.Column("result_url", sa.Text(), nullable=True),
        sa.Column("result_digest", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["flow"], ["flows.name"], name="fk_flow_runs_flow_flows"),
        sa.PrimaryKeyConstraint("number", name="pk_flow_runs"),
        sa.UniqueConstraint("id", name="uq_flow_runs_id"),
    )
    op.create_index("ix_flow_runs_created_at_id", "flow_runs", ["created_at", "id"])
    op.create_index("ix_flow_runs_flow_created_at_id", "flow_runs", ["flow", "created_at", "id"])
    op.create_index("ix_flow_runs_name", "flow_runs", ["name"])
    op.create_index("ix_flow_runs_parent_id", "flow_runs", ["parent_id"])


def _nodes() -> None:
    op.create_table(
        "nodes",
        sa.Column("flow_run", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("line", sa.Text(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=True),
        sa.Column("trigger_rule", sa.Text(), nullable=False),
        sa.Column("resources", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["flow_run"],
            ["flow_runs.number"],
            name="fk_nodes_flow_run_flow_runs",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("flow_run", "id", name="pk_nodes"),
        sqlite_with_rowid=False,
    )


def _edges() -> None:
    op.create_table(
        "edges",
        sa.Column("flow_run", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("target", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("source", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("parameter", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("source_item", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("target_item", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("allow_failure", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["flow_run"],
            ["flow_runs.number"],
            name="fk_edges_flow_run_flow_runs",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "flow_run",
            "target",
            "source",
            "kind",
            "parameter",
            "source_item",
            "target_item",
            name="pk_edges",
        ),
        sqlite_with_rowid=False,
    )


def _task_runs() -> None:
    op.create_table(
        "task_runs",
        sa.Column("flow_run", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("node", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("map_index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("state_at", sa.Double(), nullable=False),
        sa.Column("state_message", sa.Text(), nullable=False),
        sa.Column("state_reason", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("child_flow_run_id", sa.Text(), nullable=True),
        sa.Column("error_type", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("error_traceback", sa.Text(), nullable=True),
        sa.Column("error_pickled", sa.LargeBinary(), nullable=True),
        sa.Column("result_type", sa.Text(), nullable=True),
        sa.Column("result_size", sa.BigInteger(), nullable=True),
        sa.Column("result_preview", sa.Text(), nullable=True),
        sa.Column("result_length", sa.BigInteger(), nullable=True),
        sa.Column("result_truth", sa.Boolean(), nullable=True),
        sa.Column("result_serializer", sa.Text(), nullable=True),
        sa.Column("result_inline", sa.LargeBinary(), nullable=True),
        sa.Column("result_url", sa.Text(), nullable=True),
        sa.Column("result_digest", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["flow_run"],
            ["flow_runs.number"],
            name="fk_task_runs_flow_run_flow_runs",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("flow_run", "node", "map_index", name="pk_task_runs"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_task_runs_flow_run_state_node", "task_runs", ["flow_run", "state", "node"])


def _attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("flow_run", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("node", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("map_index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("submitted_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=False),
        sa.Column("cpu_seconds", sa.Double(), nullable=False),
        sa.Column("peak_memory", sa.BigInteger(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("error_type", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("error_traceback", sa.Text(), nullable=True),
        sa.Column("error_pickled", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["flow_run"],
            ["flow_runs.number"],
            name="fk_attempts_flow_run_flow_runs",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("flow_run", "node", "map_index", "number", name="pk_attempts"),
        sqlite_with_rowid=False,
    )


def _states() -> None:
    op.create_table(
        "states",
        sa.Column("flow_run", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("node", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("map_index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("state_at", sa.Double(), nullable=False),
        sa.Column("state_message", sa.Text(), nullable=False),
        sa.Column("state_reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["flow_run"],
            ["flow_runs.number"],
            name="fk_states_flow_run_flow_runs",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("flow_run", "node", "map_index", "number", name="pk_states"),
        sqlite_with_rowid=False,
    )


def _log_segments() -> None:
    op.create_table(
        "log_segments",
        sa.Column("flow_run", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("node", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("map_index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("length", sa.Integer(), nullable=False),
        sa.Column("lines", sa.Integer(), nullable=False),
        sa.Column("first_at", sa.Double(), nullable=False),
        sa.Column("last_at", sa.Double(), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["flow_run"],
            ["flow_runs.number"],
            name="fk_log_segments_flow_run_flow_runs",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("flow_run", "node", "map_index", "number", name="pk_log_segments"),
        sqlite_with_rowid=False,
    )


def _applied_batches() -> None:
    op.create_table(
        "applied_batches",
        sa.Column("flow_run_id", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("flow_run_id", "seq", name="pk_applied_batches"),
        sqlite_with_rowid=False,
    )
