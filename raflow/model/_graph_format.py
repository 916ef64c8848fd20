"""The forms of a graph outside Python: JSON, Mermaid, Graphviz."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final, NamedTuple, Protocol

from raflow.model._graph_parts import Edge, EdgeKind, GraphNode, NodeKind, StopPoint
from raflow.model._options import TriggerRule
from raflow.model._palette import PALETTE
from raflow.model._resources import Resources
from raflow.model._state import StateType


class Graph(Protocol):
    """A `FlowGraph`, as far as its forms are concerned."""

    @property
    def flow(self) -> str: ...
    @property
    def nodes(self) -> tuple[GraphNode, ...]: ...
    @property
    def edges(self) -> tuple[Edge, ...]: ...
    @property
    def subgraphs(self) -> Mapping[int, Graph]: ...
    @property
    def stopped_at(self) -> StopPoint | None: ...


def to_dict(graph: Graph) -> dict[str, Any]:
    """Return the graph as JSON-ready data."""
    return {
        "flow": graph.flow,
        "nodes": [_node_to_dict(node) for node in graph.nodes],
        "edges": [edge._asdict() | {"kind": edge.kind.value} for edge in graph.edges],
        "subgraphs": {str(node): to_dict(sub) for node, sub in graph.subgraphs.items()},
        "stopped_at": asdict(graph.stopped_at) if graph.stopped_at else None,
    }


def to_json(graph: Graph) -> str:
    """Return the graph as JSON text."""
    return json.dumps(to_dict(graph), indent=2)


def _node_to_dict(node: GraphNode) -> dict[str, Any]:
    resources = node.resources and {
        **asdict(node.resources),
        "custom": dict(node.resources.custom),
        "label_selector": dict(node.resources.label_selector),
        "scheduling_strategy": node.resources.scheduling_strategy
        and str(node.resources.scheduling_strategy),
    }
    kinds = {"kind": node.kind.value, "trigger_rule": node.trigger_rule.value}
    shown = node._asdict() | kinds | {"resources": resources}
    del shown["created_at"]  # a graph is the same whenever it was drawn
    return shown


def node_from_dict(data: Mapping[str, Any]) -> GraphNode:
    """Read a node that `to_dict` wrote; raises `KeyError` and the like if it did not."""
    resources = data["resources"] and Resources(
        **{
            **data["resources"],
            "custom": tuple(data["resources"]["custom"].items()),
            "label_selector": tuple(data["resources"]["label_selector"].items()),
        }
    )
    kinds = {"kind": NodeKind(data["kind"]), "trigger_rule": TriggerRule(data["trigger_rule"])}
    return GraphNode(**{**data, **kinds, "resources": resources})


def edge_from_dict(data: Mapping[str, Any]) -> Edge:
    """Read an edge that `to_dict` wrote; raises `KeyError` and the like if it did not."""
    return Edge(**{**data, "kind": EdgeKind(data["kind"])})


class _Line(NamedTuple):
    """An edge as it is drawn: edges of single items between the same two nodes are one line."""

    source: int
    target: int
    dotted: bool
    label: str


def _lines(graph: Graph) -> Iterable[_Line]:
    return dict.fromkeys(_line(edge) for edge in graph.edges)


def _line(edge: Edge) -> _Line:
    dotted = edge.kind in {EdgeKind.ORDER, EdgeKind.CONDITION}
    label = "if" if edge.kind is EdgeKind.CONDITION else edge.parameter
    return _Line(edge.source, edge.target, dotted, label)


def _caption(node: GraphNode) -> str:
    caption = node.label or node.key
    if node.kind is not NodeKind.MAP:
        return caption
    known = "?" if node.length is None else node.length
    return f"{caption} ({known} item{'s' * (known != 1)})"


# --- Mermaid --------------------------------------------------------------------------------------

_MERMAID_SHAPES: Final = {
    NodeKind.TASK: ("[", "]"),
    NodeKind.MAP: ("[[", "]]"),
    NodeKind.SUBFLOW: ("{{", "}}"),
}


def to_mermaid(graph: Graph, states: Mapping[int, str]) -> str:
    """Draw the graph as a Mermaid flowchart; `states` gives state types by node id."""
    drawn = ["flowchart TD", *_mermaid_body(graph, "n", "  "), *_mermaid_colours(graph, states)]
    return "\n".join(drawn) + "\n"


def _mermaid_body(graph: Graph, prefix: str, indent: str) -> Iterator[str]:
    for node in graph.nodes:
        name = f"{prefix}{node.id}"
        inner = graph.subgraphs.get(node.id)
        if inner is not None and inner.nodes:
            yield f"{indent}subgraph {name}[{_mermaid_text(_caption(node))}]"
            yield from _mermaid_body(inner, f"{name}_", indent + "  ")
            yield f"{indent}end"
        else:
            left, right = _MERMAID_SHAPES[node.kind]
            yield f"{indent}{name}{left}{_mermaid_text(_caption(node))}{right}"
    for line in _lines(graph):
        arrow = "-.->" if line.dotted else "-->"
        label = f"|{_mermaid_text(line.label)}|" if line.label else ""
        yield f"{indent}{prefix}{line.source} {arrow}{label} {prefix}{line.target}"
    yield from _mermaid_stop(graph, prefix, indent)


def _mermaid_stop(graph: Graph, prefix: str, indent: str) -> Iterator[str]:
    if graph.stopped_at is None:
        return
    text = f"unknown from {graph.stopped_at.line} on"
    yield f"{indent}{prefix}stop([{_mermaid_text(text)}])"
    for node in graph.nodes:
        if node.key == graph.stopped_at.key:
            yield f"{indent}{prefix}{node.id} -.-> {prefix}stop"


def _mermaid_colours(graph: Graph, states: Mapping[int, str]) -> Iterator[str]:
    for state, look in PALETTE.items():
        names = [f"n{node.id}" for node in graph.nodes if _state_of(node, states) is state]
        if names:
            yield f"  classDef {state} fill:{look.fill},color:{look.ink},stroke:#333333"
            yield f"  class {','.join(names)} {state}"


def _state_of(node: GraphNode, states: Mapping[int, str]) -> StateType | None:
    return StateType(states[node.id]) if node.id in states else None


def _mermaid_text(text: str) -> str:
    """Quote a text; what could end the quotes or mean something to Mermaid becomes a number."""
    return '"' + "".join(c if c.isalnum() or c in _PLAIN else f"#{ord(c)};" for c in text) + '"'


_PLAIN: Final = frozenset(" -_.,:()[]/?=")


# --- Graphviz -------------------------------------------------------------------------------------

_DOT_SHAPES: Final = {NodeKind.TASK: "box", NodeKind.MAP: "box3d", NodeKind.SUBFLOW: "hexagon"}


def to_dot(graph: Graph, states: Mapping[int, str]) -> str:
    """Draw the graph in Graphviz DOT; `states` gives state types by node id."""
    head = [f"digraph {_dot_text(graph.flow)} {{", '  node [shape=box, fontname="sans-serif"];']
    return "\n".join([*head, *_dot_body(graph, "n", "  ", states), "}"]) + "\n"


def _dot_body(graph: Graph, prefix: str, indent: str, states: Mapping[int, str]) -> Iterator[str]:
    for node in graph.nodes:
        name = f"{prefix}{node.id}"
        inner = graph.subgraphs.get(node.id)
        if inner is not None and inner.nodes:
            yield f"{indent}subgraph cluster_{name} {{"
            yield f"{indent}  {name} [{_dot_node(node, states)}];"
            yield from _dot_body(inner, f"{name}_", indent + "  ", {})
            yield f"{indent}}}"
        else:
            yield f"{indent}{name} [{_dot_node(node, states)}];"
    for line in _lines(graph):
        style = ", style=dashed" if line.dotted else ""
        label = f"label={_dot_text(line.label)}"
        yield f"{indent}{prefix}{line.source} -> {prefix}{line.target} [{label}{style}];"
    if graph.stopped_at is not None:
        text = _dot_text(f"unknown from {graph.stopped_at.line} on")
        yield f"{indent}{prefix}stop [label={text}, shape=ellipse, style=dashed];"
        for node in graph.nodes:
            if node.key == graph.stopped_at.key:
                yield f"{indent}{prefix}{node.id} -> {prefix}stop [style=dashed];"


def _dot_node(node: GraphNode, states: Mapping[int, str]) -> str:
    shown = f"label={_dot_text(_caption(node))}, shape={_DOT_SHAPES[node.kind]}"
    state = _state_of(node, states)
    if state is None:
        return shown
    look = PALETTE[state]
    return f'{shown}, style=filled, fillcolor="{look.fill}", fontcolor="{look.ink}"'


def _dot_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
