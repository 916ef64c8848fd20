"""`raflow run`."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from raflow.cli._errors import ExitCode
from raflow.cli._options import BackendName, Json, Params, ParamsFile, Target


def run(
    target: Target,
    param: Params = None,
    params_file: ParamsFile = None,
    backend: Annotated[
        BackendName | None,
        typer.Option(help="Where tasks run. Default: what the flow says, else RAFLOW_BACKEND."),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Ray cluster to join. Default: a local Ray, started here."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run. Default: made up.")] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show no progress and no log lines.")
    ] = False,
    json_: Json = False,
) -> None:
    """Run a flow, show its progress, and record it.

    Exit code 1 means that the flow run failed, 130 that it was cancelled (Ctrl-C).
    """
    from raflow import config, runtime
    from raflow.cli import _params, _target

    found = _target.find_flow(target)
    parameters = _params.read_parameters(found.flow, param or (), params_file)
    settings = config.load()
    options: dict[str, Any] = {
        "settings": settings,
        "backend": backend.value if backend else None,
        "ray_address": ray_address,
        "entrypoint": found.entrypoint,
        "flow_run_name": name,
    }
    with _terminated_like_interrupted(), _watched(quiet=quiet, json_=json_) as observers:
        if found.flow.is_async:
            outcome = asyncio.run(
                runtime.run_flow_async(found.flow, parameters, observers=observers, **options)
            )
        else:
            outcome = runtime.run_flow(found.flow, parameters, observers=observers, **options)
    _tell(outcome, settings, json_=json_, quiet=quiet)
    raise typer.Exit(_code(outcome))


@contextlib.contextmanager
def _watched(*, quiet: bool, json_: bool) -> Iterator[list[Any]]:
    """Show the progress of a run while it goes on; yields the observers that it needs."""
    from raflow.cli import _console, _live, _output, _plain, _progress

    console = _console.err()
    with contextlib.ExitStack() as stack:
        observers: list[Any] = []
        # Not `console.is_terminal`: FORCE_COLOR makes that true for a log file as well.
        if sys.stderr.isatty() and not quiet:
            progress = _progress.Progress()
            live = stack.enter_context(_live.LiveProgress(console, progress=progress))
            observers = [progress, live]
        elif not quiet:
            observers = [_plain.PlainProgress(console)]
        # With --json nothing but the outcome may be on standard output.
        stack.enter_context(_output.only_the_body(stdout=sys.stderr if json_ else None))
        yield observers


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM cancel the run cleanly, as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tell(outcome: Any, settings: Any, *, json_: bool, quiet: bool) -> None:
    from raflow.cli import _console, _show
    from raflow.store import Store

    with Store.open(settings.database, log_dir=settings.logs) as store:
        if json_:
            _console.emit_json(_show.as_json(store, outcome.flow_run))
        elif quiet:
            _show.print_end(store, outcome.flow_run, out=_console.out())
        else:
            _show.print_run(store, outcome.flow_run, out=_console.out(), brief=True)


def _code(outcome: Any) -> ExitCode:
    from raflow.model import StateType

    match outcome.flow_run.state.type:
        case StateType.COMPLETED:
            return ExitCode.OK
        case StateType.CANCELLED:
            return ExitCode.CANCELLED
        case _:
            return ExitCode.RUN_FAILED
