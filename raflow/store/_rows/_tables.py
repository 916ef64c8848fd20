"""The tables of the record, the same on SQLite and PostgreSQL.

Rows that belong to a flow run carry its `number`, not its id, and their primary keys begin with
it, so that they are small and stand together. What there is very much of, nodes and edges and the
task runs that simply completed, stands in blocks of many to a row. Times are seconds since the Unix
epoch in double precision, as in the records: they come back exactly as they were. A node and map
index of -1 mean the flow run itself. JSON is text, which both databases can look into, except
inside blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from raflow.store._rows import _columns as col

if TYPE_CHECKING:
    from sqlalchemy.schema import SchemaItem

version: Final = sa.Table(
    "raflow_version",
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="raflow_version_pkc"),
)
"""Where a database keeps its revision, as Alembic would make it; not by Alembic's default name,
which another program might use."""

metadata: Final = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _state() -> list[SchemaItem]:
    return [
        col.text("state"),
        col.double("state_at"),
        col.text("state_message"),
        col.text("state_reason"),
    ]


def _error() -> list[SchemaItem]:
    return [
        col.text("error_type", nullable=True),
        col.text("error_message", nullable=True),
        col.text("error_traceback", nullable=True),
        col.binary("error_pickled"),
    ]


def _result(of: str = "result") -> list[SchemaItem]:
    return [
        col.text(f"{of}_type", nullable=True),
        col.big(f"{of}_size", nullable=True),
        col.text(f"{of}_preview", nullable=True),
        col.big(f"{of}_length", nullable=True),
        col.boolean(f"{of}_truth", nullable=True),
        col.text(f"{of}_serializer", nullable=True),
        col.binary(f"{of}_inline"),
        col.text(f"{of}_url", nullable=True),
        col.text(f"{of}_digest", nullable=True),
    ]


def _of_deployment() -> list[SchemaItem]:
    """Return the columns that a run of a deployment has from its order; its records have none."""
    columns = [
        col.text("deployment", nullable=True),
        col.integer("deployment_version", nullable=True),
        col.text("bundle", nullable=True),
        col.text("pool", nullable=True),
        col.text("schedule_id", nullable=True),
        col.double("slot", nullable=True),
        col.text("backfill_id", nullable=True),
        col.double("begins_at", nullable=True),
        col.integer("priority", nullable=True),
        col.text("actor", nullable=True),
        col.text("traceparent", nullable=True),
    ]
    for column in columns:
        column.info["kept"] = True
    return columns


_BY_FEW: Final = (
    ("deployment", "created_at", "id"),
    ("deployment", "state", "created_at", "id"),
    ("pool", "created_at", "id"),
    ("schedule_id", "created_at", "id"),
    ("backfill_id", "created_at", "id"),
    ("rerun_of",),
)
"""What flow runs are found by that most of them do not have."""


def _index_of_some(*columns: str) -> sa.Index:
    # Not said of PostgreSQL, whose dialect would be loaded for that.
    return sa.Index(None, *columns, sqlite_where=sa.text(f"{columns[0]} IS NOT NULL"))


flows: Final = sa.Table("flows", metadata, col.key("name", text=True))

flow_versions: Final = sa.Table(
    "flow_versions",
    metadata,
    sa.Column("flow", sa.Text(), sa.ForeignKey(flows.c.name), primary_key=True),
    col.key("fingerprint", text=True),
    col.text("version"),
    col.text("description"),
    col.text("entrypoint"),
    col.text("source"),
    col.text("parameter_schema"),
    col.double("created_at"),
    sa.Index(None, "fingerprint"),
)

task_paces: Final = sa.Table(
    "task_paces",
    metadata,
    sa.Column("flow", sa.Text(), sa.ForeignKey(flows.c.name), primary_key=True),
    col.key("fingerprint", text=True),
    col.key("task", text=True),
    col.double("seconds"),
    col.double("bytes"),
    sqlite_with_rowid=False,
)

flow_runs: Final = sa.Table(
    "flow_runs",
    metadata,
    col.number("number"),
    sa.Column("id", sa.Text(), nullable=False, unique=True),
    col.integer("seq"),
    sa.Column("flow", sa.Text(), sa.ForeignKey(flows.c.name), nullable=False),
    col.text("fingerprint"),
    col.text("name"),
    *_state(),
    col.text("parameters"),
    col.text("trigger"),
    col.text("backend"),
    col.text("parent_id", nullable=True),
    col.integer("parent_node", nullable=True),
    col.double("created_at"),
    col.double("started_at", nullable=True),
    col.double("ended_at", nullable=True),
    col.text("tags"),
    col.text("host"),
    col.integer("pid"),
    col.text("versions"),
    *_error(),
    *_result(),
    sa.Column("incarnation", sa.Integer(), nullable=False, server_default=sa.text("1")),
    *_result("inputs"),
    col.text("rerun_of", nullable=True),
    col.text("rerun_from", nullable=True),
    *_of_deployment(),
    sa.Index(None, "created_at", "id"),
    sa.Index(None, "flow", "created_at", "id"),
    sa.Index(None, "state", "created_at", "id"),
    sa.Index(None, "flow", "state", "created_at", "id"),
    sa.Index(None, "trigger", "created_at", "id"),
    sa.Index(None, "parent_id"),
    sa.Index("ix_flow_runs_name", "name"),
    *(_index_of_some(*columns) for columns in _BY_FEW),
)


def prepare_for_postgres() -> None:
    """Have names found by how they begin, in whatever order the server sorts texts."""
    [by_name] = [index for index in flow_runs.indexes if index.name == "ix_flow_runs_name"]
    by_name.dialect_options["postgresql"]["ops"] = {"name": "text_pattern_ops"}


def of_flow_run(name: str, *items: SchemaItem, large: bool = False) -> sa.Table:
    """Return a table whose primary key begins with the flow run.

    SQLite keeps its rows in one tree, in the order of the key, instead of two; that is of use
    unless they are large.
    """
    owner = sa.Column(
        "flow_run",
        col.NUMBER,
        sa.ForeignKey(flow_runs.c.number, ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )
    return sa.Table(name, metadata, owner, *items, sqlite_with_rowid=large)


graph_blocks: Final = of_flow_run(
    "graph_blocks",
    col.key("seq"),
    col.integer("first_node"),
    col.integer("last_node"),
    col.binary("content", nullable=False),
    large=True,
)

task_runs: Final = of_flow_run(
    "task_runs",
    col.key("node"),
    col.key("map_index"),
    col.integer("seq"),
    col.text("task"),
    col.text("label"),
    *_state(),
    col.integer("attempts"),
    col.double("created_at"),
    col.double("started_at", nullable=True),
    col.double("ended_at", nullable=True),
    col.text("child_flow_run_id", nullable=True),
    *_error(),
    *_result(),
    sa.Index(None, "flow_run", "state", "node"),
)

task_run_blocks: Final = of_flow_run(
    "task_run_blocks",
    col.key("number"),
    col.integer("first_node"),
    col.integer("last_node"),
    col.integer("first_item"),
    col.integer("last_item"),
    col.integer("size"),
    col.binary("spans", nullable=False),
    col.binary("content", nullable=False),
    large=True,
)

attempts: Final = of_flow_run(
    "attempts",
    col.key("node"),
    col.key("map_index"),
    col.key("number"),
    col.text("outcome"),
    col.double("submitted_at"),
    col.double("started_at", nullable=True),
    col.double("ended_at"),
    col.double("cpu_seconds"),
    col.big("peak_memory"),
    col.integer("pid"),
    col.text("host"),
    col.text("node_id"),
    col.text("message"),
    *_error(),
    col.text("cause", nullable=True),
    col.integer("signal", nullable=True),
    col.integer("exit_code", nullable=True),
    col.text("cause_facts", nullable=True),
    col.big("memory", nullable=True),
)

states: Final = of_flow_run(
    "states",
    col.key("node"),
    col.key("map_index"),
    col.key("number"),
    *_state(),
)

log_segments: Final = of_flow_run(
    "log_segments",
    col.key("node"),
    col.key("map_index"),
    col.key("number"),
    col.integer("attempt"),
    col.text("file"),
    col.big("offset"),
    col.integer("length"),
    col.integer("lines"),
    col.double("first_at"),
    col.double("last_at"),
    col.integer("level"),
)

applied_batches: Final = sa.Table(
    "applied_batches",
    metadata,
    col.key("flow_run_id", text=True),
    col.key("seq"),
    sqlite_with_rowid=False,
)

# --- Who drives a flow run, and what others ask of it ---------------------------------------------

run_leases: Final = of_flow_run(
    "run_leases",
    col.integer("incarnation"),
    col.text("host"),
    col.integer("pid"),
    col.double("process_started"),
    col.double("since"),
    col.double("renewed_at"),
    col.double("expires_at"),
    col.text("token"),
)

run_processes: Final = of_flow_run(
    "run_processes",
    col.key("host", text=True),
    col.key("pid"),
    col.time_key("started_at"),
    col.text("role"),
)

run_requests: Final = sa.Table(
    "run_requests",
    metadata,
    col.number("number"),
    sa.Column(
        "flow_run",
        col.NUMBER,
        sa.ForeignKey(flow_runs.c.number, ondelete="CASCADE"),
        nullable=False,
    ),
    col.text("kind"),
    col.text("asked_by"),
    col.double("asked_at"),
    col.text("message"),
    col.text("outcome"),
    sa.Index(None, "flow_run"),
)

input_requests: Final = of_flow_run(
    "input_requests",
    col.key("number"),
    col.text("title"),
    col.text("form"),
    col.double("asked_at"),
    col.double("expires_at", nullable=True),
    col.binary("default_answer"),
    col.text("assignees"),
    col.binary("answer"),
    col.text("answered_by"),
    col.double("answered_at", nullable=True),
)

# --- What flow runs share -------------------------------------------------------------------------

limits: Final = sa.Table(
    "limits", metadata, col.key("name", text=True), col.integer("slots"), col.double("per_seconds")
)

slot_leases: Final = sa.Table(
    "slot_leases",
    metadata,
    sa.Column(
        "name", sa.Text(), sa.ForeignKey(limits.c.name, ondelete="CASCADE"), primary_key=True
    ),
    col.key("ticket"),
    col.text("holder"),
    col.text("flow_run_id"),
    col.text("label"),
    col.integer("amount"),
    col.integer("priority"),
    col.double("asked_at"),
    col.double("granted_at", nullable=True),
    col.double("expires_at"),
    sa.Index(None, "holder"),
    sa.Index(None, "flow_run_id"),
    sqlite_with_rowid=False,
)
"""Slots that somebody holds, or waits for (`granted_at` is empty). Of a rate, what was handed out
counts for its time, also when it is nobody's any more (`holder` is empty)."""

cache_entries: Final = sa.Table(
    "cache_entries",
    metadata,
    col.key("key", text=True),
    col.text("flow_run_id"),
    col.integer("node"),
    col.integer("map_index"),
    col.text("task"),
    col.double("created_at"),
    col.double("expires_at", nullable=True),
    *_result(),
    sa.Index(None, "task", "created_at"),
    sa.Index(None, "created_at"),
)

cache_claims: Final = sa.Table(
    "cache_claims",
    metadata,
    col.key("key", text=True),
    col.text("holder"),
    col.text("flow_run_id"),
    col.text("label"),
    col.double("since"),
    col.double("expires_at"),
    sa.Index(None, "holder"),
    sa.Index(None, "flow_run_id"),
    sqlite_with_rowid=False,
)
