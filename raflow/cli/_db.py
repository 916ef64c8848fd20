"""`raflow db`: the database of the record."""

from __future__ import annotations

import typer

from raflow.cli._options import Json

app = typer.Typer(no_args_is_help=True, help="Look after the database of the record.")


@app.command("path")
def path(json_: Json = False) -> None:
    """Print where the record is: the URL of the database, without its password."""
    from raflow import config, store
    from raflow.cli import _console

    settings = config.load()
    database = store.without_passwords(settings.database)
    if json_:
        _console.emit_json({"database": database, "logs": str(settings.logs)})
    else:
        print(database)


@app.command("upgrade")
def upgrade() -> None:
    """Make the database, or bring it to the revision that this raflow needs."""
    from raflow import config, store
    from raflow.cli import _console

    url = config.load().database
    before = store.upgrade(url)
    now = store.EXPECTED_REVISION
    if before == now:
        done = f"is at revision {now} already"
    elif before is None:
        done = f"was made, at revision {now}"
    else:
        done = f"was upgraded from revision {before} to {now}"
    _console.out().print(f"The database {store.without_passwords(url)} {done}.", markup=False)
