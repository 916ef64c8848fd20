"""What nobody needs any more is forgotten, a portion at a time; what is needed is not."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from raflow import errors
from raflow.model import Event, TokenKind
from raflow.service import Janitor, _janitor
from raflow.store import Store
from tests.store.orders import order

DAY = 86_400.0


def tell(store: Store, count: int) -> None:
    for _ in range(count):
        store.feed.emit([Event(kind="custom.test", object="test:1", at=0.0)])
    while store.feed.sequence():
        pass


def make_older(store: Store, table: str, seconds: float, which: str = "TRUE") -> None:
    column = "at" if table != "tokens" else "expires_at"
    change = sa.text(f"UPDATE {table} SET {column} = {column} - {seconds} WHERE {which}")
    store._database.write(lambda c: c.execute(change))


def kept(store: Store) -> list[int]:
    return [event.seq for event in store.feed.after(0)]


def test_old_events_go_the_oldest_first_and_a_portion_at_a_time(store: Store) -> None:
    tell(store, 10)
    make_older(store, "events", 2 * DAY, "seq <= 7")
    assert store.feed.trim(seconds=3 * DAY, most=100) == 0
    assert store.feed.trim(seconds=DAY, most=100, limit=5) == 5
    assert kept(store) == [6, 7, 8, 9, 10]
    assert store.feed.first() == 6
    assert store.feed.trim(seconds=DAY, most=100, limit=5) == 2
    assert kept(store) == [8, 9, 10]
    assert store.feed.trim(seconds=DAY, most=2) == 1
    assert kept(store) == [9, 10]


def test_numbers_go_on_although_all_events_are_old(store: Store) -> None:
    assert store.feed.trim(seconds=DAY, most=1) == 0
    assert store.feed.first() == 0
    tell(store, 3)
    make_older(store, "events", 2 * DAY)
    assert store.feed.trim(seconds=DAY, most=0) == 2
    assert kept(store) == [3]
    tell(store, 1)
    assert kept(store) == [3, 4]


def test_a_key_counts_as_long_as_it_is_kept(store: Store) -> None:
    def ordered(run: str, key: str) -> tuple[str, bool]:
        [found] = store.work.order([order(run, key=key)])
        return found.flow_run_id, found.is_new

    assert ordered("r1", "a") == ("r1", True)
    assert ordered("r2", "b") == ("r2", True)
    make_older(store, "idempotency", 2 * DAY, "key = 'a'")
    assert store.work.forget_keys(3 * DAY) == 0
    assert ordered("r3", "a") == ("r1", False)
    assert store.work.forget_keys(DAY) == 1
    assert ordered("r4", "a") == ("r4", True)
    assert ordered("r5", "b") == ("r2", False)


def test_keys_go_a_portion_at_a_time(store: Store) -> None:
    store.work.order([order(f"r{n}", key=str(n)) for n in range(5)])
    make_older(store, "idempotency", 2 * DAY)
    assert [store.work.forget_keys(DAY, limit=3) for _ in range(3)] == [3, 2, 0]


def test_the_janitor_forgets_all_kinds_and_comes_back_soon_for_more(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_janitor, "_PORTION", 2)
    janitor = Janitor(store)
    assert janitor.look() == _janitor._EVERY_SECONDS
    tell(store, 4)
    token, _ = store.tokens.make(TokenKind.USER, name="ann", seconds=60)
    lasting, _ = store.tokens.make(TokenKind.USER, name="bob")
    store.work.order([order("r1", key="a")])
    tell(store, 0)
    make_older(store, "events", 31 * DAY)
    make_older(store, "idempotency", 8 * DAY)
    make_older(store, "tokens", 8 * DAY, f"id = '{token.id}'")
    assert janitor.look() < 1
    while janitor.look() < 1:
        pass
    assert len(kept(store)) == 1
    assert [one.is_new for one in store.work.order([order("r2", key="a")])] == [True]
    assert [one.id for one in store.tokens.list()] == [lasting.id]
    with pytest.raises(errors.NotFoundError):
        store.tokens.revoke(token.id)
