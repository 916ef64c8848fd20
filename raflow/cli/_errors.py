"""Exit codes, and errors on one screen."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from enum import IntEnum
from typing import Final

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from raflow import errors
from raflow.cli import _console

_TRACEBACK_LINES: Final = 24


class ExitCode(IntEnum):
    """What the process tells its caller; see docs/cli.md."""

    OK = 0
    RUN_FAILED = 1
    """The flow run did not complete."""
    USAGE = 2
    """Wrong file, flow, parameter, option or name of a run."""
    ENVIRONMENT = 3
    """The database, Ray, the result storage or a setting."""
    INTERNAL = 70
    """A bug in raflow."""
    SUSPENDED = 75
    """The flow run is suspended: it goes on when somebody resumes it."""
    CANCELLED = 130
    """Ended by Ctrl-C, or by `raflow cancel`."""


_CODES: Final[Sequence[tuple[type[errors.RaflowError], ExitCode]]] = (
    (errors.InvalidTransitionError, ExitCode.INTERNAL),
    (errors.FlowRunCancelledError, ExitCode.CANCELLED),
    (errors.FlowRunSuspendedError, ExitCode.SUSPENDED),
    (errors.RunError, ExitCode.RUN_FAILED),
    (errors.FencedError, ExitCode.RUN_FAILED),
    (errors.ConfigError, ExitCode.ENVIRONMENT),
    (errors.StoreError, ExitCode.ENVIRONMENT),
    (errors.BackendError, ExitCode.ENVIRONMENT),
    (errors.ResultStorageError, ExitCode.ENVIRONMENT),
    (errors.BundleStorageError, ExitCode.ENVIRONMENT),
    (errors.InfeasibleResourcesError, ExitCode.ENVIRONMENT),
    (errors.RaflowError, ExitCode.USAGE),
)


def exit_code(error: errors.RaflowError) -> ExitCode:
    """Return the code that a command ends with because of an error."""
    return next(code for kind, code in _CODES if isinstance(error, kind))


def report(error: errors.RaflowError) -> ExitCode:
    """Tell a person what is wrong; return the exit code."""
    code = exit_code(error)
    if code is ExitCode.INTERNAL or "RAFLOW_DEBUG" in os.environ:
        return report_internal(error, code)
    panel("Error", error.message, detail=getattr(error, "user_traceback", ""))
    return code


def report_internal(error: Exception, code: ExitCode = ExitCode.INTERNAL) -> ExitCode:
    """Tell a person that raflow has a bug, and how to report it; return the exit code."""
    if "RAFLOW_DEBUG" in os.environ:
        traceback.print_exception(error, file=sys.stderr)
        return code
    panel(
        "This is a bug in raflow",
        f"{type(error).__name__}: {error}",
        hint="Run the command again with RAFLOW_DEBUG=1 in the environment to see where it "
        "happened, and please report both at the project's issue tracker, with the output of "
        "`raflow version` and `raflow doctor`.",
    )
    return code


def panel(title: str, message: str, *, detail: str = "", hint: str = "") -> None:
    """Print an error in a box.

    Args:
        title: In its border.
        message: What happened.
        detail: A traceback; its last lines are shown.
        hint: What to do.
    """
    parts: list[RenderableType] = [Text(message, overflow="fold")]
    if detail:
        parts += [Text(), Text(tail(detail), style="dim", overflow="fold")]
    if hint:
        parts += [Text(), Text(hint, overflow="fold")]
    _console.err().print(Panel(Group(*parts), title=title, title_align="left", border_style="red"))


def tail(text: str, lines: int = _TRACEBACK_LINES) -> str:
    """Return the last lines of a text, and say how many are missing."""
    found = text.rstrip().splitlines()
    if len(found) <= lines:
        return "\n".join(found)
    return "\n".join([f"… {len(found) - lines + 1} lines above", *found[-lines + 1 :]])
