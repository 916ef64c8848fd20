"""The calls of a flow run: what the body asked for, its items, and what has become of each.

- `_calls`: a call as the body made it, and as the engine takes it.
- `_inputs`: calls as a backend gets them: what fills the holes in their arguments.
- `_items`: the items of a map: all there, or taken from an iterator bit by bit.
- `_outcomes`, `_spans`: what has become of each call, and where its value is.
- `_kept`: values that the record has.
- `_failures`: from recorded failures to exceptions, and back.
"""

from __future__ import annotations

from raflow.runtime.calls._calls import CallEntry, call_inputs, call_made, code_of
from raflow.runtime.calls._failures import error_info
from raflow.runtime.calls._inputs import Inputs, build_calls
from raflow.runtime.calls._items import Given, Items, ItemsTaken, Streamed
from raflow.runtime.calls._kept import KeptValue, KeptValues, OnRecord, is_on_record, sources
from raflow.runtime.calls._outcomes import Outcomes, RunOutcome, Value

__all__ = [
    "CallEntry",
    "Given",
    "Inputs",
    "Items",
    "ItemsTaken",
    "KeptValue",
    "KeptValues",
    "OnRecord",
    "Outcomes",
    "RunOutcome",
    "Streamed",
    "Value",
    "build_calls",
    "call_inputs",
    "call_made",
    "code_of",
    "error_info",
    "is_on_record",
    "sources",
]
