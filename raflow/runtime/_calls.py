"""The calls of a flow run: what the body asked for, and the form in which it is sent out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from raflow.define import CallRequest
from raflow.execute import Call, FunctionHandle, InputSource, Known, ListOf, Packed, Part, ValueRef
from raflow.model import Edge, EdgeKind, NodeKind, StateType, TaskRunKey
from raflow.runtime._outcomes import Outcomes, RunOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEntry:
    """A call of the body, kept until its runs have been sent."""

    request: CallRequest
    key: str
    edges: tuple[Edge, ...]
    function: FunctionHandle | None = None
    """None for a subflow."""
    shared: Packed | None = None
    """Packed arguments: all of a single call, what items share in a map."""
    items: tuple[Packed, ...] = ()
    """Packed arguments of each item of a map."""

    def without_arguments(self) -> CallEntry:
        """Return the entry as it is kept once every run is final: big arguments can go."""
        request = dataclasses.replace(self.request, arguments={}, items=None, item_arguments={})
        return dataclasses.replace(self, request=request, shared=None, items=())

    def label(self, item: int) -> str:
        """Return the name of a run of this call, unless the task makes its own."""
        return self.key if item < 0 else f"{self.key}[{item}]"


def build_call(
    entry: CallEntry, run: TaskRunKey, attempt: int, kinds: Kinds, outcomes: Outcomes
) -> Call:
    """Put together what a backend needs to run one attempt."""
    assert entry.function is not None
    assert entry.shared is not None
    options = entry.request.options
    own = (entry.items[run.map_index],) if entry.items and run.map_index >= 0 else ()
    return Call(
        run=run,
        attempt=attempt,
        function=entry.function,
        arguments=(entry.shared, *own),
        inputs=inputs_of(entry, run, kinds, outcomes),
        label=entry.label(run.map_index),
        result=options.result,
        timeout_seconds=options.timeout_seconds,
        log_prints=options.log_prints,
    )


Kinds = Callable[[int], NodeKind]
"""Tells the kind of a node."""


def inputs_of(
    entry: CallEntry, run: TaskRunKey, kinds: Kinds, outcomes: Outcomes
) -> Mapping[int, InputSource]:
    """Find what fills the holes in the arguments of a run, by edge."""
    return {
        position: _input(edge, run, kinds(edge.source), outcomes)
        for position, edge in enumerate(entry.edges)
        if edge.kind in (EdgeKind.DATA, EdgeKind.ITEM) and edge.target_item in (None, run.map_index)
    }


def _input(edge: Edge, run: TaskRunKey, kind: NodeKind, outcomes: Outcomes) -> InputSource:
    if kind is not NodeKind.MAP:
        value = _value(outcomes.get(TaskRunKey(edge.source)), edge)
        if edge.kind is EdgeKind.ITEM:
            return _part(value, run.map_index)
        return value
    if edge.kind is EdgeKind.ITEM:
        return _value(outcomes.get(TaskRunKey(edge.source, run.map_index)), edge)
    if edge.source_item is not None:
        return _value(outcomes.get(TaskRunKey(edge.source, edge.source_item)), edge)
    return ListOf(tuple(_value(outcome, edge) for outcome in outcomes.runs(edge.source)))


def _part(value: ValueRef | Known, index: int) -> Part | Known:
    if isinstance(value, ValueRef):
        return Part(value, index)
    sequence: Any = value.value
    return Known(sequence[index])


def _value(outcome: RunOutcome, edge: Edge) -> ValueRef | Known:
    """Return a source's value; a source that has none gives its exception, if asked, or None."""
    if outcome.value is not None and outcome.state.type is StateType.COMPLETED:
        return outcome.value
    failed = outcome.state.is_final and outcome.state.type is not StateType.SKIPPED
    if edge.allow_failure and failed:
        return Known(outcome.failure())
    return Known(None)
