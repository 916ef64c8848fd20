"""The commands, put together."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from raflow import errors
from raflow.cli import _db, _doctor, _errors, _flows, _graph, _run, _runs
from raflow.cli._options import Json

app = typer.Typer(
    name="raflow",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 the flow run failed, 2 wrong input, 3 database, Ray or storage, "
    "130 cancelled.",
)
app.command("run", no_args_is_help=True)(_run.run)
app.command("graph", no_args_is_help=True)(_graph.graph)
app.add_typer(_runs.app, name="runs")
app.add_typer(_flows.app, name="flows")
app.add_typer(_db.app, name="db")
app.command("doctor")(_doctor.doctor)


def _print_version(asked: bool) -> None:
    if asked:
        import raflow

        print(raflow.__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            "-V",
            is_eager=True,
            callback=_print_version,
            help="Print the version of raflow.",
        ),
    ] = False,
) -> None:
    """Run Python functions as flows on Ray, and look at what they did."""


@app.command("version")
def version(json_: Json = False) -> None:
    """Print the versions of raflow, Python and Ray."""
    import platform

    from raflow._util import version_of
    from raflow.cli import _console

    versions = {
        "raflow": version_of("raflow"),
        "python": platform.python_version(),
        "ray": version_of("ray"),
    }
    if json_:
        _console.emit_json(versions)
    else:
        print("\n".join(f"{name:<7} {number}" for name, number in versions.items()))


def main() -> None:
    """Run the command line; ends the process with one of the documented exit codes."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a sign gets a question mark, not a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        app()
    except errors.RaflowError as error:
        sys.exit(_errors.report(error))
    except Exception as error:
        sys.exit(_errors.report_internal(error))
