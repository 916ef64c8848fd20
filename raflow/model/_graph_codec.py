"""Nodes and edges as a block of bytes: columns in JSON, compressed.

A column is a list with a value for each node or edge, or an object that says the same with less:
`{"same": value}`, `{"of": [...], "at": [...]}` (the different values, and which one each has), or
`{"like": "key"}` (equal to another column).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import orjson
import zstandard

from raflow.model._compressed import decompress
from raflow.model._graph_parts import Edge, EdgeKind, GraphNode, NodeKind
from raflow.model._json import to_json
from raflow.model._options import TriggerRule
from raflow.model._resources import Resources

T = TypeVar("T")

_LEVEL: Final = 1
_VERSION: Final = 1
_Table: TypeAlias = Mapping[str, Any]
"""Columns by name, and under `count` how long each is."""


class GraphBlock(NamedTuple):
    """A part of a graph, as columns."""

    nodes: _Table
    edges: _Table

    @property
    def node_ids(self) -> Sequence[int]:
        """Ids of its nodes, in the order in which they were recorded."""
        return _values_of(self.nodes, "id")

    def items(self) -> Iterator[tuple[int, range]]:
        """Yield id and map indices of each node; see `items_of`."""
        kinds, lengths = _values_of(self.nodes, "kind"), _values_of(self.nodes, "length")
        return zip(self.node_ids, map(items_of, kinds, lengths), strict=True)

    def read_nodes(self) -> Iterator[GraphNode]:
        """Yield its nodes, in the order in which they were recorded."""
        return _read(self.nodes, GraphNode, _NODE_READERS)

    def read_edges(self) -> Iterator[Edge]:
        """Yield its edges, in the order in which they were recorded."""
        return _read(self.edges, Edge, {"kind": EdgeKind})


def items_of(kind: str, length: int | None) -> range:
    """Return the map indices that a node has for sure: -1 for all but maps of known length."""
    is_map = kind == NodeKind.MAP and length is not None
    return range(length or 0) if is_map else range(-1, 0)


def encode_graph(nodes: Sequence[GraphNode], edges: Sequence[Edge]) -> bytes:
    """Return the bytes of nodes and edges."""
    content = {
        "version": _VERSION,
        "nodes": _node_columns(nodes),
        "edges": _columns(edges, Edge._fields),
    }
    return zstandard.ZstdCompressor(level=_LEVEL).compress(to_json(content))


def decode_graph(data: bytes) -> GraphBlock:
    """Return what `encode_graph` wrote.

    Raises:
        BatchError: It is damaged, or too large to be a part of a graph.
    """
    content = orjson.loads(decompress(data, "a part of a graph"))
    return GraphBlock(content["nodes"], content["edges"])


def _node_columns(nodes: Sequence[GraphNode]) -> dict[str, object]:
    columns = _columns(nodes, GraphNode._fields)
    if nodes and columns["label"] == columns["key"]:
        columns["label"] = {"like": "key"}
    return columns


_FEW: Final = frozenset({"kind", "name", "line", "trigger_rule", "parameter", "code"})


def _columns(rows: Sequence[tuple[Any, ...]], names: Sequence[str]) -> dict[str, object]:
    columns: dict[str, object] = {"count": len(rows)}
    for name, values in zip(names, zip(*rows, strict=True), strict=False):
        if name == "resources":
            columns[name] = _resources_column(values)
        elif values[0] == values[-1] and values.count(values[0]) == len(values):
            columns[name] = {"same": values[0]}
        elif name in _FEW:
            columns[name] = _different(values)
        else:
            columns[name] = values
    return columns


def _different(values: Sequence[Any]) -> dict[str, object]:
    numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
    return {"of": list(numbers), "at": [numbers[value] for value in values]}


def _resources_column(values: Sequence[Resources | None]) -> dict[str, object]:
    # By identity: the calls of a task share the object, and comparing it costs more than it saves.
    by_id = dict(zip(map(id, values), values, strict=True))
    if len(by_id) == 1:
        return {"same": _resources(values[0])}
    numbers = {known: number for number, known in enumerate(by_id)}
    return {
        "of": [_resources(value) for value in by_id.values()],
        "at": [numbers[id(value)] for value in values],
    }


def _resources(resources: Resources | None) -> dict[str, object] | None:
    if resources is None:
        return None
    strategy = resources.scheduling_strategy
    return {
        "num_cpus": resources.num_cpus,
        "num_gpus": resources.num_gpus,
        "memory": resources.memory,
        "custom": dict(resources.custom),
        "accelerator_type": resources.accelerator_type,
        "label_selector": dict(resources.label_selector),
        "scheduling_strategy": None if strategy is None else str(strategy),
        "runtime_env": resources.runtime_env,
    }


def _read_resources(data: Mapping[str, Any] | None) -> Resources | None:
    if data is None:
        return None
    return Resources(
        **{
            **data,
            "custom": tuple(data["custom"].items()),
            "label_selector": tuple(data["label_selector"].items()),
        }
    )


_NODE_READERS: Final[Mapping[str, Callable[[Any], object]]] = {
    "kind": NodeKind,
    "trigger_rule": TriggerRule,
    "resources": _read_resources,
}


def _read(
    table: _Table, cls: type[T], readers: Mapping[str, Callable[[Any], object]]
) -> Iterator[T]:
    defaults: Mapping[str, Any] = cls._field_defaults  # type: ignore[attr-defined]  # a named tuple
    names: Sequence[str] = cls._fields  # type: ignore[attr-defined]
    columns = [
        _values_of(table, name, readers.get(name))
        if name in table
        else repeat(defaults.get(name), table["count"])
        for name in names
    ]
    return (cls(*row) for row in zip(*columns, strict=True))


def _values_of(
    table: _Table, name: str, read: Callable[[Any], object] | None = None
) -> Sequence[Any]:
    column = table[name] if table["count"] else []
    if isinstance(column, list):
        return column if read is None else list(map(read, column))
    if "like" in column:
        return _values_of(table, column["like"], read)
    if "same" in column:
        value = column["same"] if read is None else read(column["same"])
        return list(repeat(value, table["count"]))
    different = column["of"] if read is None else list(map(read, column["of"]))
    return [different[at] for at in column["at"]]
