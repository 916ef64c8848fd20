"""A graph as a table: what each call waits for."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from raflow.cli import _console, _format
from raflow.model import Edge, EdgeKind, FlowGraph, GraphNode, NodeKind, StateType


def render(graph: FlowGraph, states: Mapping[int, str] | None = None) -> Table:
    """Return a table with a row for each node, those of subflows indented below theirs.

    Args:
        graph: The graph.
        states: State type by node id. Default: no states.
    """
    table = _console.table("Task", "Calls", "Needs", "At")
    _add(table, graph, dict(states or {}), depth=0)
    return table


def _add(table: Table, graph: FlowGraph, states: Mapping[int, str], depth: int) -> None:
    keys = {node.id: node.key for node in graph.nodes}
    needs: dict[int, list[Edge]] = {node.id: [] for node in graph.nodes}
    for edge in graph.edges:
        needs[edge.target].append(edge)
    for node in graph.nodes:
        key = Text("  " * depth)
        if node.id in states:
            key.append_text(_console.badge(StateType(states[node.id]))).append(" ")
        key.append(node.key)
        told = ", ".join(dict.fromkeys(_need(edge, keys) for edge in needs[node.id]))
        table.add_row(key, _calls(node), Text(told), Text(node.line, style="dim"))
        if node.id in graph.subgraphs:
            _add(table, graph.subgraphs[node.id], {}, depth + 1)


def _calls(node: GraphNode) -> str:
    if node.kind is NodeKind.SUBFLOW:
        return "subflow"
    if node.kind is NodeKind.TASK:
        return "1"
    return "map" if node.length is None else _format.count(node.length, "item")


def _need(edge: Edge, keys: Mapping[int, str]) -> str:
    source = keys[edge.source]
    if edge.source_item is not None:
        source += f"[{edge.source_item}]"
    if edge.kind is EdgeKind.ORDER:
        return f"after {source}"
    if edge.kind is EdgeKind.CONDITION:
        return f"if {source}"
    each = "each of " if edge.kind is EdgeKind.ITEM else ""
    return f"{edge.parameter} = {each}{source}" if edge.parameter else f"{each}{source}"
