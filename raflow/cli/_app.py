"""The commands, put together."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from raflow import errors
from raflow.cli import (
    _backfill,
    _cache,
    _db,
    _deploy,
    _deployments,
    _errors,
    _flows,
    _graph,
    _input,
    _limits,
    _pools,
    _reap,
    _rerun,
    _resume,
    _run,
    _run_deployment,
    _runs,
    _schedules,
    _server,
    _spool,
    _steer,
    _why,
    _worker,
)
from raflow.cli._options import Json
from raflow.cli.doctor import doctor


class _Commands(TyperGroup):
    """Knows in which group a command is that is looked for outside of it: `raflow logs`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name = args[0]
        inside = [
            f"{group} {name}"
            for group, commands in self.commands.items()
            if isinstance(commands, TyperGroup) and name in commands.commands
        ]
        if inside and name not in self.commands:
            meant = " or ".join(f"`raflow {command}`" for command in inside)
            ctx.fail(f"No such command {name!r}. Did you mean {meant}?")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="raflow",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 the flow run failed, 2 wrong input, 3 database, Ray or storage, "
    "75 suspended, 130 cancelled.",
)
app.command("run", no_args_is_help=True)(_run.run)
app.command("resume", no_args_is_help=True)(_resume.resume)
app.command("rerun", no_args_is_help=True)(_rerun.rerun)
app.command("cancel", no_args_is_help=True)(_steer.cancel)
app.command("why", no_args_is_help=True)(_why.why)
app.command("reap")(_reap.reap)
app.command("pause", no_args_is_help=True)(_steer.pause)
app.command("unpause", no_args_is_help=True)(_steer.unpause)
app.command("suspend", no_args_is_help=True)(_steer.suspend)
app.command("graph", no_args_is_help=True)(_graph.graph)
app.command("deploy")(_deploy.deploy)
app.command("run-deployment", no_args_is_help=True)(_run_deployment.run_deployment)
app.command("worker")(_worker.worker)
app.add_typer(_runs.app, name="runs")
app.add_typer(_flows.app, name="flows")
app.add_typer(_deployments.app, name="deployments")
app.add_typer(_schedules.app, name="schedules")
app.add_typer(_backfill.app, name="backfill")
app.add_typer(_pools.app, name="pools")
app.add_typer(_pools.workers_app, name="workers")
app.add_typer(_input.app, name="input")
app.add_typer(_limits.app, name="limits")
app.add_typer(_cache.app, name="cache")
app.add_typer(_server.app, name="server")
app.add_typer(_spool.app, name="spool")
app.add_typer(_db.app, name="db")
app.command("doctor")(doctor)


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
