"""The store of a process: opened once, and again when it is another one."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from raflow import config, errors
from raflow.runtime.record._stores import close_stores, lend_store
from raflow.store import EXPECTED_REVISION, is_ready, upgrade


@pytest.fixture(autouse=True)
def _none_kept() -> Iterator[None]:
    close_stores()
    yield
    close_stores()


@pytest.fixture
def settings(tmp_path: Path) -> config.Settings:
    return config.Settings(home=tmp_path / "home")


def test_the_next_run_gets_the_same_store(settings: config.Settings) -> None:
    with lend_store(settings, at_once=True) as first:
        pass
    with lend_store(settings, at_once=False) as second:
        assert second is first
        assert second.is_open


def test_two_runs_at_a_time_have_a_store_each(settings: config.Settings) -> None:
    with lend_store(settings, at_once=True) as first, lend_store(settings, at_once=True) as second:
        assert second is not first
    with lend_store(settings, at_once=True) as third:
        assert third in {first, second}
        assert third.open().leases.abandoned() == []


def test_another_database_is_another_store(settings: config.Settings, tmp_path: Path) -> None:
    with lend_store(settings, at_once=True) as first:
        pass
    elsewhere = config.Settings(home=tmp_path / "elsewhere")
    with lend_store(elsewhere, at_once=True) as second:
        assert second is not first
        assert "elsewhere" in second.database


@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_that_is_no_longer_there_is_opened_again(
    settings: config.Settings, *, replaced: bool
) -> None:
    with lend_store(settings, at_once=True) as first:
        pass
    file = Path(settings.database.removeprefix("sqlite:///"))
    file.rename(file.with_name("old.db"))
    if replaced:
        file.touch()
    with lend_store(settings, at_once=False) as second:
        assert second is not first
        assert second.open().leases.abandoned() == []
    assert file.stat().st_size > 0


def test_a_forked_process_leaves_the_store_alone(settings: config.Settings) -> None:
    with lend_store(settings, at_once=True) as first:
        pass
    child = os.fork()
    if child == 0:
        with lend_store(settings, at_once=True) as second:
            os._exit(0 if second is not first else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    with lend_store(settings, at_once=True) as third:
        assert third is first


def test_a_database_that_is_in_order_is_opened_by_who_needs_it(settings: config.Settings) -> None:
    upgrade(settings.database)
    with lend_store(settings, at_once=False) as store:
        assert not store.is_open
        assert store.paces("flow", "code") == {}
        assert store.is_open


def test_a_database_that_is_not_there_is_made_at_once(settings: config.Settings) -> None:
    with lend_store(settings, at_once=False) as store:
        assert store.is_open


def test_a_database_that_cannot_be_opened_is_told_of_at_once(settings: config.Settings) -> None:
    settings.home.mkdir()
    Path(settings.database.removeprefix("sqlite:///")).write_text("a shopping list")
    with pytest.raises(errors.StoreError), lend_store(settings, at_once=False):
        pass


def test_what_is_surely_ready(settings: config.Settings, tmp_path: Path) -> None:
    assert not is_ready(settings.database)
    upgrade(settings.database)
    assert is_ready(settings.database)
    assert not is_ready(f"{settings.database}?mode=ro")
    assert not is_ready("postgresql://127.0.0.1/raflow")
    assert not is_ready("sqlite:///raflow.db")
    old = tmp_path / "old.db"
    with contextlib.closing(sqlite3.connect(old)) as connection:
        connection.execute("CREATE TABLE raflow_version (version_num TEXT)")
        connection.execute("INSERT INTO raflow_version VALUES ('0001')")
        connection.commit()
        assert not is_ready(f"sqlite:///{old}")
        connection.execute("UPDATE raflow_version SET version_num = ?", (EXPECTED_REVISION,))
        connection.commit()
        assert is_ready(f"sqlite:///{old}")
