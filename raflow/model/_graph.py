"""The graph of a flow: what `compile` returns, what a run records, what is drawn."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from raflow import errors
from raflow.model._options import TriggerRule
from raflow.model._resources import Resources


class NodeKind(StrEnum):
    """What a node of the graph stands for."""

    TASK = "task"
    MAP = "map"
    SUBFLOW = "subflow"


class EdgeKind(StrEnum):
    """How one node depends on another."""

    DATA = "data"
    """The whole value feeds a parameter. The value of a map is the list of its items' values."""
    ITEM = "item"
    """The target is mapped: item i is fed by item i of the source, a map or a list."""
    ORDER = "order"
    """The target waits for the source and takes nothing from it (`wait_for`)."""
    CONDITION = "condition"
    """The target runs only if the value of the source is true (`run_if`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphNode:
    """One task call, mapped call or subflow call."""

    id: int
    """Position in the order of calls, from 0."""
    key: str
    """Readable and unique in the graph: the task's name and a count, such as `extract-0`."""
    kind: NodeKind
    name: str
    """The name of the task or flow."""
    label: str = ""
    """The name of this run, if the task names its runs. Default: the key."""
    line: str = ""
    """Where the call stands: `file.py:12`."""
    length: int | None = None
    """Number of items of a map, if it is known."""
    trigger_rule: TriggerRule = TriggerRule.ALL_SUCCESS
    resources: Resources | None = None
    """What one call asks for; None for a subflow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """A dependency of one node on another."""

    source: int
    """Id of the node that is waited for."""
    target: int
    """Id of the node that waits."""
    kind: EdgeKind = EdgeKind.DATA
    parameter: str = ""
    """The parameter of the target that the value feeds; empty for ORDER."""
    source_item: int | None = None
    """The one item of a mapped source that is meant. None: all of it."""
    target_item: int | None = None
    """The one item of a mapped target that waits. None: all of them."""
    allow_failure: bool = False
    """The target takes the source's exception as value if the source failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopPoint:
    """Where tracing had to stop, because the body needs a value that only a run can give."""

    key: str
    """Key of the node whose value is needed."""
    line: str
    """Where the body asked for it: `file.py:12`."""
    message: str


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
        from raflow.model import _graph_format

        return _graph_format.to_dict(self)

    def to_json(self) -> str:
        """Return the graph as JSON text."""
        from raflow.model import _graph_format

        return _graph_format.to_json(self)

    def to_mermaid(self, states: Mapping[int, str] | None = None) -> str:
        """Return the graph as a Mermaid flowchart.

        Args:
            states: State type per node id; colours the nodes. Default: no colours.
        """
        from raflow.model import _graph_format

        return _graph_format.to_mermaid(self, states or {})

    def to_dot(self, states: Mapping[int, str] | None = None) -> str:
        """Return the graph as Graphviz DOT; see `to_mermaid`."""
        from raflow.model import _graph_format

        return _graph_format.to_dot(self, states or {})
