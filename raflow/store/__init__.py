"""The record of every flow run, behind one door; in SQLite or PostgreSQL.

The only package that knows SQL. What needs SQLAlchemy is loaded when it is first used.

The parts, from the one that knows all others down to the one that knows none:

- `_store`: `Store`, the door.
- `_deployments`: which code the service runs under which name.
- `_schedules`: when it starts which runs by itself.
- `_work`: runs of deployments on their way to workers and back.
- `_steering`: who drives flow runs, and what is asked of them.
- `_sharing`: what flow runs share: slots of limits, and values that were computed before.
- `_tokens`: who may use the service.
- `_reading`: what is read of flow runs, and of what is inside them.
- `_record`: what is written of flow runs, and what changes with it.
- `_feed`: everything that happens, in one order.
- `_database`: connections, the clock, the revision and the migrations.
- `_rows`: the tables, and what is in their rows.
- `_peek`: a look at a database without SQLAlchemy.

They import each other in one direction only, which the contract "store" of import-linter checks.
The parts re-export nothing, so that a short flow loads only the modules that it needs: those are
imported by name, as in `from raflow.store._rows import _tables`. Nothing outside of `raflow.store`
imports anything but this facade.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from raflow.store._peek import HEAD as EXPECTED_REVISION
from raflow.store._peek import is_ready

if TYPE_CHECKING:
    from raflow.store._database._engine import without_passwords
    from raflow.store._database._schema import current_revision, upgrade
    from raflow.store._reading._queries import FlowSummary
    from raflow.store._schedules._due_slots import Decided
    from raflow.store._store import Store

__all__ = [
    "EXPECTED_REVISION",
    "Decided",
    "FlowSummary",
    "Store",
    "current_revision",
    "is_ready",
    "upgrade",
    "without_passwords",
]

_HOME = {
    "Decided": "_schedules._due_slots",
    "FlowSummary": "_reading._queries",
    "Store": "_store",
    "current_revision": "_database._schema",
    "upgrade": "_database._schema",
    "without_passwords": "_database._engine",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'raflow.store' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"raflow.store.{home}"), name)
    globals()[name] = value
    return value
