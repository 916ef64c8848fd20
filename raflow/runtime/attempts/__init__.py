"""One flow run from its creation to its end: its attempts, its subflows, its lease.

- `_retries`: the attempts of a run, one after the other, and when the next one is due.
- `_execution`: one attempt: it begins the run, has the body run, and makes the next attempt.
- `_origin`, `_parts`: what an attempt begins with, and what it consists of, put together.
- `_closing`: from what has become of the calls to the final state on record.
- `_children`: the flow runs of subflow calls, each on a thread of its own.
- `_tenure`: renews the lease, and hears what others ask: cancel, pause, unpause, suspend.
- `_scope`, `_identity`: what a run and its subflows share; what is new about a new run.
"""

from __future__ import annotations

from raflow.runtime.attempts._execution import Execution
from raflow.runtime.attempts._origin import Origin
from raflow.runtime.attempts._retries import Attempts
from raflow.runtime.attempts._scope import FlowOutcome, Scope

__all__ = ["Attempts", "Execution", "FlowOutcome", "Origin", "Scope"]
