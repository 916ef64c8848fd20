"""Who waits for whom: connecting runs to their sources, and counting sources that are final."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from raflow.engine._runs import Node, Run, Waiter
from raflow.model import Edge, EdgeKind, StateName, StateType

_NAMED: Final = 3


def connect(run: Run, nodes: Sequence[Node]) -> None:
    """Make a new run wait for its sources; count those that have told their end already."""
    for edge in run.node.call.edges:
        if edge.target_item not in (None, run.key.map_index):
            continue
        run.upstream.total += 1
        node = nodes[edge.source]
        source = source_of(edge, node, run)
        source.waiters.append(Waiter(run, edge))
        if source.told:
            count(run, edge, source)


def source_of(edge: Edge, node: Node, run: Run) -> Run | Node:
    """Return what an edge of `run` waits for: one run, or every item of a map."""
    if not node.is_map:
        return node.runs[0]
    if edge.kind is EdgeKind.ITEM:
        return node.run(run.key.map_index)
    return node if edge.source_item is None else node.run(edge.source_item)


def count(run: Run, edge: Edge, source: Run | Node) -> None:
    """Take note of how a source of `run` ended."""
    outcome = source.state.type if isinstance(source, Run) else source.outcome()
    if edge.allow_failure and outcome is not StateType.SKIPPED:
        outcome = StateType.COMPLETED
    run.upstream.count(outcome)
    if edge.kind is EdgeKind.CONDITION and outcome is StateType.COMPLETED:
        truth = source.truth if isinstance(source, Run) else bool(source.length)
        name = source.label if isinstance(source, Run) else source.call.key
        if truth is None:
            run.odd_condition = name
        elif not truth:
            run.falsy_condition = name


def waits_for(run: Run, nodes: Sequence[Node]) -> str:
    """Say what a run waits for, for the reason of its state."""
    if run.upstream.all_done:
        return ""
    sources = (nodes[edge.source] for edge in run.node.call.edges)
    return f"waits for {_listed([n.call.key for n in sources if not n.is_final])}"


def failed_sources(run: Run, nodes: Sequence[Node]) -> str:
    """Say which sources of a run did not complete."""
    names: list[str] = []
    for edge in run.node.call.edges:
        if edge.target_item in (None, run.key.map_index):
            source = source_of(edge, nodes[edge.source], run)
            runs = [source] if isinstance(source, Run) else source.runs
            names += [upstream.label for upstream in runs if upstream.failed]
    return f"{_listed(names)} did not complete"


class NoItems(NamedTuple):
    """Why a map can never be expanded."""

    state: StateName
    message: str


def map_length(node: Node, nodes: Sequence[Node]) -> int | NoItems | None:
    """Return how many items a map over task values has; None as long as that is not known."""
    lengths: dict[str, int] = {}
    for edge in node.call.edges:
        if edge.kind is EdgeKind.ITEM:
            found = _item_count(nodes[edge.source])
            if not isinstance(found, int):
                return found
            lengths[edge.parameter or nodes[edge.source].call.key] = found
    if node.call.length is not None:
        lengths["the other inputs"] = node.call.length
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        message = (
            f"The inputs of one map must be equally long, but their lengths are {told}. Wrap what "
            "all items share in unmapped(...)."
        )
        return NoItems(StateName.FAILED, message)
    return next(iter(lengths.values()))


def _item_count(source: Node) -> int | NoItems | None:
    key = source.call.key
    if source.is_map:
        if not source.expanded:
            return None
        if source.length is not None:
            return source.length
    if not source.is_final:
        return None
    run = source.runs[0]
    if run.failed:
        return NoItems(StateName.UPSTREAM_FAILED, f"{key} did not complete")
    if run.state.type is StateType.SKIPPED:
        return NoItems(StateName.SKIPPED, f"{key} was skipped")
    if source.length is None:
        message = f"The value of {key} has no length, so nothing can be mapped over it. "
        return NoItems(StateName.FAILED, message + "Return a list from it.")
    return source.length


def _listed(names: Sequence[str]) -> str:
    unique = list(dict.fromkeys(names))
    more = f" and {len(unique) - _NAMED} more" if len(unique) > _NAMED else ""
    return f"{', '.join(unique[:_NAMED])}{more}"
