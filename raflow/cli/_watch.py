"""What `raflow run` and `raflow resume` share: the progress of a run, and how it ended."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator

from raflow import config, errors
from raflow.cli import _console, _json, _live, _output, _plain, _progress, _show
from raflow.cli._errors import ExitCode
from raflow.model import FlowRun, StateName, StateType
from raflow.runtime import FlowOutcome, Observer
from raflow.store import Store


@contextlib.contextmanager
def watched(*, quiet: bool, json_: bool) -> Iterator[list[Observer]]:
    """Show the progress of a run while it goes on; yields the observers that it needs."""
    console = _console.err()
    # What the body writes comes to standard error as it writes it.
    together = json_ or _output.is_one_place(sys.stdout, sys.stderr)
    passed_on = {"stdout", "stderr"} if together else {"stderr"}
    with contextlib.ExitStack() as stack:
        observers: list[Observer] = []
        # Not `console.is_terminal`: FORCE_COLOR makes that true for a log file as well.
        if sys.stderr.isatty() and not quiet:
            progress = _progress.Progress()
            live = _live.LiveProgress(console, progress=progress, passed_on=passed_on)
            observers = [progress, stack.enter_context(live)]
        elif not quiet:
            observers = [_plain.PlainProgress(console, passed_on=passed_on)]
        # With --json nothing but the outcome may be on standard output.
        stack.enter_context(_output.only_the_body(stdout=sys.stderr if json_ else None))
        stack.enter_context(_terminated_like_interrupted())
        yield observers


def tell(outcome: FlowOutcome, settings: config.Settings, *, json_: bool, quiet: bool) -> ExitCode:
    """Print what came of a run; return the exit code of the command.

    Raises:
        FencedError: Another process has taken the run over: how it ends is that one's story.
    """
    if isinstance(outcome.error, errors.FencedError):
        raise outcome.error
    if settings.api_url:
        run = outcome.flow_run
        if json_:
            _console.emit_json({"flow_run": _json.flow_run(run), "service": settings.api_url})
        else:
            _show.print_outcome(run, record=settings.api_url, out=_console.out())
        return code_of(run)
    with Store.open(settings.database, log_dir=settings.logs) as store:
        if json_:
            _console.emit_json(_show.as_json(store, outcome.flow_run))
        elif quiet:
            _show.print_end(store, outcome.flow_run, out=_console.out())
        else:
            _show.print_run(store, outcome.flow_run, out=_console.out(), brief=True)
    return code_of(outcome.flow_run)


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM cancel the run cleanly, as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def code_of(run: FlowRun) -> ExitCode:
    """Return the exit code of a command that has seen a run to its end."""
    state = run.state
    if state.name is StateName.SUSPENDED:
        return ExitCode.SUSPENDED
    match state.type:
        case StateType.COMPLETED:
            return ExitCode.OK
        case StateType.CANCELLED:
            return ExitCode.CANCELLED
        case _:
            return ExitCode.RUN_FAILED
