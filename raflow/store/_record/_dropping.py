"""Dropping calls of a flow run, in whose place its body makes others now."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import sqlalchemy as sa

from raflow import model
from raflow.store._rows import _tables, _upserts

_ROWS: Final = (_tables.task_runs, _tables.attempts, _tables.states, _tables.log_segments)
_AT_A_TIME: Final = 500


def drop_calls(connection: sa.Connection, run: int, nodes: Collection[int]) -> None:
    """Remove all that is recorded of these nodes of the flow run with this number."""
    ids = sorted(nodes)
    for start in range(0, len(ids), _AT_A_TIME):
        part = ids[start : start + _AT_A_TIME]
        for table in _ROWS:
            own = (table.c.flow_run == run, table.c.node.in_(part))
            connection.execute(sa.delete(table).where(*own))
        _drop_from_blocks(connection, run, part)
        _drop_from_graph(connection, run, part)


def _drop_from_blocks(connection: sa.Connection, run: int, nodes: Sequence[int]) -> None:
    table, gone = _tables.task_run_blocks, frozenset(nodes)
    around = (
        table.c.flow_run == run,
        table.c.first_node <= nodes[-1],
        table.c.last_node >= nodes[0],
    )
    for number, content in connection.execute(
        sa.select(table.c.number, table.c.content).where(*around)
    ).all():
        block = model.decode_block(content)
        if gone.isdisjoint(chunk.node for chunk in block.chunks):
            continue
        left = model.block_without(block, gone)
        if left.size:
            _upserts.upsert(connection, table, [(run, *model.block_part_of(left))])
        else:
            own = (table.c.flow_run == run, table.c.number == number)
            connection.execute(sa.delete(table).where(*own))


def _drop_from_graph(connection: sa.Connection, run: int, nodes: Sequence[int]) -> None:
    # The edges of a node stand in the block of the node.
    table, gone = _tables.graph_blocks, frozenset(nodes)
    around = (
        table.c.flow_run == run,
        table.c.first_node <= nodes[-1],
        table.c.last_node >= nodes[0],
    )
    for seq, content in connection.execute(
        sa.select(table.c.seq, table.c.content).where(*around)
    ).all():
        block = model.decode_graph(content)
        if gone.isdisjoint(block.node_ids):
            continue
        own = (table.c.flow_run == run, table.c.seq == seq)
        left = [node for node in block.read_nodes() if node.id not in gone]
        edges = [edge for edge in block.read_edges() if edge.target not in gone]
        if left:
            ids = [node.id for node in left]
            row = (run, seq, min(ids), max(ids), model.encode_graph(left, edges))
            _upserts.upsert(connection, table, [row])
        else:
            connection.execute(sa.delete(table).where(*own))
