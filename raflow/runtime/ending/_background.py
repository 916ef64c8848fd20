"""Flow runs whose process is gone are brought to an end by whoever runs a flow next."""

from __future__ import annotations

import logging
import os
import socket
import sys
from typing import TYPE_CHECKING, Final

from raflow import config, execute
from raflow.model import Granted
from raflow.runtime.leases import Fate, abandoned

if TYPE_CHECKING:
    from raflow.runtime._ports import RunStore

_LOG = logging.getLogger("raflow.runtime")
_PAUSE_SECONDS: Final = 60.0
"""At most one process in this time is started to look after the runs of a database and machine."""
_AT_ONCE: Final = 100


def reap_in_background(store: RunStore, settings: config.Settings) -> int:
    """Start `raflow reap`, if there are runs whose process was one of this machine and is gone.

    It is not waited for, and goes on if this process ends. What it prints, and what hooks print in
    it, is added to `reap.log` in the home of raflow.

    Returns:
        The id of the process; 0: there is nothing to do, or somebody else does it.
    """
    gone = [run.id for run, sighting in abandoned(store) if sighting.fate is Fate.GONE]
    if not gone or not sys.executable:
        return 0
    key, holder = f"raflow reap on {socket.gethostname()}", os.urandom(8).hex()
    if not isinstance(store.cache.claim(key, holder, seconds=_PAUSE_SECONDS), Granted):
        return 0
    try:
        return _start(settings, gone[:_AT_ONCE])
    # Python raises NotImplementedError where the system's posix_spawn knows no `setsid`.
    except (OSError, NotImplementedError) as error:
        _LOG.warning("`raflow reap` cannot be started: %s", error)
        return 0


def _start(settings: config.Settings, run_ids: list[str]) -> int:
    settings.home.mkdir(parents=True, exist_ok=True)
    log, flags = str(settings.home / "reap.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND
    environment = {name: text for name, text in os.environ.items() if name != execute.MARK}
    environment |= {
        "RAFLOW_HOME": str(settings.home),
        "RAFLOW_DATABASE_URL": settings.database_url,
        "RAFLOW_REAP": "0",
    }
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "raflow", "reap", "--only-with-hooks", *run_ids],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
