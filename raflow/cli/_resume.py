"""`raflow resume`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from raflow import errors
from raflow.cli._options import Json, Quiet, RayAddress, RunName

if TYPE_CHECKING:
    from raflow.cli._errors import ExitCode
    from raflow.define import Found
    from raflow.model import FlowRun
    from raflow.runtime import Observer
    from raflow.store import Store


def resume(
    run: RunName,
    target: Annotated[
        str,
        typer.Argument(
            metavar="[FILE[:FLOW]]",
            help="The flow's file or module. Default: as on record.",
            show_default=False,
        ),
    ] = "",
    allow_new_code: Annotated[
        bool,
        typer.Option("--allow-new-code", help="Go on although the code of the flow has changed."),
    ] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Take the run from a process that seems to be alive."),
    ] = False,
    ray_address: RayAddress = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Go on with a flow run whose process died, or that was suspended, failed or cancelled.

    The flow runs again from its first line; calls whose values are on record are answered with
    those. The exit codes are those of `raflow run`. With a run of a deployment a worker goes on.
    """
    from raflow import config, runtime
    from raflow.cli import _runs, _watch

    settings = config.load()
    with contextlib.ExitStack() as stack:
        if settings.api_url:
            found = named_flow(run, target, "resume")
        else:
            store, flow_run = stack.enter_context(_runs.found(run))
            if flow_run.origin is not None and not target:
                raise typer.Exit(_in_its_pool(store, flow_run, quiet=quiet, json_=json_))
            found, run = flow_of(store, flow_run, target, "resume"), flow_run.id
        observers = stack.enter_context(_watch.watched(quiet=quiet, json_=json_))
        if not settings.api_url:
            _tell_past(observers, store, flow_run)
        outcome = runtime.resume_flow(
            found.flow,
            run,
            allow_new_code=allow_new_code,
            force=force,
            settings=settings,
            observers=observers,
            ray_address=ray_address,
            entrypoint=found.entrypoint,
        )
    raise typer.Exit(_watch.tell(outcome, settings, json_=json_, quiet=quiet))


def _in_its_pool(store: Store, run: FlowRun, *, quiet: bool, json_: bool) -> ExitCode:
    """Have a worker go on with a run of a deployment, and look on."""
    from raflow.cli import _console, _follow

    assert run.origin is not None
    deployment = store.deployments.version(run.origin.deployment, run.origin.version)
    store.work.requeue(run.id, max_resumes=deployment.spec.max_resumes)
    err = _console.err()
    told = f"A worker of pool {run.origin.pool!r} goes on with flow run {run.name!r}."
    err.print(told, markup=False, soft_wrap=True)
    return _follow.to_the_end(store, run, quiet=quiet, json_=json_, only_new=True)


def named_flow(run: str, target: str, command: str) -> Found:
    """Return the flow of a run that a service records, which does not know where the flow is."""
    from raflow import define

    if not target:
        raise errors.ResumeError(
            f"A service keeps the record of {run!r}, and flows are found here: name its file, "
            f"`raflow {command} {run} FILE:FLOW`."
        )
    return define.find_flow(target)


def flow_of(store: Store, run: FlowRun, target: str, command: str) -> Found:
    """Return the flow of a run: the one that is named, or where the record says that it is."""
    from raflow import define

    if target:
        return define.find_flow(target)
    remedy = f"Name its file: `raflow {command} {run.name} FILE:FLOW`."
    known = store.flow_version(run.fingerprint, flow=run.flow).entrypoint
    if not known:
        raise errors.ResumeError(
            f"Flow run {run.name!r} was not started by `raflow run`, so that it is not on record "
            f"where flow {run.flow!r} is. {remedy}"
        )
    try:
        return define.find_flow(known)
    except errors.NotFoundError as error:
        raise errors.NotFoundError(
            f"Flow run {run.name!r} was started from {known!r}, which is not found from here: "
            f"{error.message} {remedy}"
        ) from error


def _tell_past(observers: Iterable[Observer], store: Store, run: FlowRun) -> None:
    """Show what is done already, of the run and of its subflows."""
    from raflow.cli import _plain, _progress
    from raflow.model import StateType

    wanting = [o for o in observers if isinstance(o, _plain.PlainProgress | _progress.Progress)]
    if not wanting:
        return
    counts = store.task_run_counts(run.id)
    completed = {n: by_type.get(StateType.COMPLETED, 0) for n, by_type in counts.items()}
    nodes = store.recall.nodes(run.id)
    for observer in wanting:
        observer.recalled(run, nodes, completed)
    for child in reversed(store.flow_runs(parent=run.id, limit=None)):
        _tell_past(wanting, store, child)
