"""A call of a flow run: as the body made it, and as the engine takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from raflow import engine
from raflow._util import maker
from raflow.define import CallRequest, Columns, Definition, Flow, Task
from raflow.execute import (
    CallSettings,
    FunctionHandle,
    Packed,
)
from raflow.model import Edge, NodeKind
from raflow.results import inputs_fingerprint
from raflow.runtime.calls._items import Items

_PIECE: Final = 16_384
_CODE_DIGITS: Final = 32

_call_made: Final = maker(engine.CallMade)


@dataclass(slots=True, eq=False)
class CallEntry:
    """A call of the body, kept until every run of it is final."""

    request: CallRequest
    """As the body made it."""
    key: str
    """Readable key of the node."""
    at: float
    """When it was made."""
    edges: tuple[Edge, ...]
    function: FunctionHandle | None = None
    """The task's function; None for a subflow."""
    settings: CallSettings | None = None
    """How it runs; None for a subflow."""
    arguments: Packed | None = None
    """All of a single call, what items share in a map."""
    items: Items | None = None
    """The items that the body gave to a map."""
    inputs: int | None = None
    """Fingerprint of the arguments that are no values of other calls; None: not known."""
    code: str = ""
    """Fingerprint of the code of the task or flow."""

    @property
    def is_map(self) -> bool:
        """Whether the call is mapped."""
        return self.request.kind is NodeKind.MAP

    def label(self, item: int) -> str:
        """Return the name of a run of this call, unless the task makes its own."""
        return self.key if item < 0 else f"{self.key}[{item}]"


def call_inputs(request: CallRequest) -> int | None:
    """Return the fingerprint of what a call is given beside the values of other calls.

    Returns:
        None if it is not known: of items that come one after the other, and of what costs too much.
    """
    given, items, dependencies = request.arguments, request.items, request.dependencies
    if items is None and not dependencies:
        return inputs_fingerprint(given)
    if request.item_arguments:
        given = {**given, **request.item_arguments}
    # Which of the sources is which, but not their ids: calls may be added before them.
    sources = [
        (found.source, -1 if found.source_item is None else found.source_item)
        for found in dependencies
    ]
    order = sorted(range(len(sources)), key=sources.__getitem__)
    if items is None:
        return inputs_fingerprint(given, order)
    if not isinstance(items, Columns):
        return None
    pieces = (items.slice(n, n + _PIECE) for n in range(0, len(items), _PIECE))
    return inputs_fingerprint(given, order, pieces)


def code_of(target: Definition) -> str:
    """Return the fingerprint of the code of a task or flow; empty if it cannot be read."""
    try:
        if isinstance(target, Task):
            return target.code_fingerprint()[:_CODE_DIGITS]
        assert isinstance(target, Flow)
        return target.fingerprint()[:_CODE_DIGITS]
    except Exception:  # the source may be anything
        return ""


def call_made(node: int, entry: CallEntry) -> engine.CallMade:
    """Return a call as the engine takes it."""
    kind, target, options, _, _, _, _, runnable, _, teardown_of = entry.request
    items = entry.items
    return _call_made(
        (
            entry.at,
            node,
            kind,
            target.name,
            entry.key,
            options,
            entry.edges,
            None if items is None else items.length,
            runnable,
            items is not None and items.length is None,
            (),
            teardown_of,
        )
    )
