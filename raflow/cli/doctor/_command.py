"""The command, and which checks there are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from raflow import errors
from raflow.cli._errors import ExitCode
from raflow.cli._options import Json
from raflow.cli.doctor._finding import Check, Finding, Health

if TYPE_CHECKING:
    from raflow.config import Settings


def doctor(
    ray: Annotated[
        bool, typer.Option("--ray", help="Also run a flow on Ray, starting one if need be.")
    ] = False,
    json_: Json = False,
) -> None:
    """Check versions, disk, storage, the record or its service, clocks, workers and Ray.

    What is not in order says how to mend it. Exit code 3 means that something a run needs is
    missing.
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
    from raflow.cli.doctor import _machine, _record, _service

    yield _check("python", _machine.python)
    yield _check("raflow", _machine.raflow)
    yield _check("ray", _machine.ray)
    try:
        settings = config.load()
    except errors.ConfigError as error:
        yield Check("settings", Health.FAILED, error.message, "Change or unset the variable.")
        return
    yield from _of(settings, _machine.CHECKS)
    if settings.api_url:
        yield from _of(settings, _service.CHECKS)
    else:
        yield from _of(settings, _record.CHECKS)
    if with_ray:
        yield _check("run on ray", functools.partial(_machine.run_on_ray, settings))


def _of(
    settings: Settings, checks: tuple[tuple[str, Callable[[Settings], Finding]], ...]
) -> Iterator[Check]:
    for name, look in checks:
        yield _check(name, functools.partial(look, settings))


def _check(name: str, look: Callable[[], Finding]) -> Check:
    try:
        return Check(name, *look())
    except errors.RaflowError as error:
        return Check(name, Health.FAILED, error.message)
    except OSError as error:
        return Check(name, Health.FAILED, str(error), "Set RAFLOW_HOME to a directory of yours.")


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
