"""Checks of this machine: versions, disk, storage, Ray."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from raflow.cli.doctor._finding import Finding, broken, doubtful, sound

if TYPE_CHECKING:
    from raflow.config import Settings

ENOUGH_DISK: Final = 2 << 30
ENOUGH_SHARED_MEMORY: Final = 512 << 20
_REACHED_SECONDS: Final = 3.0


def python() -> Finding:
    """Say which Python this is."""
    return sound(f"{platform.python_version()} at {sys.executable}")


def raflow() -> Finding:
    """Say which raflow this is."""
    import raflow as package

    return sound(f"{package.__version__} at {Path(package.__file__).parent}")


def ray() -> Finding:
    """Look for Ray, without loading it, and for the memory that its processes share."""
    from raflow._util import version_of

    version = version_of("ray")
    if not version or importlib.util.find_spec("ray") is None:
        return broken("not installed", "Run `pip install raflow` again.")
    shared = Path("/dev/shm")  # noqa: S108 - where Ray keeps its objects, not a file of ours
    free = shutil.disk_usage(shared).free if shared.is_dir() else 0
    found = f"{version}, with {_size(free)} of shared memory"
    if free < ENOUGH_SHARED_MEMORY:
        remedy = (
            "Give the machine more shared memory (docker: `--shm-size=2g`), or expect slow objects."
        )
        return doubtful(found, remedy)
    return sound(found)


def run_on_ray(settings: Settings) -> Finding:
    """Run a flow with one task; what it records is removed."""
    from raflow import runtime
    from raflow.cli.doctor._probe import probe

    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="raflow-doctor-") as home:
        apart: dict[str, Any] = {
            "home": Path(home),
            "database_url": "",
            "result_storage": "",
            "api_url": "",
        }
        outcome = runtime.run_flow(
            probe, {}, settings=settings.model_copy(update=apart), backend="ray"
        )
        runtime.shutdown()
    took = time.perf_counter() - begun
    if outcome.error is not None:
        return broken(f"the flow ended {outcome.flow_run.state.name.value}", str(outcome.error))
    return sound(f"a flow with one task took {took:.1f} s, the start of Ray included")


def _home(settings: Settings) -> Finding:
    settings.home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=settings.home):
        pass
    return sound(f"{settings.home} can be written")


def _disk(settings: Settings) -> Finding:
    free = shutil.disk_usage(settings.home).free
    if free < ENOUGH_DISK:
        remedy = "Free some space, or set RAFLOW_HOME to a larger disk."
        return doubtful(f"{_size(free)} free", remedy)
    return sound(f"{_size(free)} free")


def _key(settings: Settings) -> Finding:
    from raflow import results

    results.signing_key(settings.home)
    return sound(f"{settings.home / 'keys' / 'results.key'} is private")


def _results(settings: Settings) -> Finding:
    from raflow import results

    results.check_storage(settings.results)
    return sound(f"{settings.results} can be written and read")


def _code(settings: Settings) -> Finding:
    if not settings.bundle_storage:
        return sound(f"{settings.bundles}, made by the first deployment")
    from raflow import results

    results.check_storage(settings.bundles)
    return sound(f"{settings.bundles} can be written and read")


def _backend(settings: Settings) -> Finding:
    if settings.backend == "local":
        return sound("tasks run in threads of this process (RAFLOW_BACKEND=local)")
    address = settings.ray_address or os.environ.get("RAY_ADDRESS", "")
    if not address or address == "local":
        return sound("tasks run on a local Ray, started when it is needed")
    if address == "auto":
        return sound("tasks run on the Ray that runs on this machine")
    return _cluster(address)


def _cluster(address: str) -> Finding:
    """Look whether the head of a cluster can be reached; whether it takes us, only Ray can tell."""
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        remedy = "Write the address of the cluster's head as host:port; Ray Client is not used."
        return broken(f"{address!r} is no address of a Ray cluster", remedy)
    try:
        socket.create_connection((host, int(port)), timeout=_REACHED_SECONDS).close()
    except OSError as error:
        remedy = (
            f"Start the cluster (`ray start --head --port={port}`), open the way to it, or correct "
            "RAFLOW_RAY_ADDRESS."
        )
        return broken(f"nothing answers at {address} ({error})", remedy)
    return sound(f"tasks run on the Ray cluster at {address}, {_token_words()}")


def _token_words() -> str:
    """Say which token Ray takes, in the order in which it looks."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled":
        return "without a token"
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "with the token in RAY_AUTH_TOKEN"
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"
    there = Path(path).expanduser().is_file()
    return f"with the token in {path}" if there else "without a token"


def _size(amount: int) -> str:
    from raflow.cli import _format

    return _format.size(amount)


CHECKS: Final[tuple[tuple[str, Callable[[Settings], Finding]], ...]] = (
    ("home", _home),
    ("disk", _disk),
    ("signing key", _key),
    ("result storage", _results),
    ("code storage", _code),
    ("backend", _backend),
)
