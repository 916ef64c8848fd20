"""Items that a map takes from an iterator."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from raflow.define import Columns
from raflow.engine import ItemsArrived
from raflow.runtime.calls._items import AHEAD, PIECE, ItemsTaken, Streamed


class Numbers:
    """A stream of so many numbers, which may break."""

    def __init__(self, count: int, *, breaks: bool = False) -> None:
        self.taken = 0
        self._count = count
        self._breaks = breaks

    def take(self, count: int) -> Columns:
        if self._breaks and self.taken + count > self._count:
            raise ValueError("the file is damaged")
        start, self.taken = self.taken, min(self.taken + count, self._count)
        return Columns({"x": range(start, self.taken)}, self.taken - start)


class Told:
    """Keeps what is posted."""

    def __init__(self) -> None:
        self.events: list[ItemsArrived] = []
        self.error: BaseException | None = None
        self.changed = threading.Condition()

    def post(self, taken: ItemsTaken) -> None:
        with self.changed:
            self.events.append(taken.event)
            self.error = taken.error
            self.changed.notify_all()

    def wait(self, until: Callable[[ItemsArrived], bool]) -> ItemsArrived:
        with self.changed:
            assert self.changed.wait_for(lambda: self.events and until(self.events[-1]), 10)
            return self.events[-1]


@pytest.fixture
def told() -> Told:
    return Told()


def test_items_arrive_in_pieces_up_to_the_end(told: Told) -> None:
    items = Streamed(7, Numbers(PIECE + 10), told.post, lambda: 5.0)
    items.start()
    last = told.wait(lambda event: event.complete)
    assert [event.length for event in told.events] == [PIECE, PIECE + 10, PIECE + 10]
    assert last == ItemsArrived(at=5.0, node=7, length=PIECE + 10, complete=True)
    assert items.slice(PIECE - 2, PIECE + 2) == {"x": [PIECE - 2, PIECE - 1, PIECE, PIECE + 1]}


def test_no_more_is_taken_than_there_is_room_for(told: Told) -> None:
    numbers = Numbers(100 * PIECE)
    items = Streamed(0, numbers, told.post, lambda: 0.0)
    items.start()
    told.wait(lambda event: event.length > AHEAD)
    time.sleep(0.05)
    assert numbers.taken == AHEAD + PIECE
    items.finished(2 * PIECE)
    told.wait(lambda event: event.length == AHEAD + 3 * PIECE)
    time.sleep(0.05)
    assert numbers.taken == AHEAD + 3 * PIECE
    items.close()


def test_an_iterator_that_breaks_makes_one_item_more_which_tells_why(told: Told) -> None:
    items = Streamed(0, Numbers(PIECE + 10, breaks=True), told.post, lambda: 0.0)
    items.start()
    last = told.wait(lambda event: event.complete)
    assert last.length == PIECE + 1
    assert "ValueError: the file is damaged" in last.error
    assert isinstance(told.error, ValueError)
