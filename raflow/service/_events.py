"""The feed, for readers who come and go."""

from __future__ import annotations

from collections.abc import Collection

from raflow import model
from raflow.service._runs import LIST_SECONDS
from raflow.store import Store


class Events:
    """Everything that happens, in one order."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def after(
        self,
        seq: int,
        *,
        kinds: Collection[str] = (),
        about: str | None = None,
        flow_run_id: str | None = None,
        limit: int = 100,
    ) -> list[model.Event]:
        """Return what has happened behind an event, oldest first; see `Store.feed`."""
        self._store.feed.sequence()
        return self._store.feed.after(
            seq,
            limit=limit,
            kinds=kinds,
            about=about,
            flow_run_id=flow_run_id,
            seconds=LIST_SECONDS,
        )

    def lacks(self, seq: int) -> bool:
        """Whether events behind this one are not kept any more."""
        return self._store.feed.lacks(seq)

    def last(self) -> int:
        """Return the number of the newest event."""
        self._store.feed.sequence()
        return self._store.feed.last()
