"""A worker as a process: its signals, its log, and the database that it works on."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final

from raflow import config
from raflow.store import Store
from raflow.worker._local import LocalWork
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
    """
    log_to_stderr(settings.log_level)
    embedded = not settings.database_url
    with Store.open(settings.database, log_dir=settings.logs, create=embedded) as store:
        logging.getLogger("raflow.worker").info("the record is %s", store.shown_url)
        worker = Worker(
            LocalWork(store, settings),
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
