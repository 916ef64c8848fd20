"""Opening a database that cannot be used says which one, why, and what to do."""

from __future__ import annotations

import os
import pickle
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from raflow import config, errors
from raflow.store import Store, current_revision, upgrade
from tests.store import records


@pytest.fixture
def postgres_url(empty_postgres_url: str) -> str:
    """Here tables are made in databases that have none."""
    return empty_postgres_url


def refusal(url: str, log_dir: Path, *, create: bool = True) -> str:
    with pytest.raises(errors.StoreError) as caught:
        Store.open(url, log_dir=log_dir, create=create, wait_seconds=0.2)
    assert pickle.loads(pickle.dumps(caught.value)).message == caught.value.message
    return caught.value.message


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Do something with the rights of a user who owns nothing; root may write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public_dir() -> Iterator[Path]:
    """A directory that every user may look into, outside of pytest's private one."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path
        path.chmod(0o755)


def test_the_directory_is_made_for_its_owner_alone(sqlite_url: str, tmp_path: Path) -> None:
    with Store.open(sqlite_url, log_dir=tmp_path):
        pass
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700


def test_what_does_not_exist_is_not_made_unless_asked(sqlite_url: str, tmp_path: Path) -> None:
    assert "The first `raflow run` makes it" in refusal(sqlite_url, tmp_path, create=False)
    with pytest.raises(errors.StoreError, match="does not exist"):
        current_revision(sqlite_url)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("name", ["why?not=this", "50%25 off", "a#b", "white space"])
def test_a_home_of_any_name(name: str, tmp_path: Path) -> None:
    settings = config.load(home=tmp_path / name)
    with Store.open(settings.database, log_dir=settings.logs) as opened:
        assert opened.is_there()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert {path.name for path in (tmp_path / name).iterdir()} == {"raflow.db"}


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database, and longer than the header of one " * 40, encoding="utf-8")
    message = refusal(f"sqlite:///{file}", tmp_path)
    assert str(file) in message
    assert "file is not a database" in message
    assert "choose another one" in message
    assert file.read_text(encoding="utf-8").startswith("not a database")


def test_a_database_that_is_damaged(sqlite_url: str, tmp_path: Path) -> None:
    file = tmp_path / "home" / "raflow.db"
    with Store.open(sqlite_url, log_dir=tmp_path) as store:
        store.apply(records.batch(records.flow_run()))
    content = bytearray(file.read_bytes())
    content[100:4096] = os.urandom(3996)
    file.write_bytes(content)
    assert "malformed" in refusal(sqlite_url, tmp_path)


def test_a_database_of_another_program(tmp_path: Path) -> None:
    file = tmp_path / "places.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE bookmarks (name TEXT)")
    assert "tables of something else (bookmarks)" in refusal(f"sqlite:///{file}", tmp_path)


def test_a_directory(tmp_path: Path) -> None:
    assert "is a directory. Name a file in it" in refusal(f"sqlite:///{tmp_path}", tmp_path)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = refusal(f"sqlite:///{tmp_path}/file/home/raflow.db", tmp_path)
    assert "cannot be made: Not a directory" in message
    assert "RAFLOW_HOME" in message


def test_a_directory_that_cannot_be_written(public_dir: Path, tmp_path: Path) -> None:
    public_dir.chmod(0o555)
    with ordinary_user():
        message = refusal(f"sqlite:///{public_dir}/raflow.db", tmp_path)
    assert "unable to open database file" in message
    assert "this user may write there" in message


def test_a_file_that_cannot_be_written(public_dir: Path, tmp_path: Path) -> None:
    file = public_dir / "raflow.db"
    upgrade(f"sqlite:///{file}")
    file.chmod(0o444)
    public_dir.chmod(0o555)
    with ordinary_user():
        message = refusal(f"sqlite:///{file}", tmp_path)
    assert "may write" in message


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory"])
def test_a_database_in_memory(url: str, tmp_path: Path) -> None:
    assert "is a database in memory" in refusal(url, tmp_path)


@pytest.mark.parametrize("url", ["raflow.db", "", "postgresql:/x", "C:/raflow.db"])
def test_what_is_no_url(url: str, tmp_path: Path) -> None:
    message = refusal(url, tmp_path)
    assert "is not a database URL. Write sqlite:////path/to/raflow.db" in message


def test_a_database_that_raflow_does_not_speak(tmp_path: Path) -> None:
    message = refusal("mysql://me:secret@host/db", tmp_path)
    assert "'mysql://me:***@host/db' is on 'mysql'" in message


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:secret@127.0.0.1:9/db",
        "postgres://me@127.0.0.1:9/db?password=secret",
        "postgresql://127.0.0.1:9/db?sslpassword=secret&nonsense=1",
        "postgresql+psycopg2://127.0.0.1:9/db?user=me&password=secret&sslmode=disable",
    ],
)
def test_a_server_that_is_not_there(url: str, tmp_path: Path) -> None:
    message = refusal(url, tmp_path)
    assert "cannot be reached" in message
    assert "127.0.0.1:9" in message
    assert "RAFLOW_DATABASE_URL" in message
    assert "secret" not in message


@pytest.mark.postgres
def test_a_database_that_the_server_does_not_have(postgres_server: str, tmp_path: Path) -> None:
    url = postgres_server.replace("/postgres?", "/nowhere?")
    assert 'database "nowhere" does not exist' in refusal(url, tmp_path)


@pytest.mark.postgres
def test_tables_that_someone_changed(postgres_url: str, tmp_path: Path) -> None:
    upgrade(postgres_url)
    with Store.open(postgres_url, log_dir=tmp_path) as store:
        import psycopg

        with psycopg.connect(postgres_url) as connection:
            connection.execute("ALTER TABLE flow_runs RENAME TO runs")
        with pytest.raises(errors.StoreError, match=r'refused a statement.*"flow_runs"'):
            store.flow_runs()
