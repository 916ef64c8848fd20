"""One writes, many read, and nobody waits for long."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from raflow import errors
from raflow.store import Store
from raflow.store._database import _engine
from tests.store import orders, records

ITEMS = 50


def test_readers_see_whole_batches_while_one_writes(database_url: str, tmp_path: Path) -> None:
    with Store.open(database_url, log_dir=tmp_path) as writer:
        writer.apply(records.batch(records.flow_run()))
        written = threading.Event()

        def read() -> list[int]:
            counts = []
            with Store.open(database_url, log_dir=tmp_path) as reader:
                while not written.is_set():
                    counts.append(len(reader.task_runs(records.RUN)))
                counts.append(len(reader.task_runs(records.RUN)))
            return counts

        with ThreadPoolExecutor(3) as pool:
            readings = [pool.submit(read) for _ in range(3)]
            try:
                for seq in range(1, 31):
                    items = [records.task_run(0, seq * ITEMS + i) for i in range(ITEMS)]
                    writer.apply(records.batch(*items, seq=seq))
            finally:
                written.set()
        for counts in (reading.result() for reading in readings):
            assert counts == sorted(counts)
            assert {count % ITEMS for count in counts} == {0}
            assert counts[-1] == 30 * ITEMS


def test_threads_share_a_store(store: Store) -> None:
    def work(number: int) -> int:
        run = records.flow_run(f"run-{number}")
        for seq in range(10):
            item = records.task_run(0, seq, flow_run_id=run.id)
            store.apply(records.batch(run, item, seq=seq, flow_run_id=run.id))
        return len(store.task_runs(run.id))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [10] * 8
    assert len(store.flow_runs()) == 8


def test_a_reader_that_takes_its_time_does_not_stop_the_writer(
    sqlite_url: str, tmp_path: Path
) -> None:
    with (
        Store.open(sqlite_url, log_dir=tmp_path, wait_seconds=0.2) as store,
        closing(sqlite3.connect(tmp_path / "home" / "raflow.db", isolation_level=None)) as reader,
    ):
        store.apply(records.batch(records.flow_run()))
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM task_runs").fetchone() == (0,)
        assert store.apply(records.batch(records.task_run(), seq=1)) is True
        assert reader.execute("SELECT count(*) FROM task_runs").fetchone() == (0,)


def test_a_locked_database_is_waited_for(sqlite_url: str, tmp_path: Path) -> None:
    with (
        Store.open(sqlite_url, log_dir=tmp_path) as store,
        closing(
            sqlite3.connect(
                tmp_path / "home" / "raflow.db", isolation_level=None, check_same_thread=False
            )
        ) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        release = threading.Timer(0.3, lambda: other.execute("COMMIT"))
        release.start()
        assert store.apply(records.batch(records.flow_run())) is True
        release.join()


def test_a_database_that_stays_locked_is_an_error(sqlite_url: str, tmp_path: Path) -> None:
    with (
        Store.open(sqlite_url, log_dir=tmp_path, wait_seconds=0.3) as store,
        closing(sqlite3.connect(tmp_path / "home" / "raflow.db", isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(errors.StoreError, match=r"database is locked\. Find the process"):
            store.apply(records.batch(records.flow_run()))
        assert store.flow_runs() == []
        other.execute("ROLLBACK")
        assert store.apply(records.batch(records.flow_run())) is True


@pytest.mark.postgres
def test_a_server_that_stays_locked_is_an_error(postgres_url: str, tmp_path: Path) -> None:
    with (
        Store.open(postgres_url, log_dir=tmp_path, wait_seconds=0.1) as store,
        psycopg.connect(postgres_url) as other,
    ):
        other.execute("LOCK TABLE applied_batches IN EXCLUSIVE MODE")
        with pytest.raises(errors.StoreError, match="lock timeout"):
            store.apply(records.batch(records.flow_run()))
        other.rollback()
        assert store.apply(records.batch(records.flow_run())) is True


def test_a_process_that_stands_still_in_a_transaction_keeps_nobody_out(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_engine, "_IDLE_SECONDS", 0.5)
    with (
        Store.open(postgres_url, log_dir=tmp_path) as stopped,
        Store.open(postgres_url, log_dir=tmp_path) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        orders.ordered(other, "r1")
        held, goes_on = threading.Event(), threading.Event()

        def take(connection: sa.Connection) -> str:
            found = connection.execute(sa.text("SELECT name FROM pools FOR UPDATE")).scalar_one()
            held.set()
            goes_on.wait(60)
            connection.execute(sa.text("UPDATE pools SET description = 'late'"))
            return str(found)

        late = pool.submit(stopped._database.write, take)
        assert held.wait(60)
        assert orders.ids(orders.claim(other)) == ["r1"]
        goes_on.set()
        # What it had begun is nothing; it does it again.
        assert late.result(60) == "default"
        assert other.work.pool("default").pool.description == "late"
