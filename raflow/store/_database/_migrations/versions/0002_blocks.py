"""Blocks of graphs and of task runs that completed, and what was learned about tasks.

Revision: 0002
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Final

import sqlalchemy as sa
import zstandard
from alembic import op

revision: Final = "0002"
down_revision: Final = "0001"

_NUMBER: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TO_A_BLOCK: Final = 10_000

_nodes: Final = sa.table(
    "nodes",
    sa.column("flow_run", _NUMBER),
    sa.column("id", sa.Integer()),
    sa.column("key", sa.Text()),
    sa.column("kind", sa.Text()),
    sa.column("name", sa.Text()),
    sa.column("label", sa.Text()),
    sa.column("line", sa.Text()),
    sa.column("length", sa.BigInteger()),
    sa.column("trigger_rule", sa.Text()),
    sa.column("resources", sa.Text()),
)
_edges: Final = sa.table(
    "edges",
    sa.column("flow_run", _NUMBER),
    sa.column("target", sa.Integer()),
    sa.column("source", sa.Integer()),
    sa.column("kind", sa.Text()),
    sa.column("parameter", sa.Text()),
    sa.column("source_item", sa.Integer()),
    sa.column("target_item", sa.Integer()),
    sa.column("allow_failure", sa.Boolean()),
)
_graph_blocks: Final = sa.table(
    "graph_blocks",
    sa.column("flow_run", _NUMBER),
    sa.column("seq", sa.Integer()),
    sa.column("first_node", sa.Integer()),
    sa.column("last_node", sa.Integer()),
    sa.column("content", sa.LargeBinary()),
)


def upgrade() -> None:
    _make_graph_blocks()
    _make_task_run_blocks()
    _make_task_paces()
    _convert()
    op.drop_table("edges")
    op.drop_table("nodes")


def _make_graph_blocks() -> None:
    op.create_table(
        "graph_blocks",
        sa.Column("flow_run", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("first_node", sa.Integer(), nullable=False),
        sa.Column("last_node", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["flow_run"],
            ["flow_runs.number"],
            name="fk_graph_blocks_flow_run_flow_runs",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("flow_run", "seq", name="pk_graph_blocks"),
    )


def _make_task_run_blocks() -> None:
    op.create_table(
        "task_run_blocks",
        sa.Column("flow_run", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("first_node", sa.Integer(), nullable=False),
        sa.Column("last_node", sa.Integer(), nullable=False),
        sa.Column("first_item", sa.Integer(), nullable=False),
        sa.Column("last_item", sa.Integer(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("spans", sa.LargeBinary(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["flow_run"],
            ["flow_runs.number"],
            name="fk_task_run_blocks_flow_run_flow_runs",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("flow_run", "number", name="pk_task_run_blocks"),
    )


def _make_task_paces() -> None:
    op.create_table(
        "task_paces",
        sa.Column("flow", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("task", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("bytes", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["flow"], ["flows.name"], name="fk_task_paces_flow_flows"),
        sa.PrimaryKeyConstraint("flow", "fingerprint", "task", name="pk_task_paces"),
        sqlite_with_rowid=False,
    )


def _convert() -> None:
    """Write the rows of nodes and edges as blocks, some thousands to a block."""
    nodes = sa.select(_nodes).order_by(_nodes.c.flow_run, _nodes.c.id)
    for run, seq, rows in _parts(nodes):
        ids = [row.id for row in rows]
        _insert(run, -2 * seq - 2, ids, {"nodes": _node_columns(rows), "edges": {"count": 0}})
    keys = (_edges.c.flow_run, _edges.c.target, _edges.c.source)
    for run, seq, rows in _parts(sa.select(_edges).order_by(*keys)):
        _insert(run, -2 * seq - 1, [-1], {"nodes": {"count": 0}, "edges": _edge_columns(rows)})


def _parts(query: sa.Select[Any]) -> Iterator[tuple[int, int, Sequence[sa.Row[Any]]]]:
    """Yield flow run, count and rows, for each flow run and some thousands of its rows."""
    result = op.get_bind().execute(query, execution_options={"yield_per": _TO_A_BLOCK})
    for run, its_rows in groupby(result, key=lambda row: row.flow_run):
        part: list[sa.Row[Any]] = []
        seq = 0
        for row in its_rows:
            part.append(row)
            if len(part) == _TO_A_BLOCK:
                yield run, seq, part
                part, seq = [], seq + 1
        if part:
            yield run, seq, part


def _insert(run: int, seq: int, ids: Sequence[int], tables: dict[str, object]) -> None:
    # Numbers below zero: batches of the run that are still to come count up from there.
    text = json.dumps({"version": 1, **tables}).encode()
    values = {
        "flow_run": run,
        "seq": seq,
        "first_node": min(ids),
        "last_node": max(ids),
        "content": zstandard.ZstdCompressor(level=1).compress(text),
    }
    op.get_bind().execute(sa.insert(_graph_blocks).values(values))


def _node_columns(rows: Sequence[sa.Row[Any]]) -> dict[str, object]:
    names = ("id", "key", "kind", "name", "label", "line", "length", "trigger_rule")
    resources = {row.resources: None for row in rows}
    numbers = {text: number for number, text in enumerate(resources)}
    return {
        "count": len(rows),
        **{name: [getattr(row, name) for row in rows] for name in names},
        "resources": {
            "of": [None if text is None else json.loads(text) for text in resources],
            "at": [numbers[row.resources] for row in rows],
        },
    }


def _edge_columns(rows: Sequence[sa.Row[Any]]) -> dict[str, object]:
    return {
        "count": len(rows),
        **{name: [getattr(row, name) for row in rows] for name in ("source", "target", "kind")},
        "parameter": [row.parameter for row in rows],
        "source_item": [None if row.source_item < 0 else row.source_item for row in rows],
        "target_item": [None if row.target_item < 0 else row.target_item for row in rows],
        "allow_failure": [bool(row.allow_failure) for row in rows],
    }
