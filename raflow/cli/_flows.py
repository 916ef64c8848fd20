"""`raflow flows`: look at flows."""

from __future__ import annotations

import typer

from raflow.cli._options import Json

app = typer.Typer(no_args_is_help=True, help="Look at flows.")


@app.callback()
def flows() -> None:
    """Look at flows."""


@app.command("ls")
def list_flows(json_: Json = False) -> None:
    """List the flows that were run, the one that ran last first."""
    from raflow.cli import _console, _format, _json, _open, _runs, _standing

    with _open.open_store() as store:
        found = store.flows() if store is not None else []
        if json_:
            _console.emit_json(
                [
                    _json.flow(summary, lost=_standing.lost(store, summary.last_run))
                    if store is not None and summary.last_run is not None
                    else _json.flow(summary)
                    for summary in found
                ]
            )
            return
    if not found:
        _runs.print_how_to_start()
        return
    table = _console.table(
        *("Flow", "Runs", "Last run", "State", "Started", "Versions"),
        right=["Runs", "Versions"],
        less=["Versions", "Started", "Runs"],
    )
    for summary in found:
        last = summary.last_run
        table.add_row(
            summary.name,
            f"{sum(summary.counts.values()):,}",
            last.name if last else "",
            _console.state_text(last.state) if last else "",
            _format.moment(last.started_at or last.created_at) if last else "",
            f"{summary.versions:,}",
        )
    _console.out().print(table)
