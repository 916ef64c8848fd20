"""Letting time pass without waiting: everything that a store remembers becomes older."""

from __future__ import annotations

import signal
import subprocess
from typing import Any, Final

import sqlalchemy as sa

from raflow import errors
from raflow.store import Store
from raflow.store._rows import _service_tables, _tables
from tests.waiting import wait_for

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


def stop_between_writes(process: subprocess.Popen[Any], store: Store) -> None:
    """Stop a process (SIGSTOP) at a moment at which it does not lock the database.

    A process that is stopped while it writes to an SQLite file keeps all others from writing.
    """

    def is_stopped() -> bool:
        process.send_signal(signal.SIGSTOP)
        try:
            let_pass(store, 0.0)
        except errors.StoreError:
            process.send_signal(signal.SIGCONT)
            return False
        return True

    wait_for(is_stopped)
