"""Letting time pass without waiting: everything that a store remembers becomes older."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from raflow.store import Store
from raflow.store._rows import _service_tables, _tables

_TIMES: Final = {
    _tables.run_leases: ("since", "renewed_at", "expires_at"),
    _tables.slot_leases: ("asked_at", "granted_at", "expires_at"),
    _tables.cache_entries: ("created_at", "expires_at"),
    _tables.cache_claims: ("since", "expires_at"),
    _service_tables.dispatches: ("begins_at", "ordered_at"),
    _service_tables.workers: ("seen_at", "expires_at"),
}


def let_pass(store: Store, seconds: float) -> None:
    """Make all leases, and what is kept, older."""

    def age(connection: sa.Connection) -> None:
        for table, names in _TIMES.items():
            older = {name: table.c[name] - seconds for name in names}
            connection.execute(sa.update(table).values(older))
        looked = _service_tables.installation
        for key, value in connection.execute(sa.select(looked)).all():
            earlier = sa.update(looked).where(looked.c.key == key)
            connection.execute(earlier.values(value=repr(float(value) - seconds)))

    store._database.write(age)
