"""Nodes and edges: what a graph is made of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

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


class GraphNode(NamedTuple):
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
    created_at: float = 0.0
    """When the call was made, in seconds since the Unix epoch; 0 in a traced graph."""
    inputs: int | None = None
    """Fingerprint of the arguments that are no values of other calls; None: not known."""
    code: str = ""
    """Fingerprint of the code that was called; empty: not known."""


class Edge(NamedTuple):
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
