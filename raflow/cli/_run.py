"""`raflow run`."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from raflow.cli._options import (
    BackendName,
    Json,
    Params,
    ParamsFile,
    Quiet,
    RayAddress,
    Target,
)


def run(
    target: Target,
    param: Params = None,
    params_file: ParamsFile = None,
    backend: Annotated[
        BackendName | None,
        typer.Option(help="Where tasks run. Default: what the flow says, else RAFLOW_BACKEND."),
    ] = None,
    ray_address: RayAddress = None,
    refresh_cache: Annotated[
        bool, typer.Option("--refresh-cache", help="Compute what is cached anew, and keep that.")
    ] = False,
    name: Annotated[str | None, typer.Option(help="Name of the run. Default: made up.")] = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Run a flow, show its progress, and record it.

    Exit code 1 means that the flow run failed, 75 that it was suspended (`raflow resume` goes on
    with it), 130 that it was cancelled (Ctrl-C).
    """
    from raflow import config, define, runtime
    from raflow.cli import _params, _watch

    found = define.find_flow(target)
    flow = found.flow.with_options(refresh_cache=True) if refresh_cache else found.flow
    parameters = _params.read_parameters(found.flow, param or (), params_file)
    settings = config.load()
    options: dict[str, Any] = {
        "settings": settings,
        "backend": backend.value if backend else None,
        "ray_address": ray_address,
        "entrypoint": found.entrypoint,
        "flow_run_name": name,
    }
    with _watch.watched(quiet=quiet, json_=json_) as observers:
        if flow.is_async:
            outcome = asyncio.run(
                runtime.run_flow_async(flow, parameters, observers=observers, **options)
            )
        else:
            outcome = runtime.run_flow(flow, parameters, observers=observers, **options)
    raise typer.Exit(_watch.tell(outcome, settings, json_=json_, quiet=quiet))
