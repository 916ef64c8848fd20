"""What one may ask for at once: strangers few tries, and nobody all the places to wait at."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from raflow import errors

TRIES: Final = 60
"""So many tokens that do not count an address may show within a minute."""
PLACES: Final = 50
"""So many streams and waiting requests one token may have."""
ALL_PLACES: Final = 500
"""So many all of them may have: each is an open connection."""
_MINUTE: Final = 60.0
_ADDRESSES: Final = 10_000


class Strangers:
    """Counts who shows tokens that do not count: looking them up costs the database something."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._tries: Counter[str] = Counter()

    def check(self, address: str) -> None:
        """Refuse an address that has tried too often.

        Raises:
            TooManyError: It has.
        """
        if self._clock() - self._since >= _MINUTE:
            self._since = self._clock()
            self._tries.clear()
        # So many addresses at once are one stranger with many.
        if self._tries[address] >= TRIES or len(self._tries) > _ADDRESSES:
            raise errors.TooManyError(
                f"{TRIES} tokens that do not count came from this address within a minute. New "
                "ones are looked at again when it is over."
            )

    def failed(self, address: str) -> None:
        """Note that a token of this address does not count."""
        self._tries[address] += 1


class Crowd:
    """Gives out places to those who wait: for events, or for what is asked of a run."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()

    @contextlib.contextmanager
    def place(self, token_id: str, *, is_worker: bool = False) -> Iterator[None]:
        """Have a place as long as the block lasts.

        Args:
            token_id: Whose.
            is_worker: Whether it is a worker, many of which may share a token.

        Raises:
            TooManyError: This token has too many already, or all are taken.
        """
        most = ALL_PLACES if is_worker else PLACES
        if self._taken[token_id] >= most or self._taken.total() >= ALL_PLACES:
            raise errors.TooManyError(
                f"A server has {ALL_PLACES} places for streams and requests that wait, {PLACES} of "
                "them for one token, and there is none left. Close some, or ask without `wait`."
            )
        self._taken[token_id] += 1
        try:
            yield
        finally:
            self._taken[token_id] -= 1
            if not self._taken[token_id]:
                del self._taken[token_id]
