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
        if not _open:
            atexit.register(shutdown)
        if key not in _open:
            _open[key] = _make(name, settings)
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
        else module.RayBackend(address=settings.ray_address or None, home=settings.home)
    )
    return made
