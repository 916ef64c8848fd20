"""The backends of this process: opened when they are first needed, kept until the process ends."""

from __future__ import annotations

import atexit
import importlib
import threading
from typing import Any, Final

from raflow import config, execute

_open: Final[dict[tuple[str, str], execute.Backend]] = {}
_lock: Final = threading.Lock()


def open_backend(name: str, settings: config.Settings) -> execute.Backend:
    """Return the backend of that name, opening it if need be.

    Raises:
        BackendError: It cannot start or be reached.
    """
    key = (name, settings.ray_address if name == "ray" else "")
    with _lock:
        if key in _open and _open[key].is_gone:
            _open.pop(key).close()
        if key not in _open:
            _open[key] = _make(name, settings)
            # What is registered last is called first. Ray registers its own shutdown when it is
            # imported, and ends or hangs the process if a thread needs it during that.
            atexit.unregister(shutdown)
            atexit.register(shutdown)
        return _open[key]


def shutdown() -> None:
    """Close the backends of this process, and what they started."""
    atexit.unregister(shutdown)
    with _lock:
        for opened in _open.values():
            opened.close()
        _open.clear()


def _make(name: str, settings: config.Settings) -> execute.Backend:
    # Imported only here: Ray takes a second to import, and a local run needs none of it.
    module: Any = importlib.import_module(f"raflow.execute.{name}")
    made: execute.Backend = (
        module.LocalBackend(resources=settings.local_resources)
        if name == "local"
        else module.RayBackend(
            address=settings.ray_address or None,
            home=settings.home,
            start_seconds=settings.worker_start_seconds,
            stay=settings.ray_stay,
        )
    )
    return made
