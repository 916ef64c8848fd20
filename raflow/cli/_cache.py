"""`raflow cache`: values of tasks that are found again instead of being computed."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from raflow import errors
from raflow._util import short_id
from raflow.cli._options import Json

if TYPE_CHECKING:
    from raflow.model import CacheEntry

app = typer.Typer(no_args_is_help=True, help="Look at cached values of tasks, and forget them.")


@app.command("ls")
def list_entries(
    task: Annotated[str | None, typer.Option(help="Only values of this task.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 20,
    json_: Json = False,
) -> None:
    """List cached values, the newest first."""
    from raflow.cli import _console, _json, _open

    with _open.open_store() as store:
        entries = store.cache.entries(task=task, limit=limit) if store is not None else []
    out = _console.out()
    if json_:
        _console.emit_json([_json.cache_entry(entry) for entry in entries])
    elif entries:
        _print_entries(entries)
    elif task is not None:
        out.print(f"Nothing is cached of a task {task!r}.", markup=False)
    else:
        out.print("Nothing is cached. Let a task say what makes its value another one:\n")
        out.print("    from raflow import INPUTS, TASK_SOURCE, task\n", style="dim")
        out.print("    @task(cache_policy=INPUTS + TASK_SOURCE)", style="dim", markup=False)


@app.command("clear")
def clear(
    key: Annotated[str | None, typer.Option(help="The value under this key.")] = None,
    task: Annotated[str | None, typer.Option(help="Values of this task.")] = None,
    older_than: Annotated[
        float | None,
        typer.Option(min=0.0, metavar="SECONDS", help="Values computed longer ago than this."),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Everything.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask whether I am sure.")] = False,
) -> None:
    """Forget cached values, so that they are computed again. Of several options all must fit.

    The results stay those of the runs that computed them.
    """
    from raflow.cli import _console, _format, _open

    chosen = [
        f"under key {key!r}" if key is not None else "",
        f"of task {task!r}" if task is not None else "",
        f"older than {older_than:g} s" if older_than is not None else "",
    ]
    what = " ".join(filter(None, chosen))
    if bool(what) == all_:
        raise errors.ParameterError(
            "Say what to forget: --key KEY, --task TASK, --older-than SECONDS, or --all alone."
        )
    if not yes:
        _confirm(f"Forget all cached values{' ' + what if what else ''}?")
    with _open.open_store() as store:
        number = 0
        if store is not None:
            number = store.cache.clear(key=key, task=task, older_than=older_than)
    _console.out().print(f"{_format.count(number, 'cached value')} forgotten.", markup=False)


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise errors.ParameterError(f"{question} There is no terminal to ask on: say --yes.")
    typer.confirm(question, abort=True, err=True)


def _print_entries(entries: list[CacheEntry]) -> None:
    from raflow.cli import _console, _format

    now = time.time()
    table = _console.table(
        *("Task", "Value", "Size", "Computed", "Expires", "By", "Key"),
        right=["Size"],
        less=["By", "Size", "Computed", "Value"],
    )
    for entry in entries:
        item = f"[{entry.run.map_index}]" if entry.run.map_index >= 0 else ""
        table.add_row(
            Text(entry.task),
            Text(entry.result.preview),
            _format.size(entry.result.size),
            _format.moment(entry.created_at),
            _expiry(entry.expires_at, now),
            Text(f"call {entry.run.node}{item} of run {short_id(entry.flow_run_id)}"),
            entry.key,
        )
    _console.out().print(table)


def _expiry(at: float | None, now: float) -> str:
    from raflow.cli import _format

    if at is None:
        return "never"
    return "expired" if at <= now else _format.moment(at)
