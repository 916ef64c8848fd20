"""Serving deployments: this process takes their runs, and starts those of their schedules."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Sequence
from typing import Final

from raflow import config, errors
from raflow.model import Deployment
from raflow.service import Upkeep
from raflow.store import Store
from raflow.worker._local import LocalWork
from raflow.worker._process import drained_by_signals, log_to_stderr
from raflow.worker._worker import Worker

_LOG: Final = logging.getLogger("raflow.worker")
_RUNNER: Final = "raflow.worker._runner_main"
_LOOK_SECONDS: Final = 0.2


def serve(
    deployments: Sequence[Deployment], *, runners: int = 0, drain_seconds: float = 60.0
) -> None:
    """Take the runs of the pools of deployments until Ctrl-C; see `raflow.serve`."""
    _check_process()
    settings = config.load()
    settings.check_local("serve()")
    log_to_stderr(settings.log_level)
    embedded = not settings.database_url
    with Store.open(settings.database, log_dir=settings.logs, create=embedded) as store:
        workers = [
            Worker(
                LocalWork(store, settings),
                settings,
                pool=pool,
                runners=runners,
                drain_seconds=drain_seconds,
            )
            for pool in dict.fromkeys(one.spec.pool for one in deployments)
        ]
        for one in deployments:
            told = "deployment %r, version %s, is served: `raflow run-deployment %s` runs it"
            _LOG.info(told, one.name, one.version, one.name)
        is_main = threading.current_thread() is threading.main_thread()
        with drained_by_signals(workers) if is_main else contextlib.nullcontext(), Upkeep(store):
            _run(workers)


def _run(workers: Sequence[Worker]) -> None:
    """Run workers, each in a thread; this one stays free for signals."""
    threads = [threading.Thread(target=worker.run, name="raflow-worker") for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(_LOOK_SECONDS)


def _check_process() -> None:
    """Refuse to serve where a worker loads the file of the flow."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None and spec.name == _RUNNER:
        raise errors.DefinitionError(
            "The file serves its flows when it is loaded, and a worker loads it to run them. Put "
            'the call under `if __name__ == "__main__":`.'
        )
