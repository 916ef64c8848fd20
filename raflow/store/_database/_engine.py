"""Connections: how each database is opened, how long it is waited for, and what its errors mean."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from urllib.parse import unquote

import sqlalchemy as sa
from sqlalchemy import event

from raflow import errors

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

T = TypeVar("T")

WAIT_SECONDS: Final = 10.0
_PAUSES: Final = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
_CONNECT_SECONDS: Final = 5
_IDLE_SECONDS: Final = 10.0
"""A process that stands still within a transaction keeps its locks no longer than this."""
# Serialization failure, deadlock, lock not available, and the server starting or stopping.
_TRANSIENT_SQLSTATES: Final = frozenset({"40001", "40P01", "55P03", "57P01", "57P02", "57P03"})
_CANCELED: Final = "57014"
_STEPS: Final = 100_000
"""Of SQLite's virtual machine, some milliseconds: so often the time of a read is looked at."""
_PASSWORD: Final = re.compile(r"(?i)(password=)[^&\s]*")

_SQLITE_REMEDIES: Final = {
    "SQLITE_CANTOPEN": "Check that its directory exists and that this user may write there.",
    "SQLITE_READONLY": "Check that this user may write to the file and its directory.",
    "SQLITE_NOTADB": "Move the file away or choose another one with RAFLOW_DATABASE_URL.",
    "SQLITE_CORRUPT": "Move the file away, and save what is left with `sqlite3 FILE .recover`.",
    "SQLITE_FULL": "Free disk space; what was recorded so far is intact.",
    "SQLITE_IOERR": "Check the disk; the record needs a local one that can lock files.",
    "SQLITE_BUSY": "Find the process that keeps it locked (`fuser FILE`), or try again later.",
}


@dataclass(frozen=True, slots=True)
class Database:
    """An open database: connections that write, connections that read, and patience with both."""

    shown: str
    """The URL without passwords, for messages."""
    writer: sa.Engine
    reader: sa.Engine
    wait_seconds: float
    """How long a locked database is waited for."""

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        create: bool,
        wait_seconds: float = WAIT_SECONDS,
        foreign_keys: bool = True,
    ) -> Self:
        """Prepare connections; an unreachable server is noticed by the first use.

        Raises:
            StoreError: The URL cannot be used, or the file cannot be made.
        """
        parsed = parse_url(url)
        if parsed.get_backend_name() == "sqlite":
            _prepare_file(parsed, create=create)
            return cls(
                shown=shown_url(parsed),
                writer=_sqlite_writer(parsed, wait_seconds, foreign_keys=foreign_keys),
                reader=_sqlite_reader(parsed, wait_seconds),
                wait_seconds=wait_seconds,
            )
        engine = _postgres_engine(parsed, wait_seconds)
        return cls(shown=shown_url(parsed), writer=engine, reader=engine, wait_seconds=wait_seconds)

    def read(self, work: Callable[[sa.Connection], T], *, seconds: float | None = None) -> T:
        """Run `work` in a transaction that changes nothing; may run it more than once.

        Args:
            work: What reads.
            seconds: How long the database may take over it. Default: as long as it takes.

        Raises:
            TooSlowError: The database took longer.
            StoreError: The database is unreachable, locked or broken.
        """
        if seconds is None:
            return self._patiently(self.reader, work)

        def within(connection: sa.Connection) -> T:
            with _limited(connection, seconds):
                return work(connection)

        return self._patiently(self.reader, within)

    def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` in a transaction and commit it; may run it more than once, commit included.

        Raises:
            StoreError: The database is unreachable, locked or broken; nothing was changed, or a
                commit was sent and its answer lost.
        """
        return self._patiently(self.writer, work)

    def identity(self) -> tuple[int, int] | None:
        """Return what tells a file from another at the same place; None if there is no file."""
        if self.writer.url.get_backend_name() != "sqlite":
            return None
        try:
            found = Path(str(self.writer.url.database)).stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def close(self) -> None:
        """Close every connection."""
        self.writer.dispose()
        self.reader.dispose()

    def _patiently(self, engine: sa.Engine, work: Callable[[sa.Connection], T]) -> T:
        deadline = time.monotonic() + self.wait_seconds
        pauses = iter(_PAUSES)
        while True:
            try:
                with engine.begin() as connection:
                    return work(connection)
            except sa.exc.SQLAlchemyError as error:
                if not _is_transient(error) or time.monotonic() >= deadline:
                    raise explain(self.shown, error) from error
                time.sleep(next(pauses, _PAUSES[-1]))


@contextlib.contextmanager
def _limited(connection: sa.Connection, seconds: float) -> Iterator[None]:
    """Have the database give up what takes longer."""
    if connection.dialect.name != "sqlite":
        milliseconds = max(1, round(seconds * 1000))  # 0 would be no limit
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {milliseconds}")
        yield
        return
    deadline = time.monotonic() + seconds
    driver: Any = connection.connection.driver_connection
    driver.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
    try:
        yield
    finally:
        driver.set_progress_handler(None, 0)


def parse_url(url: str) -> sa.URL:
    """Check a database URL and name the driver that raflow uses.

    Raises:
        StoreError: The text is no URL, or names a database that raflow cannot use.
    """
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        scheme, separator, _ = url.partition("://")
        text = repr(f"{scheme}://...") if separator else "RAFLOW_DATABASE_URL"
        raise errors.StoreError(f"{text} is not a database URL. {_EXAMPLES}") from error
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        # Decoded here: not every version of SQLAlchemy does.
        path = url.partition("?")[0].partition(":///")[2]
        return parsed.set(drivername="sqlite", database=unquote(path))
    if backend in {"postgres", "postgresql"}:
        return parsed.set(drivername="postgresql+psycopg")
    raise errors.StoreError(
        f"{shown_url(parsed)!r} is on {backend!r}; raflow keeps its record in SQLite or "
        f"PostgreSQL. {_EXAMPLES}"
    )


_EXAMPLES: Final = "Write sqlite:////path/to/raflow.db or postgresql://user:password@host/database."


def shown_url(url: sa.URL) -> str:
    """Return the URL for people: without its passwords, and without the driver."""
    plain = url.set(drivername=url.get_backend_name())
    return _PASSWORD.sub(r"\1***", plain.render_as_string(hide_password=True))


def without_passwords(url: str) -> str:
    """Return the URL of a database for people.

    Raises:
        StoreError: The text is no URL, or names a database that raflow cannot use.
    """
    return shown_url(parse_url(url))


def explain(shown: str, error: sa.exc.SQLAlchemyError) -> errors.StoreError:
    """Say what a database error means and what to do about it."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    text = str(cause).strip().partition("\n")[0]
    if isinstance(error, sa.exc.TimeoutError):
        return errors.StoreError(
            f"The database {shown!r} is kept busy by other threads of this process. Try again."
        )
    name = getattr(cause, "sqlite_errorname", "")
    if name == "SQLITE_INTERRUPT" or getattr(cause, "sqlstate", None) == _CANCELED:
        return errors.TooSlowError(
            f"The database {shown!r} took too long over this, and was stopped. Ask for less: "
            "name a flow or a deployment, or a shorter time."
        )
    for prefix, remedy in _SQLITE_REMEDIES.items():
        if name.startswith(prefix):
            return errors.StoreError(f"The database {shown!r} failed: {text}. {remedy}")
    if isinstance(error, sa.exc.DBAPIError) and not name:
        if error.statement is None or error.connection_invalidated:
            return errors.StoreError(
                f"The database {shown!r} cannot be reached: {text}. Check that the server runs "
                "and that RAFLOW_DATABASE_URL names its host, database and user."
            )
        if isinstance(error, sa.exc.OperationalError):
            return errors.StoreError(
                f"The database {shown!r} failed: {text}. The log of the server may say more."
            )
    return errors.StoreError(
        f"The database {shown!r} refused a statement: {text}. If its tables were not changed by "
        "hand, this is a bug in raflow: please report it with this message."
    )


def _is_transient(error: sa.exc.SQLAlchemyError) -> bool:
    if isinstance(error, sa.exc.TimeoutError):
        return True
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    name = getattr(error.orig, "sqlite_errorname", "")
    return (
        error.connection_invalidated
        or name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
        or getattr(error.orig, "sqlstate", None) in _TRANSIENT_SQLSTATES
    )


def _prepare_file(url: sa.URL, *, create: bool) -> None:
    if url.database in {None, "", ":memory:"} or "mode" in url.query:
        raise errors.StoreError(
            f"{shown_url(url)!r} is a database in memory, which its readers could not share. "
            "Name a file: sqlite:////path/to/raflow.db."
        )
    path = Path(str(url.database))
    if path.is_dir():
        raise errors.StoreError(
            f"The database {shown_url(url)!r} is a directory. Name a file in it."
        )
    if path.exists():
        return
    if not create:
        raise errors.StoreError(
            f"The database {shown_url(url)!r} does not exist. The first `raflow run` makes it, "
            "and so does `raflow db upgrade`."
        )
    try:
        # Parameters and results are their owner's business.
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise errors.StoreError(
            f"The directory of the database {shown_url(url)!r} cannot be made: {error.strerror}. "
            "Choose another one with RAFLOW_HOME or RAFLOW_DATABASE_URL."
        ) from error


def _sqlite_writer(url: sa.URL, wait_seconds: float, *, foreign_keys: bool) -> sa.Engine:
    # A commit is on disk when it returns (FULL). Commits are grouped, so that costs little.
    pragmas = (
        "journal_mode = WAL",
        "synchronous = FULL",
        f"foreign_keys = {'ON' if foreign_keys else 'OFF'}",
    )
    # A read that turns into a write cannot wait for another writer, so a write begins as one.
    return _sqlite_engine(url, wait_seconds, begin="BEGIN IMMEDIATE", pragmas=pragmas, pool_size=1)


def _sqlite_reader(url: sa.URL, wait_seconds: float) -> sa.Engine:
    pragmas = ("query_only = ON",)
    return _sqlite_engine(url, wait_seconds, begin="BEGIN", pragmas=pragmas, pool_size=8)


def _sqlite_engine(
    url: sa.URL, wait_seconds: float, *, begin: str, pragmas: tuple[str, ...], pool_size: int
) -> sa.Engine:
    engine = sa.create_engine(
        url,
        poolclass=sa.QueuePool,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=wait_seconds,
        hide_parameters=True,
        # Transactions begin where `begin` says, not where the driver guesses.
        connect_args={"timeout": wait_seconds, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _postgres_engine(url: sa.URL, wait_seconds: float) -> sa.Engine:
    try:
        engine = sa.create_engine(
            url,
            pool_size=4,
            max_overflow=4,
            pool_timeout=wait_seconds,
            hide_parameters=True,
            connect_args={"connect_timeout": _CONNECT_SECONDS, "tcp_user_timeout": 30_000},
        )
    except ImportError as error:
        raise errors.StoreError(
            f"The database {shown_url(url)!r} needs the PostgreSQL driver. Install it with "
            "`pip install 'raflow[postgres]'`."
        ) from error

    @event.listens_for(engine, "connect")
    def _configure(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        cursor.execute(f"SET lock_timeout = {max(1, round(wait_seconds * 1000))}")
        idle = f"SET idle_in_transaction_session_timeout = {round(_IDLE_SECONDS * 1000)}"
        cursor.execute(idle)
        cursor.close()
        connection.commit()

    return engine
