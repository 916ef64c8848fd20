"""What the body of a running flow talks to.

- `_context`: makes calls, and waits for their values, for people, and for the end of a pause.
- `_sending`: how calls of each task are sent; checked and made known to the backend once.
- `_finding`: what calls have returned or raised; values that were lost are computed again.
- `_slots`: slots of limits that the body itself holds.
- `_log`, `_waiting`: what the body prints and logs; how an event loop waits for a future.
"""

from __future__ import annotations

from raflow.runtime.body._context import BY_ITSELF, RunContext
from raflow.runtime.body._log import body_log
from raflow.runtime.body._sending import check_feasible
from raflow.runtime.body._waiting import wait_async

__all__ = ["BY_ITSELF", "RunContext", "body_log", "check_feasible", "wait_async"]
