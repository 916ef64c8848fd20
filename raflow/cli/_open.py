"""Opens the record."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from raflow import config
from raflow.store import Store

if TYPE_CHECKING:
    from raflow.service import Service


def has_record(settings: config.Settings) -> bool:
    """Whether there can be a record: the embedded database is made by the first run."""
    return bool(settings.database_url) or (settings.home / "raflow.db").exists()


def _settings() -> config.Settings:
    settings = config.load()
    settings.check_local("This command")
    return settings


@contextlib.contextmanager
def open_store() -> Iterator[Store | None]:
    """Open the record as the settings say; None if nothing was ever recorded.

    Raises:
        ConfigError: The settings name a service, of which this command knows nothing.
        StoreError: The database cannot be used.
    """
    settings = _settings()
    if not has_record(settings):
        yield None
        return
    with make_store() as store:
        yield store


@contextlib.contextmanager
def make_store() -> Iterator[Store]:
    """Open the record to write to it; the embedded database is made if there is none.

    Only that one is upgraded on the way: one that others use as well is left to `raflow db
    upgrade`.

    Raises:
        StoreError: The database cannot be used.
    """
    settings = _settings()
    embedded = not settings.database_url
    with Store.open(settings.database, log_dir=settings.logs, create=embedded) as store:
        yield store


@contextlib.contextmanager
def open_verbs() -> Iterator[Service | None]:
    """Open what can be asked of the record; None if nothing was ever recorded.

    Raises:
        StoreError: The database cannot be used.
    """
    with open_store() as store:
        yield None if store is None else _verbs(store)


@contextlib.contextmanager
def make_verbs() -> Iterator[Service]:
    """Open what can be asked of the record; the embedded database is made if there is none.

    Raises:
        StoreError: The database cannot be used.
    """
    with make_store() as store:
        yield _verbs(store)


def _verbs(store: Store) -> Service:
    from raflow._util import person
    from raflow.service import Service

    return Service(store, actor=person())
