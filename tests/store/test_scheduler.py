"""The loop that starts the runs of schedules."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from raflow import errors, model
from raflow.model.schedule import Interval, Overlap, Policy
from raflow.service import Loop, Scheduler, Upkeep, _loops
from raflow.store import Store
from tests.postgres import running_postgres
from tests.store import schedules
from tests.store.schedules import NOON, change_row, clock_at, deploy, each_second, put, spec
from tests.store.times import stop_between_writes
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
_LOOP = """
import sys, threading
from pathlib import Path
from raflow.service import Upkeep
from raflow.store import Store
with Upkeep(Store.open(sys.argv[1], log_dir=Path(sys.argv[2]))):
    threading.Event().wait()
"""


@contextmanager
def running(scheduler: Scheduler) -> Iterator[Loop]:
    """A scheduler in a thread of its own."""
    loop = Loop("scheduler", scheduler.look)
    loop.start()
    try:
        yield loop
    finally:
        loop.stop()
        assert loop.join(60)


def test_a_slot_that_comes_has_a_run(store: Store) -> None:
    deploy(store)
    row = put(store, each_second(policy=Policy(overlap=Overlap.ALLOW_ALL)))
    told: list[str] = []
    with Upkeep(store, wake=told.append) as upkeep:
        wait_for(lambda: len(store.schedules.slots(row.id)) >= 2)
        assert [(state.name, state.is_well, state.error) for state in upkeep.states()] == [
            ("scheduler", True, ""),
            ("reaper", True, ""),
            ("janitor", True, ""),
        ]
    assert not any(state.is_alive for state in upkeep.states())
    assert {"pool:default", "feed"} <= set(told)
    assert len(store.flow_runs()) == len(store.schedules.slots(row.id))


def test_it_looks_when_it_is_woken_and_stops_at_once(store: Store) -> None:
    deploy(store)
    row = put(store, spec(Interval(schedules.HOUR)))
    looks = []
    scheduler = Scheduler(store, poll_seconds=3600)

    def look() -> float:
        scheduler.look()
        looks.append(1)
        return 3600.0

    loop = Loop("scheduler", look)
    loop.start()
    wait_for(lambda: looks)
    schedules.rewind(store, row.id, 3600)
    loop.wake()
    wait_for(lambda: bool(store.flow_runs()))
    loop.stop()
    assert loop.join(60)


def test_clocks_that_jump_are_followed(store: Store) -> None:
    deploy(store)
    with clock_at(NOON) as clock:
        row = put(store, spec(policy=Policy(overlap=Overlap.ALLOW_ALL)))
        with running(Scheduler(store, poll_seconds=0.05)):
            clock.move(schedules.HOUR)
            wait_for(lambda: len(store.schedules.slots(row.id)) == 1)
            clock.move(-schedules.HOUR)
            clock.move(2 * schedules.HOUR)
            wait_for(lambda: len(store.schedules.slots(row.id)) == 2)
        assert [s.instant for s in store.schedules.slots(row.id)] == [NOON + 7200, NOON + 3600]
        assert len(store.flow_runs()) == 2


def test_nothing_ends_a_loop_and_an_error_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    away, bug = errors.StoreError("the disk is full"), ValueError("a bug")
    coming: list[Exception | None] = [away, away, bug, None]

    def look() -> float:
        error = coming.pop(0)
        loop.wake()
        if error is not None:
            raise error
        loop.stop()
        return 0.0

    loop = Loop("scheduler", look)
    loop.start()
    assert loop.join(60)
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "The scheduler tries again each second: the disk is full"),
        ("ERROR", "The scheduler tries again each second: ValueError: a bug"),
        ("WARNING", "The scheduler works again"),
    ]
    assert caplog.records[1].exc_info is not None


def test_a_loop_that_is_silent_is_not_well(monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()

    def look() -> float:
        never.wait(60)
        return 0.0

    loop = Loop("reaper", look)
    assert not loop.state().is_well
    loop.start()
    assert loop.state().is_well
    monkeypatch.setattr(_loops, "SILENT_SECONDS", 0.0)
    assert (loop.state().is_alive, loop.state().is_well) == (True, False)
    loop.stop()
    never.set()
    assert loop.join(60)


def test_other_time_zones_are_noticed_at_the_start(store: Store) -> None:
    deploy(store)
    row = put(store, spec(Interval(schedules.HOUR)))
    change_row(store, row.id, tzdata="1999a", next_at=row.cursor + 1e6)
    with running(Scheduler(store)):
        wait_for(lambda: store.schedules.get(row.id) == row)


def cut_off(database_url: str) -> None:
    """End all connections to a PostgreSQL database, as its restart does."""
    if database_url.startswith("postgres"):
        end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(f"{end} AND datname = current_database()".encode())


class Servers:
    """Schedulers in processes of their own, over one database."""

    def __init__(self, database_url: str, logs: Path) -> None:
        self._command = [sys.executable, "-c", _LOOP, database_url, str(logs)]
        self.all: list[subprocess.Popen[bytes]] = []

    def begin(self) -> None:
        self.all.append(subprocess.Popen(self._command, cwd=ROOT, env=os.environ))

    def __enter__(self) -> Servers:
        for _ in range(3):
            self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.all:
            server.kill()
            server.wait(60)


def each_second_thrice(store: Store) -> list[model.ScheduleRow]:
    deploy(store)
    policy = Policy(overlap=Overlap.ALLOW_ALL)
    return store.schedules.put("nightly", [each_second(name=n, policy=policy) for n in "abc"])


def wait_for_slots(store: Store, row: model.ScheduleRow, number: int) -> None:
    wait_for(lambda: len(store.schedules.slots(row.id, limit=1000)) >= number)


def check_slots(store: Store, rows: list[model.ScheduleRow]) -> None:
    """Each slot has one run: none twice, and none left out."""
    while store.schedules.decide_due().schedules:
        pass
    runs = [run.origin for run in store.flow_runs(limit=None) if run.origin]
    for row in rows:
        found = Counter(o.slot for o in runs if o.schedule_id == row.id)
        assert set(found.values()) == {1}
        instants = sorted(slot for slot in found if slot is not None)
        assert instants == [instants[0] + n for n in range(len(instants))]
        assert instants[0] - row.cursor <= 1
        assert time.time() - instants[-1] < 60


def test_several_that_are_killed_and_stopped_start_each_slot_once(
    store: Store, database_url: str, tmp_path: Path
) -> None:
    rows = each_second_thrice(store)
    with Servers(database_url, tmp_path) as servers:
        wait_for_slots(store, rows[0], 2)
        servers.all[0].kill()
        with Store.open(database_url, log_dir=tmp_path, wait_seconds=1.0) as impatient:
            stop_between_writes(servers.all[1], impatient)
        wait_for_slots(store, rows[0], 4)
        servers.all[1].send_signal(signal.SIGCONT)
        servers.begin()
        servers.all[2].kill()
        wait_for_slots(store, rows[0], 7)
        cut_off(database_url)
        wait_for_slots(store, rows[0], 9)
    check_slots(store, rows)


@pytest.mark.slow
@pytest.mark.postgres
def test_a_database_that_restarts_again_and_again_loses_no_slot(tmp_path: Path) -> None:
    with (
        running_postgres() as database,
        Store.open(database.get_uri(), log_dir=tmp_path, wait_seconds=60.0) as store,
    ):
        rows = each_second_thrice(store)
        with Servers(database.get_uri(), tmp_path) as servers:
            for turn in range(4):
                wait_for_slots(store, rows[0], 5 * turn + 3)
                servers.all[-1].send_signal(signal.SIGSTOP)
                servers.all[-2].kill()
                database.stop()
                time.sleep(2)
                database.start()
                servers.all[-1].send_signal(signal.SIGCONT)
                servers.begin()
                servers.begin()
            wait_for_slots(store, rows[0], 25)
        check_slots(store, rows)
