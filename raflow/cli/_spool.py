"""`raflow spool`: what waits on this machine for a service that was away."""

from __future__ import annotations

from typing import Annotated

import typer

from raflow.cli._options import Json

app = typer.Typer(
    no_args_is_help=True, help="Look after records that wait here for a service that was away."
)


@app.command("ls")
def list_waiting(json_: Json = False) -> None:
    """List what waits, by flow run."""
    from rich.text import Text

    from raflow import client, config
    from raflow.cli import _console

    waiting = client.Spool(config.load().home / "spool").waiting()
    if json_:
        _console.emit_json(
            [
                {
                    "flow_run_id": one.root_id,
                    "service": one.url,
                    "batches": one.batches,
                    "bytes": one.size,
                    "being_sent": one.is_being_sent,
                }
                for one in waiting
            ]
        )
        return
    out = _console.out()
    if not waiting:
        out.print("Nothing waits: all that was recorded is where it belongs.")
        return
    table = _console.table(
        *("Run", "Batches", "Bytes", "Service", "Sent by"), right=["Batches", "Bytes"]
    )
    for one in waiting:
        who = "its process" if one.is_being_sent else "nobody: `raflow spool send`"
        table.add_row(Text(one.root_id), f"{one.batches:,}", f"{one.size:,}", one.url, Text(who))
    out.print(table)


@app.command("send")
def send(
    seconds: Annotated[
        float, typer.Option(help="How long to wait for the service at most.", min=0.0)
    ] = 30.0,
) -> None:
    """Send what processes that are gone have left, to the service that RAFLOW_API_URL names.

    Every process that records into a service does so, too.
    """
    from raflow import client, config
    from raflow.cli import _console

    settings = config.load()
    store = client.RemoteStore.open(
        settings.api_url,
        settings.api_token.get_secret_value(),
        home=settings.home,
        spool_bytes=settings.spool_bytes,
        adopt=False,
    )
    try:
        found = store.send_all(seconds)
    finally:
        store.close()
    told = f"What was left of {found} flow run{'s' if found != 1 else ''} was sent."
    _console.out().print(told if found else "Nothing had to be sent.")
