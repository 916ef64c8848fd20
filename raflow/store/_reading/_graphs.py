"""Reading the graph of a flow run from its blocks. Of records of a node the newest counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

import sqlalchemy as sa

from raflow import model
from raflow.store._reading import _queries
from raflow.store._record import _writes
from raflow.store._rows import _tables

_Tree: TypeAlias = Mapping[str, Mapping[int, tuple[str, str]]]
_blocks = _tables.graph_blocks


def graph(connection: sa.Connection, flow_run_id: str) -> model.FlowGraph:
    """Return the graph that a flow run recorded, with those of its subflows inside."""
    run = _queries.flow_run(connection, flow_run_id)
    return _graph_of(connection, run.flow, run.id, _descendants(connection, flow_run_id))


def own_nodes(connection: sa.Connection, flow_run_id: str) -> list[model.GraphNode]:
    """Return the nodes of a flow run, without those of its subflows, in the order of ids."""
    return _nodes_of(_blocks_of(connection, flow_run_id))


def own_edges(connection: sa.Connection, flow_run_id: str) -> list[model.Edge]:
    """Return the edges of a flow run, without those of its subflows, by target and source."""
    return _edges_of(_blocks_of(connection, flow_run_id))


def items(connection: sa.Connection, run: int) -> dict[int, range]:
    """Return the map indices of every node of the flow run with this number, by id."""
    found: dict[int, range] = {}
    for block in _read_blocks(connection, run):
        found.update(block.items())
    return found


def node(connection: sa.Connection, run: int, node_id: int) -> model.GraphNode | None:
    """Return a node of the flow run with this number; None if there is none with this id."""
    around = sa.and_(_blocks.c.first_node <= node_id, _blocks.c.last_node >= node_id)
    newest = None
    for block in _read_blocks(connection, run, around):
        if node_id in block.node_ids:
            newest = next(n for n in block.read_nodes() if n.id == node_id)
    return newest


def nodes(
    connection: sa.Connection,
    run: int,
    *,
    first: int,
    last: int | None,
    skip: Callable[[int, int], bool],
) -> Iterator[model.GraphNode]:
    """Yield the nodes of the flow run with this number in the order of ids.

    Blocks are read as the reader gets to them.

    Args:
        connection: Stays open while the nodes are read.
        run: Number of the flow run.
        first: Id at which to begin.
        last: Id at which to end; None: go on to the last node.
        skip: Whether the nodes from one id to another are of no interest.
    """
    query = (
        sa.select(_blocks.c.seq, _blocks.c.first_node, _blocks.c.last_node)
        .where(_blocks.c.flow_run == run, _blocks.c.last_node >= first)
        .order_by(_blocks.c.first_node, _blocks.c.seq)
    )
    if last is not None:
        query = query.where(_blocks.c.first_node <= last)
    found: dict[int, tuple[int, model.GraphNode]] = {}
    for seq, first_in_block, last_in_block in connection.execute(query).all():
        if skip(first_in_block, last_in_block):
            continue
        # Blocks to come hold nothing about the nodes before this one.
        yield from _taken(found, first_in_block - 1)
        for block in _read_blocks(connection, run, _blocks.c.seq == seq):
            for read in block.read_nodes():
                wanted = read.id >= first and (last is None or read.id <= last)
                if wanted and found.get(read.id, (-1,))[0] <= seq:
                    found[read.id] = seq, read
    yield from _taken(found, max(found, default=-1))


def _taken(found: dict[int, tuple[int, model.GraphNode]], last: int) -> Iterator[model.GraphNode]:
    for node_id in sorted(node_id for node_id in found if node_id <= last):
        yield found.pop(node_id)[1]


def _read_blocks(
    connection: sa.Connection, run: int, *conditions: sa.ColumnElement[bool]
) -> Iterator[model.GraphBlock]:
    query = sa.select(_blocks.c.content).where(_blocks.c.flow_run == run, *conditions)
    for content in connection.execute(query.order_by(_blocks.c.seq)).scalars():
        yield model.decode_graph(content)


def _blocks_of(connection: sa.Connection, flow_run_id: str) -> Iterator[model.GraphBlock]:
    run = _writes.flow_run_number(connection, flow_run_id)
    return _read_blocks(connection, -1 if run is None else run)


def _nodes_of(blocks: Iterable[model.GraphBlock]) -> list[model.GraphNode]:
    found = {node.id: node for block in blocks for node in block.read_nodes()}
    return [found[node_id] for node_id in sorted(found)]


def _edges_of(blocks: Iterable[model.GraphBlock]) -> list[model.Edge]:
    found = {_edge_key(edge): edge for block in blocks for edge in block.read_edges()}
    return [found[key] for key in sorted(found)]


def _graph_of(
    connection: sa.Connection, flow: str, flow_run_id: str, tree: _Tree
) -> model.FlowGraph:
    blocks = list(_blocks_of(connection, flow_run_id))
    # Not checked again: a run that is under way, or that died, still has its graph so far.
    return model.FlowGraph(
        flow=flow,
        nodes=tuple(_nodes_of(blocks)),
        edges=tuple(_edges_of(blocks)),
        subgraphs={
            node_id: _graph_of(connection, child_flow, child_id, tree)
            for node_id, (child_id, child_flow) in tree.get(flow_run_id, {}).items()
        },
    )


def _descendants(connection: sa.Connection, flow_run_id: str) -> _Tree:
    """Return id and flow of the newest child flow run of each node, by id of the parent."""
    runs = _tables.flow_runs
    columns = (runs.c.id, runs.c.flow, runs.c.parent_id, runs.c.parent_node, runs.c.created_at)
    below = sa.select(*columns).where(runs.c.parent_id == flow_run_id).cte("below", recursive=True)
    below = below.union(sa.select(*columns).where(runs.c.parent_id == below.c.id))
    tree: dict[str, dict[int, tuple[str, str]]] = defaultdict(dict)
    for child in connection.execute(sa.select(below).order_by(below.c.created_at, below.c.id)):
        if child.parent_node is not None:
            tree[child.parent_id][child.parent_node] = (child.id, child.flow)
    return tree


def _edge_key(edge: model.Edge) -> tuple[int, int, str, str, int, int]:
    source_item = -1 if edge.source_item is None else edge.source_item
    target_item = -1 if edge.target_item is None else edge.target_item
    return edge.target, edge.source, edge.kind.value, edge.parameter, source_item, target_item
