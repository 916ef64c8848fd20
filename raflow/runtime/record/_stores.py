"""The store of this process: opened when it is needed, and kept from one flow run to the next."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from raflow import config
from raflow.model import RecordBatch, TaskPace
from raflow.store import is_ready

if TYPE_CHECKING:
    from raflow.runtime._ports import RunStore


class LazyStore:
    """The record, as a flow run uses it; opened by the first call that needs it."""

    def __init__(self, settings: config.Settings) -> None:
        """Name the database; it is not opened yet."""
        self._settings = settings
        self._store: RunStore | None = None
        self._lock = threading.Lock()

    @property
    def database(self) -> str:
        """URL of the database, where no service keeps the record."""
        return self._settings.database

    @property
    def is_open(self) -> bool:
        """Whether the database has been opened."""
        return self._store is not None

    def open(self) -> RunStore:
        """Return the store, opening it if need be.

        Raises:
            StoreError: The database cannot be opened.
        """
        with self._lock:
            if self._store is None:
                self._store = open_record(self._settings)
            return self._store

    def apply(self, batch: RecordBatch) -> bool:
        """Write a batch; see `Store.apply`."""
        return self.open().apply(batch)

    def append_log(self, flow_run_id: str, blob: bytes) -> tuple[str, int]:
        """Store a log segment; see `Store.append_log`."""
        return self.open().append_log(flow_run_id, blob)

    def paces(self, flow: str, fingerprint: str) -> Mapping[str, TaskPace]:
        """Return what earlier runs have learned; see `Store.paces`."""
        return self.open().paces(flow, fingerprint)

    def is_of(self, settings: config.Settings) -> bool:
        """Whether it is the store that the settings name, and still there."""
        same = _named(self._settings) == _named(settings)
        return same and self._store is not None and self._store.is_there()

    def close(self) -> None:
        """Close the connections to the database."""
        if self._store is not None:
            self._store.close()


def open_record(settings: config.Settings) -> RunStore:
    """Open the record that the settings name: that of a service, or a database.

    Raises:
        StoreError: It cannot be opened, or reached.
        AccessError: The service does not let us.
        ConfigError: The service, or the token for it, is named wrongly.
    """
    # Imported only here: either takes longer than the first task of a short flow.
    if settings.api_url:
        from raflow.client import RemoteStore  # noqa: PLC0415

        return RemoteStore.open(
            settings.api_url,
            settings.api_token.get_secret_value(),
            home=settings.home,
            spool_bytes=settings.spool_bytes,
        )
    from raflow.store import Store  # noqa: PLC0415

    return Store.open(settings.database, log_dir=settings.logs)


def _named(settings: config.Settings) -> tuple[object, ...]:
    """Return what names a record."""
    return (
        *(settings.database, settings.logs, settings.home, settings.spool_bytes),
        *(settings.api_url, settings.api_token.get_secret_value()),
    )


# Opening SQLite, and closing it, which moves all that is new from its log into the file, takes
# longer than a flow run of a few tasks. Several threads may use this without a lock, which a fork
# could leave locked: each operation on it is one step.
_idle: Final[deque[LazyStore]] = deque()
_inherited: Final[list[LazyStore]] = []
"""Stores of the process that this one was forked from: neither to be used nor to be closed."""


@contextlib.contextmanager
def lend_store(settings: config.Settings, *, at_once: bool) -> Iterator[LazyStore]:
    """Lend the store that the settings name, to one user at a time.

    Args:
        settings: They name the database.
        at_once: Whether to open it now. If not, a database that is surely in order is opened by
            whoever first needs it.

    Raises:
        StoreError: The database cannot be opened.
    """
    store = _kept(settings) or LazyStore(settings)
    is_sure = store.is_open or (not settings.api_url and is_ready(settings.database))
    if at_once or not is_sure:
        store.open()
    try:
        yield store
    finally:
        _idle.append(store)
        _close_all_but(1)


def close_stores() -> None:
    """Close what is kept open."""
    _close_all_but(0)


def _kept(settings: config.Settings) -> LazyStore | None:
    try:
        found = _idle.pop()
    except IndexError:
        return None
    if found.is_of(settings):
        return found
    found.close()
    return None


def _close_all_but(number: int) -> None:
    with contextlib.suppress(IndexError):
        while len(_idle) > number:
            _idle.popleft().close()


def _forget() -> None:
    _inherited.extend(_idle)
    _idle.clear()


os.register_at_fork(after_in_child=_forget)
atexit.register(close_stores)
