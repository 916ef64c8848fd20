"""A worker as a process: its signals, its log, and the record that it works on."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final

from raflow import config, errors
from raflow.store import Store
from raflow.worker._local import LocalWork
from raflow.worker._ports import Work
from raflow.worker._worker import Worker

CANCELLED: Final = 130
"""The exit code of a worker that was told twice to end."""
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def work(
    settings: config.Settings,
    *,
    pool: str = "default",
    runners: int = 0,
    name: str = "",
    drain_seconds: float = 60.0,
) -> int:
    """Run a worker until it is told to end, by SIGTERM or Ctrl-C; twice: at once.

    Args:
        settings: Those of its runs.
        pool: Whose runs it takes.
        runners: How many runs at the same time; 0: as many as there are CPUs.
        name: For people. Default: that of the host.
        drain_seconds: How long runs may go on once it is told to end.

    Returns:
        The exit code: 0, or 130 if it was told twice.

    Raises:
        StoreError: The database cannot be opened.
        ConfigError: A service is named without a token for it, or wrongly.
        AccessError: The token does not count, or not for this pool.
    """
    log_to_stderr(settings.log_level)
    with _opened(settings) as (found, where):
        logging.getLogger("raflow.worker").info("the record is %s", where)
        worker = Worker(
            found,
            settings,
            pool=pool,
            runners=runners,
            name=name,
            drain_seconds=drain_seconds,
        )
        with drained_by_signals([worker]):
            worker.run()
    return CANCELLED if worker.ends_at_once else 0


@contextmanager
def _opened(settings: config.Settings) -> Iterator[tuple[Work, str]]:
    """Open where runs come from: a service, or the database; tell its name, too."""
    if not settings.api_url:
        embedded = not settings.database_url
        with Store.open(settings.database, log_dir=settings.logs, create=embedded) as store:
            yield LocalWork(store, settings), store.shown_url
        return
    # Imported only here: a worker of this machine's database asks nobody.
    from raflow.client import WorkClient  # noqa: PLC0415
    from raflow.worker._remote import RemoteWork  # noqa: PLC0415

    token = settings.api_token.get_secret_value()
    if not token:
        raise errors.ConfigError(
            f"The service {settings.api_url} is named, and RAFLOW_API_TOKEN has no token for it. "
            'An administrator makes one with `POST /api/v1/tokens`, of the kind "worker".'
        )
    with contextlib.closing(WorkClient(settings.api_url, token)) as client:
        yield RemoteWork(client, settings), settings.api_url


@contextmanager
def drained_by_signals(workers: Sequence[Worker]) -> Iterator[None]:
    """Have SIGTERM and Ctrl-C drain workers; from the main thread only."""

    def drain(_number: int, _frame: FrameType | None) -> None:
        for worker in workers:
            worker.drain()

    before = {number: signal.signal(number, drain) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def log_to_stderr(level: str) -> None:
    """Write what workers log to stderr, a line each, unless the program has its own way."""
    if not logging.getLogger("raflow").hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
        )
        logging.getLogger("raflow").addHandler(handler)
        logging.getLogger("raflow").setLevel(level)
