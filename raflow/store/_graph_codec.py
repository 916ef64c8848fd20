"""Nodes and edges as a block of bytes: columns in JSON, compressed.

A column is a list with a value for each node or edge, or an object that says the same with less:
`{"same": value}`, `{"of": [...], "at": [...]}` (the different values, and which one each has), or
`{"like": "key"}` (equal to another column).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import orjson
import zstandard

from raflow import model
from raflow.store import _values

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

    def read_nodes(self) -> Iterator[model.GraphNode]:
        """Yield its nodes, in the order in which they were recorded."""
        return _read(self.nodes, model.GraphNode, _NODE_READERS)

    def read_edges(self) -> Iterator[model.Edge]:
        """Yield its edges, in the order in which they were recorded."""
        return _read(self.edges, model.Edge, {"kind": model.EdgeKind})


def items_of(kind: str, length: int | None) -> range:
    """Return the map indices that a node has for sure: -1 for all but maps of known length."""
    is_map = kind == model.NodeKind.MAP and length is not None
    return range(length or 0) if is_map else range(-1, 0)


def encode_graph(nodes: Sequence[model.GraphNode], edges: Sequence[model.Edge]) -> bytes:
    """Return the bytes of nodes and edges."""
    content = {
        "version": _VERSION,
        "nodes": _node_columns(nodes),
        "edges": _columns(edges, model.Edge._fields),
    }
    return zstandard.ZstdCompressor(level=_LEVEL).compress(_to_json(content))


def decode_graph(data: bytes) -> GraphBlock:
    """Return what `encode_graph` wrote."""
    content = orjson.loads(zstandard.ZstdDecompressor().decompress(data))
    return GraphBlock(content["nodes"], content["edges"])


def _node_columns(nodes: Sequence[model.GraphNode]) -> dict[str, object]:
    columns = _columns(nodes, model.GraphNode._fields)
    if nodes:
        columns["resources"] = _resources_column([node.resources for node in nodes])
        if columns["label"] == columns["key"]:
            columns["label"] = {"like": "key"}
    return columns


_FEW: Final = frozenset({"kind", "name", "line", "trigger_rule", "parameter"})


def _columns(rows: Sequence[tuple[Any, ...]], names: Sequence[str]) -> dict[str, object]:
    columns: dict[str, object] = {"count": len(rows)}
    for name, values in zip(names, zip(*rows, strict=True), strict=False):
        if values.count(values[0]) == len(values):
            columns[name] = {"same": values[0]}
        elif name in _FEW:
            columns[name] = _different(values)
        else:
            columns[name] = values
    return columns


def _different(values: Sequence[Any]) -> dict[str, object]:
    numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
    return {"of": list(numbers), "at": [numbers[value] for value in values]}


def _resources_column(values: Sequence[model.Resources | None]) -> dict[str, object]:
    # By identity: the calls of a task share the object, and comparing it costs more than it saves.
    by_id = {id(value): value for value in values}
    numbers = {known: number for number, known in enumerate(by_id)}
    return {
        "of": [None if value is None else _resources(value) for value in by_id.values()],
        "at": [numbers[id(value)] for value in values],
    }


def _resources(resources: model.Resources) -> dict[str, object]:
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


def _read_resources(data: Mapping[str, Any] | None) -> model.Resources | None:
    if data is None:
        return None
    return model.Resources(
        **{
            **data,
            "custom": tuple(data["custom"].items()),
            "label_selector": tuple(data["label_selector"].items()),
        }
    )


_NODE_READERS: Final[Mapping[str, Callable[[Any], object]]] = {
    "kind": model.NodeKind,
    "trigger_rule": model.TriggerRule,
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


def _to_json(content: Mapping[str, object]) -> bytes:
    try:
        return orjson.dumps(content)
    except TypeError:  # halves of surrogate pairs, which JSON cannot hold, are written out
        return orjson.dumps(_cleaned(content))


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return _values.text(str(value))
    if isinstance(value, Mapping):
        return {_values.text(key): _cleaned(item) for key, item in value.items()}
    if isinstance(value, Iterable):
        return [_cleaned(item) for item in value]
    return value
