"""`raflow doctor`: whether everything that a run needs is there."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from raflow import errors
from raflow.cli._errors import ExitCode
from raflow.cli._options import Json

if TYPE_CHECKING:
    from raflow.config import Settings

_ENOUGH_DISK: Final = 2 << 30
_ENOUGH_SHARED_MEMORY: Final = 512 << 20


class Health(StrEnum):
    """How a check went."""

    OK = "ok"
    WARNING = "warning"
    """A run can work, or fail later."""
    FAILED = "failed"
    """A run cannot work."""


class Check(NamedTuple):
    """What was looked at, and what was found."""

    name: str
    health: Health
    found: str
    remedy: str = ""


def doctor(
    ray: Annotated[
        bool, typer.Option("--ray", help="Also run a flow on Ray, starting one if need be.")
    ] = False,
    json_: Json = False,
) -> None:
    """Check the installation, the database, the result storage and Ray.

    Exit code 3 means that something a run needs is missing.
    """
    from raflow.cli import _console

    checks = []
    for check in run_checks(with_ray=ray):
        checks.append(check)
        if not json_:
            _print(check)
    failed = any(check.health is Health.FAILED for check in checks)
    if json_:
        listed = [check._asdict() for check in checks]
        _console.emit_json({"ok": not failed, "checks": listed})
    elif not ray:
        _console.out().print("`raflow doctor --ray` runs a flow on Ray as well.", style="dim")
    raise typer.Exit(ExitCode.ENVIRONMENT if failed else ExitCode.OK)


def run_checks(*, with_ray: bool) -> Iterator[Check]:
    """Make each check when its turn comes; none raises."""
    from raflow import config

    yield _check("python", _python)
    yield _check("raflow", _raflow)
    yield _check("ray", _ray)
    try:
        settings = config.load()
    except errors.ConfigError as error:
        yield Check("settings", Health.FAILED, error.message, "Change or unset the variable.")
        return
    for name, look in _CHECKS:
        yield _check(name, lambda look=look: look(settings))  # type: ignore[misc]  # mypy on defaults
    if with_ray:
        yield _check("run on ray", lambda: _run_on_ray(settings))


def _check(name: str, look: Callable[[], tuple[Health, str, str]]) -> Check:
    try:
        return Check(name, *look())
    except errors.RaflowError as error:
        return Check(name, Health.FAILED, error.message)
    except OSError as error:
        return Check(name, Health.FAILED, str(error), "Set RAFLOW_HOME to a directory of yours.")


def _python() -> tuple[Health, str, str]:
    found = f"{platform.python_version()} at {sys.executable}"
    return Health.OK, found, ""


def _raflow() -> tuple[Health, str, str]:
    import raflow

    return Health.OK, f"{raflow.__version__} at {Path(raflow.__file__).parent}", ""


def _ray() -> tuple[Health, str, str]:
    from raflow._util import version_of

    version = version_of("ray")
    if not version or importlib.util.find_spec("ray") is None:
        return Health.FAILED, "not installed", "Run `pip install raflow` again."
    shared = Path("/dev/shm")  # noqa: S108 - where Ray keeps its objects, not a file of ours
    free = shutil.disk_usage(shared).free if shared.is_dir() else 0
    if free < _ENOUGH_SHARED_MEMORY:
        remedy = (
            "Give the machine more shared memory (docker: `--shm-size=2g`), or expect slow objects."
        )
        return Health.WARNING, f"{version}, with {_size(free)} of shared memory", remedy
    return Health.OK, f"{version}, with {_size(free)} of shared memory", ""


def _home(settings: Settings) -> tuple[Health, str, str]:
    settings.home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=settings.home):
        pass
    return Health.OK, f"{settings.home} can be written", ""


def _disk(settings: Settings) -> tuple[Health, str, str]:
    free = shutil.disk_usage(settings.home).free
    if free < _ENOUGH_DISK:
        remedy = "Free some space, or set RAFLOW_HOME to a larger disk."
        return Health.WARNING, f"{_size(free)} free", remedy
    return Health.OK, f"{_size(free)} free", ""


def _database(settings: Settings) -> tuple[Health, str, str]:
    from raflow import store
    from raflow.cli import _open

    shown = store.without_passwords(settings.database)
    if not _open.has_record(settings):
        return Health.OK, f"{shown} is made by the first run", ""
    revision = store.current_revision(settings.database)
    if revision != store.EXPECTED_REVISION:
        found = f"{shown} is at revision {revision}, not {store.EXPECTED_REVISION}"
        return Health.FAILED, found, "Run `raflow db upgrade`."
    with store.Store.open(settings.database, log_dir=settings.logs, create=False) as opened:
        begun = time.perf_counter()
        opened.flow_runs(limit=1)
        took = (time.perf_counter() - begun) * 1000
    return Health.OK, f"{shown} at revision {revision}, answers in {took:.1f} ms", ""


def _key(settings: Settings) -> tuple[Health, str, str]:
    from raflow import results

    results.signing_key(settings.home)
    return Health.OK, f"{settings.home / 'keys' / 'results.key'} is private", ""


def _results(settings: Settings) -> tuple[Health, str, str]:
    from raflow import results

    results.check_storage(settings.results)
    return Health.OK, f"{settings.results} can be written and read", ""


def _backend(settings: Settings) -> tuple[Health, str, str]:
    if settings.backend == "local":
        return Health.OK, "tasks run in threads of this process (RAFLOW_BACKEND=local)", ""
    if settings.ray_address:
        return Health.OK, f"tasks run on the Ray cluster at {settings.ray_address}", ""
    return Health.OK, "tasks run on a local Ray, started when it is needed", ""


def _run_on_ray(settings: Settings) -> tuple[Health, str, str]:
    from raflow import runtime
    from raflow.cli._probe import probe

    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="raflow-doctor-") as home:
        apart: dict[str, Any] = {"home": Path(home), "database_url": "", "result_storage": ""}
        outcome = runtime.run_flow(
            probe, {}, settings=settings.model_copy(update=apart), backend="ray"
        )
        runtime.shutdown()
    took = time.perf_counter() - begun
    if outcome.error is not None:
        return (
            Health.FAILED,
            f"the flow ended {outcome.flow_run.state.name.value}",
            str(outcome.error),
        )
    return Health.OK, f"a flow with one task took {took:.1f} s, the start of Ray included", ""


_CHECKS: Final = (
    ("home", _home),
    ("disk", _disk),
    ("database", _database),
    ("signing key", _key),
    ("result storage", _results),
    ("backend", _backend),
)


def _size(amount: int) -> str:
    from raflow.cli import _format

    return _format.size(amount)


def _print(check: Check) -> None:
    from rich.text import Text

    from raflow.cli import _console

    sign, style = {
        Health.OK: ("✔", "green"),
        Health.WARNING: ("!", "bold yellow"),
        Health.FAILED: ("✘", "bold red"),
    }[check.health]
    out = _console.out()
    grid = _console.facts([])
    grid.add_row(Text(f"{sign} {check.name:<14}", style=style), Text(check.found))
    if check.remedy:
        grid.add_row("", Text(check.remedy, style="bold"))
    out.print(grid)
