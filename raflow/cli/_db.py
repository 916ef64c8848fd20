"""`raflow db`: the database of the record."""

from __future__ import annotations

from urllib.parse import urlsplit

import typer

from raflow.cli._options import Json

app = typer.Typer(no_args_is_help=True, help="Look after the database of the record.")


@app.command("path")
def path(json_: Json = False) -> None:
    """Print where the record is: the URL of the database, without its password."""
    from raflow import config
    from raflow.cli import _console

    settings = config.load()
    database = shown_url(settings.database)
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
    _console.out().print(f"The database {shown_url(url)} {done}.", markup=False)


def shown_url(url: str) -> str:
    """Return the URL of a database without its password."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.partition(':')[0]}:***@{host}").geturl()
