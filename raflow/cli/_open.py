"""Opens the record for reading."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from raflow import config
from raflow.store import Store


def has_record(settings: config.Settings) -> bool:
    """Whether there can be a record: the embedded database is made by the first run."""
    return bool(settings.database_url) or (settings.home / "raflow.db").exists()


@contextlib.contextmanager
def open_store() -> Iterator[Store | None]:
    """Open the record as the settings say; None if nothing was ever recorded.

    Only the embedded database is upgraded on the way: one that others use as well is left to
    `raflow db upgrade`.

    Raises:
        StoreError: The database cannot be used.
    """
    settings = config.load()
    if not has_record(settings):
        yield None
        return
    embedded = not settings.database_url
    with Store.open(settings.database, log_dir=settings.logs, create=embedded) as store:
        yield store
