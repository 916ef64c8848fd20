"""The feed: whoever has read up to a number has missed nothing before it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from raflow.model import Event, EventKind, StateName, TaskRunKey
from raflow.store import Store, _feed
from tests.store.orders import order
from tests.store.records import RUN, batch, flow_run, flow_version, state_change

WRITERS = 8
EACH = 25


def event(kind: str = "custom.test", about: str = "test:1", **payload: object) -> Event:
    return Event(kind=kind, object=about, at=0.0, payload=payload)


def drain(store: Store) -> list[Event]:
    while store.feed.sequence():
        pass
    return store.feed.after(0)


def test_events_come_back_as_they_were_with_the_time_of_the_database(store: Store) -> None:
    before = time.time()
    told = Event(
        kind=EventKind.FLOW_RUN_STATE,
        object="flow_run:a",
        at=0.0,
        flow_run_id="a",
        flow="etl",
        deployment="nightly",
        actor="ann\0",
        payload={"x": [1, "é", None]},
    )
    store.feed.emit([told])
    [found] = drain(store)
    assert abs(found.at - before) < 60
    assert (found.seq, found.kind, found.object, found.flow_run_id) == (
        1,
        "flow_run.state",
        "flow_run:a",
        "a",
    )
    assert (found.flow, found.deployment, found.payload) == ("etl", "nightly", told.payload)
    assert found.actor == "ann\\x00"
    assert store.feed.last() == 1


def test_filters_and_pages(store: Store) -> None:
    kinds = ["flow_run.state", "flow_run.requested", "flow_runs", "limit.changed"]
    store.feed.emit([event(kind, f"test:{n}", n=n) for n, kind in enumerate(kinds)])
    drain(store)

    def numbers(**which: object) -> list[object]:
        found = store.feed.after(0, **which)  # type: ignore[arg-type]  # of each kind
        return [one.payload["n"] for one in found]

    assert numbers() == [0, 1, 2, 3]
    assert numbers(limit=2) == [0, 1]
    assert numbers(kinds=["flow_run.*"]) == [0, 1]
    assert numbers(kinds=["flow_run.*", "limit.changed"]) == [0, 1, 3]
    assert numbers(about="test:2") == [2]
    assert numbers(flow_run_id="nobody") == []
    assert [one.payload["n"] for one in store.feed.after(2)] == [2, 3]


def test_what_is_not_committed_is_not_told_and_takes_no_number(store: Store) -> None:
    class Undone(Exception):
        pass

    def undone(connection: sa.Connection) -> None:
        from raflow.store import _feed

        _feed.append(connection, [event()])
        raise Undone

    try:
        store._database.write(undone)
    except Undone:
        store.feed.emit([event(n=1)])
    [found] = drain(store)
    assert (found.seq, found.payload) == (1, {"n": 1})


def test_eight_writers_leave_no_gap_and_no_reader_sees_a_number_come_late(
    database_url: str, tmp_path: Path
) -> None:
    # They wait for each other for long: nobody hands out turns.
    with Store.open(database_url, log_dir=tmp_path / "logs", wait_seconds=60) as store:
        seen = written_by_many(store)
    assert [one.seq for one in seen] == list(range(1, 2 * WRITERS * EACH + 1))
    for writer in range(WRITERS):
        mine = [
            (one.payload["number"], one.payload["part"])
            for one in seen
            if one.payload["writer"] == writer
        ]
        assert mine == [(number, part) for number in range(EACH) for part in (0, 1)]


def written_by_many(store: Store) -> list[Event]:
    """Return what a reader saw, in its order, while many wrote and two gave numbers."""
    done = threading.Event()
    seen: list[Event] = []

    def write(writer: int) -> None:
        for number in range(EACH):
            store.feed.emit([event(writer=writer, number=number, part=part) for part in (0, 1)])

    def read() -> None:
        while True:
            over = done.is_set()
            store.feed.sequence(7)
            page = store.feed.after(seen[-1].seq if seen else 0, limit=5)
            seen.extend(page)
            if over and not page and not store.feed.sequence():
                return

    def number_too() -> None:
        while not done.is_set():
            store.feed.sequence(3)

    helpers: list[Callable[[], None]] = [read, number_too]
    with ThreadPoolExecutor(WRITERS + len(helpers)) as pool:
        reading = [pool.submit(helper) for helper in helpers]
        writing = [pool.submit(write, writer) for writer in range(WRITERS)]
        try:
            for one in writing:
                one.result(timeout=120)
        finally:
            done.set()
        for one in reading:
            one.result(timeout=120)
    return seen


def test_an_order_is_told_once_with_who_ordered(store: Store) -> None:
    for _ in range(2):
        store.work.order([order("r1"), order("r2")])
    told = [one for one in drain(store) if one.kind == EventKind.FLOW_RUN_STATE]
    assert [(one.flow_run_id, one.deployment, one.actor) for one in told] == [
        ("r1", "nightly", "ann"),
        ("r2", "nightly", "ann"),
    ]
    assert {one.payload["state"] for one in told} == {"Scheduled"}


def test_many_events_at_once_are_trimmed_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_feed, "_KEPT", 10)
    monkeypatch.setattr(_feed, "_TRIM_EVERY", 20)
    with Store.open(f"sqlite:///{tmp_path / 'raflow.db'}", log_dir=tmp_path) as store:
        for _ in range(3):
            store.work.order([order(f"r{_}-{n}") for n in range(15)])
        kept = [one.seq for one in store.feed.after(0)]
    assert kept == list(range(36, 46))


def test_each_state_that_a_run_enters_is_told_once(store: Store) -> None:
    def apply(seq: int, *names: StateName) -> None:
        run = flow_run(RUN, state_name=names[-1])
        changes = [state_change(10 * seq + n, None, name) for n, name in enumerate(names)]
        others = state_change(10 * seq + 9, TaskRunKey(0), StateName.FAILED)
        store.apply(batch(flow_version(), run, *changes, others, seq=seq))

    apply(0, StateName.RUNNING, StateName.PAUSED)
    apply(1, StateName.COMPLETED)
    apply(1, StateName.COMPLETED)
    told = drain(store)
    assert [(one.object, one.flow, one.payload["state"]) for one in told] == [
        (f"flow_run:{RUN}", "etl", "Running"),
        (f"flow_run:{RUN}", "etl", "Paused"),
        (f"flow_run:{RUN}", "etl", "Completed"),
    ]
