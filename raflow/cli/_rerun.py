"""`raflow rerun`."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from raflow.cli._options import Json, Params, Quiet, RayAddress, RunName


def rerun(
    run: RunName,
    target: Annotated[
        str,
        typer.Argument(
            metavar="[FILE[:FLOW]]",
            help="The flow's file or module. Default: as on record.",
            show_default=False,
        ),
    ] = "",
    from_: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="TASK",
            help="Run a task, or a call of it, again, and all that depends on it. May be repeated.",
            show_default=False,
        ),
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="Run again what did not complete.")
    ] = False,
    param: Params = None,
    allow_new_code: Annotated[
        bool,
        typer.Option("--allow-new-code", help="Run again what has other code than then."),
    ] = False,
    ray_address: RayAddress = None,
    name: Annotated[str | None, typer.Option(help="Name of the run. Default: made up.")] = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Run a flow anew with the parameters of an earlier run, and reuse what that has computed.

    At least one of --from, --failed and --param says what runs again. The rest is Cached in the new
    run. The exit codes are those of `raflow run`.
    """
    from raflow import config, runtime
    from raflow.cli import _params, _resume, _runs, _watch

    settings = config.load()
    with contextlib.ExitStack() as stack:
        if settings.api_url:
            found = _resume.named_flow(run, target, "rerun")
        else:
            store, flow_run = stack.enter_context(_runs.found(run))
            # Before code is loaded, which may take its time.
            runtime.Choice(tuple(from_ or ()), failed, dict.fromkeys(param or ())).check(flow_run)
            found, run = _resume.flow_of(store, flow_run, target, "rerun"), flow_run.id
        parameters = _params.read_changes(found.flow, param or ())
        observers = stack.enter_context(_watch.watched(quiet=quiet, json_=json_))
        outcome = runtime.rerun_flow(
            found.flow,
            run,
            from_=from_ or (),
            failed=failed,
            parameters=parameters,
            allow_new_code=allow_new_code,
            settings=settings,
            observers=observers,
            ray_address=ray_address,
            entrypoint=found.entrypoint,
            flow_run_name=name,
        )
    raise typer.Exit(_watch.tell(outcome, settings, json_=json_, quiet=quiet))
