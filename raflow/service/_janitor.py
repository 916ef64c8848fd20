"""Forgetting what nobody needs any more, a portion at a time."""

from __future__ import annotations

from typing import Final

from raflow.store import Store

KEY_SECONDS: Final = 7 * 86_400.0
"""So long an order can be repeated under its idempotency key."""
TOKEN_SECONDS: Final = 7 * 86_400.0
"""So long a token that does not count any more is still known by its name."""
EVENT_SECONDS: Final = 30 * 86_400.0
EVENTS: Final = 10_000_000
_EVERY_SECONDS: Final = 300.0
_AGAIN_SECONDS: Final = 0.5
_PORTION: Final = 10_000


class Janitor:
    """Deletes old events, idempotency keys and tokens. Several may do so over one store."""

    def __init__(self, store: Store) -> None:
        """Take the store that it cleans up."""
        self._store = store

    def look(self) -> float:
        """Delete a portion of each kind.

        Returns:
            In how many seconds to look again: soon, if there is more.

        Raises:
            StoreError: The database is not there; what was deleted is deleted.
        """
        events = self._store.feed.trim(seconds=EVENT_SECONDS, most=EVENTS, limit=_PORTION)
        keys = self._store.work.forget_keys(KEY_SECONDS, limit=_PORTION)
        tokens = self._store.tokens.forget_old(TOKEN_SECONDS, limit=_PORTION)
        return _AGAIN_SECONDS if _PORTION in {events, keys, tokens} else _EVERY_SECONDS
