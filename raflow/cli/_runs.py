"""`raflow runs`: look at flow runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from raflow import errors
from raflow.cli._graph import Format, GraphFormat, print_graph
from raflow.cli._options import Json, RunName

if TYPE_CHECKING:
    from raflow.model import FlowRun, StateType
    from raflow.runtime import Sighting
    from raflow.store import Store

app = typer.Typer(no_args_is_help=True, help="Look at flow runs.")


class StateFilter(StrEnum):
    """Types of states, as one writes them on a command line."""

    SCHEDULED = "scheduled"
    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    CRASHED = "crashed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


class Level(StrEnum):
    """Levels of log lines."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


@app.command("ls")
def list_runs(
    flow: Annotated[str | None, typer.Option(help="Only runs of this flow.")] = None,
    state: Annotated[
        list[StateFilter] | None,
        typer.Option(
            case_sensitive=False, help="Only runs in this type of state. May be repeated."
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 20,
    subflows: Annotated[
        bool, typer.Option("--subflows", help="Also runs that another run started.")
    ] = False,
    json_: Json = False,
) -> None:
    """List flow runs, the newest first."""
    from raflow.cli import _console, _json, _open, _standing
    from raflow.model import StateType

    kinds = [StateType(s.value.upper()) for s in state] if state else None
    with _open.open_store() as store:
        runs = (
            store.flow_runs(flow=flow, state_types=kinds, limit=limit, roots=not subflows)
            if store is not None
            else []
        )
        lost = {run.id: _standing.lost(store, run) for run in runs if store is not None}
        why = [_standing.why(store, run, lost=lost[run.id]) for run in runs if store is not None]
        if not runs and store is not None and flow is not None:
            _check_flow(store, flow)
    if json_:
        _console.emit_json([_json.flow_run(run, lost=lost[run.id]) for run in runs])
    elif runs:
        _print_runs(runs, lost, why)
    elif flow or kinds:
        _console.out().print("No flow run fits. `raflow runs ls` shows all.")
    else:
        print_how_to_start()


@app.command("show")
def show(
    run: RunName,
    all_: Annotated[
        bool, typer.Option("--all", help="A line for each item of a map, not one for the map.")
    ] = False,
    json_: Json = False,
) -> None:
    """Show a flow run: its state, its tasks, what failed, and its result."""
    from raflow.cli import _console, _show

    with found(run) as (store, flow_run):
        if json_:
            _console.emit_json(_show.as_json(store, flow_run, every_item=all_))
        else:
            _show.print_run(store, flow_run, out=_console.out(), every_item=all_)


@app.command("logs")
def logs(
    run: RunName,
    task: Annotated[
        str | None,
        typer.Option(
            "--task", "-t", help="Only this task, task run (`clean-1[7]`) or map (`clean-1`)."
        ),
    ] = None,
    level: Annotated[
        Level, typer.Option("--level", "-l", case_sensitive=False, help="Lowest level to show.")
    ] = Level.DEBUG,
    attempt: Annotated[
        int | None, typer.Option(min=1, help="Only attempts of this number, from 1.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print a JSON object a line.")] = False,
) -> None:
    """Show what a flow run wrote: prints, standard error and logging, by time."""
    from raflow.cli import _console, _json, _log_lines, _logs

    with found(run) as (store, flow_run):
        lowest = logging.getLevelNamesMapping()[level.value.upper()]
        log = _logs.Logs(store, flow_run, task=task, level=lowest, attempt=attempt)
        out = _console.out()
        written = 0
        for line, origin in log.follow() if follow else log.new_lines():
            written += 1
            if json_:
                _console.emit_json_line(_json.log_line(line, origin.label, origin.attempt))
            else:
                label = origin.label + (f" #{origin.attempt}" if origin.attempt > 1 else "")
                out.print(_log_lines.log_text(line, label), soft_wrap=True)
        if not written and not json_:
            filtered = task or attempt or level is not Level.DEBUG
            out.print("No log line fits." if filtered else "This run wrote no log lines.")


@app.command("graph")
def graph(run: RunName, format_: Format = GraphFormat.TEXT, json_: Json = False) -> None:
    """Show the graph that a flow run recorded, coloured by state."""
    with found(run) as (store, flow_run):
        states = {
            node: _worst(counts).value
            for node, counts in store.task_run_counts(flow_run.id).items()
        }
        chosen = GraphFormat.JSON if json_ else format_
        print_graph(store.graph(flow_run.id), chosen, states)


def print_how_to_start() -> None:
    """Say what to do where nothing was recorded yet."""
    from raflow.cli import _console

    out = _console.out()
    out.print("No flow run was recorded yet. Write a flow, for example hello.py:\n")
    out.print(_HELLO, style="dim", markup=False)
    out.print("and run it:\n")
    out.print("    raflow run hello.py --param name=Ada", style="bold")


_HELLO = """\
    from raflow import flow, task

    @task
    def greet(name: str) -> str:
        return f"Hello, {name}!"

    @flow
    def hello(name: str) -> str:
        return greet(name)
"""


@contextmanager
def found(text: str) -> Iterator[tuple[Store, FlowRun]]:
    """Open the record, and find the flow run that a person means; see `Store.find_flow_run`.

    Raises:
        NotFoundError: Nothing fits, or several do; or nothing was recorded yet.
    """
    from raflow.cli import _open

    with _open.open_store() as store:
        if store is None:
            raise errors.NotFoundError(
                f"No flow run {text!r}: none was recorded yet. `raflow run FILE` makes one."
            )
        yield store, store.find_flow_run(text)


def _check_flow(store: Store, flow: str) -> None:
    known = [summary.name for summary in store.flows()]
    if flow not in known:
        raise errors.NotFoundError.of("flow", flow, known, "See `raflow flows ls`.")


def _print_runs(runs: list[FlowRun], lost: Mapping[str, Sighting | None], notes: list[str]) -> None:
    from raflow.cli import _console, _format

    table = _console.table(
        *("Run", "Flow", "State", "Started", "Duration"),
        right=["Duration"],
        less=["Duration", "Started"],
    )
    for run in runs:
        begun = run.started_at or (None if _is_to_begin(run) else run.created_at)
        table.add_row(
            run.name,
            run.flow,
            _console.state_text(run.state),
            _format.moment(begun),
            "" if lost[run.id] or begun is None else _format.duration(_end(run) - begun),
        )
    out = _console.out()
    out.print(table)
    if any(notes):
        out.print()
        named = zip(runs, notes, strict=True)
        out.print(_console.facts((run.name, note) for run, note in named))


def _is_to_begin(run: FlowRun) -> bool:
    """Whether a run of a deployment has not begun, or never has."""
    return run.origin is not None and run.started_at is None


def _end(run: FlowRun) -> float:
    """Return until when a run went on: now, if nothing has stopped it."""
    from raflow.model import StateName

    stopped_at = run.state.at if run.state.name is StateName.SUSPENDED else None
    return run.ended_at or stopped_at or time.time()


def _worst(counts: Mapping[StateType, int]) -> StateType:
    from raflow.model import StateType

    order = (
        *(StateType.CRASHED, StateType.FAILED, StateType.CANCELLED, StateType.RUNNING),
        *(StateType.CANCELLING, StateType.PAUSED, StateType.SCHEDULED, StateType.PENDING),
        *(StateType.COMPLETED, StateType.SKIPPED),
    )
    return next(kind for kind in order if counts.get(kind))
