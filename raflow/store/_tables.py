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

if TYPE_CHECKING:
    from sqlalchemy.schema import SchemaItem

HEAD: Final = "0002"
"""The revision that these tables are at."""

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

# SQLite gives out numbers only for a key that is declared INTEGER.
_NUMBER: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _key(name: str, *, text: bool = False) -> SchemaItem:
    kind = sa.Text() if text else sa.Integer()
    return sa.Column(name, kind, primary_key=True, autoincrement=False)


def _text(name: str, *, nullable: bool = False) -> SchemaItem:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _integer(name: str, *, nullable: bool = False) -> SchemaItem:
    return sa.Column(name, sa.Integer(), nullable=nullable)


def _big(name: str, *, nullable: bool = False) -> SchemaItem:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _double(name: str, *, nullable: bool = False) -> SchemaItem:
    return sa.Column(name, sa.Double(), nullable=nullable)


def _bytes(name: str, *, nullable: bool = True) -> SchemaItem:
    return sa.Column(name, sa.LargeBinary(), nullable=nullable)


def _state() -> list[SchemaItem]:
    return [_text("state"), _double("state_at"), _text("state_message"), _text("state_reason")]


def _error() -> list[SchemaItem]:
    return [
        _text("error_type", nullable=True),
        _text("error_message", nullable=True),
        _text("error_traceback", nullable=True),
        _bytes("error_pickled"),
    ]


def _result() -> list[SchemaItem]:
    return [
        _text("result_type", nullable=True),
        _big("result_size", nullable=True),
        _text("result_preview", nullable=True),
        _big("result_length", nullable=True),
        sa.Column("result_truth", sa.Boolean(), nullable=True),
        _text("result_serializer", nullable=True),
        _bytes("result_inline"),
        _text("result_url", nullable=True),
        _text("result_digest", nullable=True),
    ]


flows: Final = sa.Table("flows", metadata, _key("name", text=True))

flow_versions: Final = sa.Table(
    "flow_versions",
    metadata,
    sa.Column("flow", sa.Text(), sa.ForeignKey(flows.c.name), primary_key=True),
    _key("fingerprint", text=True),
    _text("version"),
    _text("description"),
    _text("entrypoint"),
    _text("source"),
    _text("parameter_schema"),
    _double("created_at"),
    sa.Index(None, "fingerprint"),
)

task_paces: Final = sa.Table(
    "task_paces",
    metadata,
    sa.Column("flow", sa.Text(), sa.ForeignKey(flows.c.name), primary_key=True),
    _key("fingerprint", text=True),
    _key("task", text=True),
    _double("seconds"),
    _double("bytes"),
    sqlite_with_rowid=False,
)

flow_runs: Final = sa.Table(
    "flow_runs",
    metadata,
    sa.Column("number", _NUMBER, primary_key=True, autoincrement=True),
    sa.Column("id", sa.Text(), nullable=False, unique=True),
    _integer("seq"),
    sa.Column("flow", sa.Text(), sa.ForeignKey(flows.c.name), nullable=False),
    _text("fingerprint"),
    _text("name"),
    *_state(),
    _text("parameters"),
    _text("trigger"),
    _text("backend"),
    _text("parent_id", nullable=True),
    _integer("parent_node", nullable=True),
    _double("created_at"),
    _double("started_at", nullable=True),
    _double("ended_at", nullable=True),
    _text("tags"),
    _text("host"),
    _integer("pid"),
    _text("versions"),
    *_error(),
    *_result(),
    sa.Index(None, "created_at", "id"),
    sa.Index(None, "flow", "created_at", "id"),
    sa.Index(None, "parent_id"),
    sa.Index(None, "name"),
)


def _of_flow_run(name: str, *items: SchemaItem, large: bool = False) -> sa.Table:
    """Return a table whose primary key begins with the flow run.

    SQLite keeps its rows in one tree, in the order of the key, instead of two; that is of use
    unless they are large.
    """
    owner = sa.Column(
        "flow_run",
        _NUMBER,
        sa.ForeignKey(flow_runs.c.number, ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )
    return sa.Table(name, metadata, owner, *items, sqlite_with_rowid=large)


graph_blocks: Final = _of_flow_run(
    "graph_blocks",
    _key("seq"),
    _integer("first_node"),
    _integer("last_node"),
    _bytes("content", nullable=False),
    large=True,
)

task_runs: Final = _of_flow_run(
    "task_runs",
    _key("node"),
    _key("map_index"),
    _integer("seq"),
    _text("task"),
    _text("label"),
    *_state(),
    _integer("attempts"),
    _double("created_at"),
    _double("started_at", nullable=True),
    _double("ended_at", nullable=True),
    _text("child_flow_run_id", nullable=True),
    *_error(),
    *_result(),
    sa.Index(None, "flow_run", "state", "node"),
)

task_run_blocks: Final = _of_flow_run(
    "task_run_blocks",
    _key("number"),
    _integer("first_node"),
    _integer("last_node"),
    _integer("first_item"),
    _integer("last_item"),
    _integer("size"),
    _bytes("spans", nullable=False),
    _bytes("content", nullable=False),
    large=True,
)

attempts: Final = _of_flow_run(
    "attempts",
    _key("node"),
    _key("map_index"),
    _key("number"),
    _text("outcome"),
    _double("submitted_at"),
    _double("started_at", nullable=True),
    _double("ended_at"),
    _double("cpu_seconds"),
    _big("peak_memory"),
    _integer("pid"),
    _text("host"),
    _text("node_id"),
    _text("message"),
    *_error(),
)

states: Final = _of_flow_run(
    "states",
    _key("node"),
    _key("map_index"),
    _key("number"),
    *_state(),
)

log_segments: Final = _of_flow_run(
    "log_segments",
    _key("node"),
    _key("map_index"),
    _key("number"),
    _integer("attempt"),
    _text("file"),
    _big("offset"),
    _integer("length"),
    _integer("lines"),
    _double("first_at"),
    _double("last_at"),
    _integer("level"),
)

applied_batches: Final = sa.Table(
    "applied_batches",
    metadata,
    _key("flow_run_id", text=True),
    _key("seq"),
    sqlite_with_rowid=False,
)
