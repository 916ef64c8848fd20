"""The graph of a flow: what `compile` returns, what a run records, what is drawn."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from raflow import errors
from raflow.model import _graph_format
from raflow.model._graph_parts import Edge, GraphNode, StopPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowGraph:
    """Nodes are task calls; edges carry the name of the parameter they feed."""

    flow: str
    nodes: tuple[GraphNode, ...]
    edges: tuple[Edge, ...]
    subgraphs: Mapping[int, FlowGraph]
    """Graph of each traced subflow, by the id of its node."""
    stopped_at: StopPoint | None = None
    """Set when the graph is known only up to a value that the body needs."""

    @classmethod
    def of(
        cls,
        flow: str,
        nodes: Iterable[GraphNode],
        edges: Iterable[Edge],
        *,
        subgraphs: Mapping[int, FlowGraph] | None = None,
        stopped_at: StopPoint | None = None,
    ) -> Self:
        """Build a graph and check it.

        Raises:
            DefinitionError: An edge names a node that is not there.
            CycleError: Nodes depend on each other in a circle.
        """
        graph = cls(
            flow=flow,
            nodes=tuple(nodes),
            edges=tuple(edges),
            subgraphs=dict(subgraphs or {}),
            stopped_at=stopped_at,
        )
        graph.layers()
        return graph

    def node(self, node_id: int) -> GraphNode:
        """Return the node with this id; raises `NotFoundError`."""
        for node in self.nodes:
            if node.id == node_id:
                return node
        raise errors.NotFoundError(f"The graph of {self.flow!r} has no node with id {node_id}.")

    def upstream(self, node_id: int) -> tuple[Edge, ...]:
        """Return the edges that end in this node."""
        return tuple(edge for edge in self.edges if edge.target == node_id)

    def layers(self) -> list[list[GraphNode]]:
        """Group the nodes so that each group depends only on groups before it.

        Raises:
            DefinitionError: An edge names a node that is not there.
            CycleError: Nodes depend on each other in a circle.
        """
        by_id = {node.id: node for node in self.nodes}
        waiting = {node.id: 0 for node in self.nodes}
        below: dict[int, list[int]] = {node.id: [] for node in self.nodes}
        for edge in self.edges:
            if edge.source not in by_id or edge.target not in by_id:
                raise errors.DefinitionError(
                    f"An edge {edge.source} -> {edge.target} of {self.flow!r} names a node that is "
                    "not in the graph."
                )
            waiting[edge.target] += 1
            below[edge.source].append(edge.target)
        layers: list[list[GraphNode]] = []
        ready = deque(node_id for node_id, count in waiting.items() if count == 0)
        while ready:
            layer, ready = list(ready), deque()
            layers.append([by_id[node_id] for node_id in layer])
            for target in (t for node_id in layer for t in below[node_id]):
                waiting[target] -= 1
                if waiting[target] == 0:
                    ready.append(target)
        stuck = [by_id[node_id].key for node_id, count in waiting.items() if count > 0]
        if stuck:
            raise errors.CycleError(
                f"The graph of {self.flow!r} has a cycle through {', '.join(sorted(stuck))}: each "
                "waits for another, so none could ever start. Remove one of the dependencies."
            )
        return layers

    def to_dict(self) -> dict[str, Any]:
        """Return the graph as JSON-ready data; `raflow.model.graph_from_dict` reads it back."""
        return _graph_format.to_dict(self)

    def to_json(self) -> str:
        """Return the graph as JSON text."""
        return _graph_format.to_json(self)

    def to_mermaid(self, states: Mapping[int, str] | None = None) -> str:
        """Return the graph as a Mermaid flowchart.

        Args:
            states: State type per node id; colours the nodes. Default: no colours.
        """
        return _graph_format.to_mermaid(self, states or {})

    def to_dot(self, states: Mapping[int, str] | None = None) -> str:
        """Return the graph as Graphviz DOT; see `to_mermaid`."""
        return _graph_format.to_dot(self, states or {})


def graph_from_dict(data: Mapping[str, Any]) -> FlowGraph:
    """Read what `FlowGraph.to_dict` wrote.

    A scheduling strategy that is an object comes back as its text.

    Raises:
        DefinitionError: The data is not a graph.
        CycleError: Its nodes depend on each other in a circle.
    """
    try:
        return FlowGraph.of(
            data["flow"],
            [_graph_format.node_from_dict(node) for node in data["nodes"]],
            [_graph_format.edge_from_dict(edge) for edge in data["edges"]],
            subgraphs={int(n): graph_from_dict(sub) for n, sub in data["subgraphs"].items()},
            stopped_at=StopPoint(**data["stopped_at"]) if data["stopped_at"] else None,
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise errors.DefinitionError(
            f"This is not a graph that raflow wrote: {type(error).__name__}: {error}."
        ) from error
