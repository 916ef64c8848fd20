"""The items that the body gave to a map: all there, or taken from an iterator bit by bit."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from raflow import engine
from raflow.define import Columns, Stream

PIECE: Final = 4096
"""How many items are taken from an iterator at a time, at most."""
AHEAD: Final = 4 * PIECE
"""How many may have been taken and not be final."""


class ItemsTaken(NamedTuple):
    """An iterator gave items, or ended, well or with an error."""

    event: engine.ItemsArrived
    error: BaseException | None


class Items(Protocol):
    """Gives the arguments of items when they are sent."""

    length: int | None
    """How many there are; None while they come one after the other."""

    def slice(self, start: int, stop: int) -> Mapping[str, Sequence[Any]]:
        """Return the columns of the items from `start` to `stop`."""

    def finished(self, final: int) -> None:
        """Take note that so many items, from the first on, need not be sent again."""

    def close(self) -> None:
        """Take no more items from where they come from."""


class Given:
    """Items that are all there."""

    def __init__(self, columns: Columns) -> None:
        """Take the columns."""
        self._columns = columns
        self.length: int | None = len(columns)

    def slice(self, start: int, stop: int) -> Mapping[str, Sequence[Any]]:
        """See `Items`."""
        return self._columns.slice(start, stop)

    def finished(self, final: int) -> None:
        """See `Items`."""

    def close(self) -> None:
        """See `Items`."""


class Streamed:
    """Takes items from an iterator on a thread of its own, as far as there is room.

    The iterator is the user's: it may be slow, and must not hold up the driver.
    """

    def __init__(
        self,
        node: int,
        stream: Stream,
        post: Callable[[ItemsTaken], None],
        clock: Callable[[], float],
    ) -> None:
        """Prepare it; `start` begins to take items, which are told by `post`."""
        self.length: int | None = None
        self._node = node
        self._stream = stream
        self._post = post
        self._clock = clock
        self._pieces: list[tuple[int, Columns]] = []
        self._taken = 0
        self._final = 0
        self._closed = False
        self._room = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="raflow-items", daemon=True)

    def start(self) -> None:
        """Begin to take items."""
        self._thread.start()

    def slice(self, start: int, stop: int) -> Mapping[str, Sequence[Any]]:
        """See `Items`; the items must have arrived."""
        with self._room:
            first = bisect.bisect_right(self._pieces, start, key=_begin) - 1
            pieces = self._pieces[first:]
        found: dict[str, list[Any]] = {}
        for begin, columns in pieces:
            if begin >= stop:
                break
            part = columns.slice(max(start - begin, 0), stop - begin)
            for name, column in part.items():
                found.setdefault(name, []).extend(column)
        return found

    def finished(self, final: int) -> None:
        """See `Items`."""
        with self._room:
            self._final = max(self._final, final)
            keep = bisect.bisect_right(self._pieces, self._final, key=_begin) - 1
            del self._pieces[: max(keep, 0)]
            self._room.notify()

    def close(self) -> None:
        """See `Items`."""
        with self._room:
            self._closed = True
            self._room.notify()

    def _work(self) -> None:
        complete = False
        error: BaseException | None = None
        while not complete and self._wait_for_room():
            try:
                columns = self._stream.take(PIECE)
            except BaseException as raised:
                # One item more, which tells why there are no others.
                error = raised
                self._taken += 1
                complete = True
            else:
                complete = not len(columns)
                if not complete:
                    with self._room:
                        self._pieces.append((self._taken, columns))
                    self._taken += len(columns)
            event = engine.ItemsArrived(
                at=self._clock(),
                node=self._node,
                length=self._taken,
                complete=complete,
                error=_in_words(error) if error else "",
            )
            self._post(ItemsTaken(event, error))

    def _wait_for_room(self) -> bool:
        with self._room:
            while self._taken - self._final > AHEAD and not self._closed:
                self._room.wait()
            return not self._closed


def _in_words(error: BaseException) -> str:
    return f"the items ended too early: {type(error).__name__}: {error}"


def _begin(piece: tuple[int, Columns]) -> int:
    return piece[0]
