"""`raflow worker`."""

from __future__ import annotations

from typing import Annotated

import typer

from raflow.cli._options import BackendName, RayAddress


def worker(
    pool: Annotated[str, typer.Option(help="The work pool whose runs it takes.")] = "default",
    name: Annotated[
        str | None, typer.Option(help="For people. Default: the name of the host.")
    ] = None,
    runners: Annotated[
        int | None,
        typer.Option(min=1, help="How many runs at the same time. Default: one for each CPU."),
    ] = None,
    backend: Annotated[
        BackendName | None,
        typer.Option(help="Where tasks run. Default: what the flow says, else RAFLOW_BACKEND."),
    ] = None,
    ray_address: RayAddress = None,
    api_url: Annotated[
        str | None,
        typer.Option(
            help="The service whose runs it takes, with the token in RAFLOW_API_TOKEN. Default: "
            "RAFLOW_API_URL, else the database."
        ),
    ] = None,
    drain_seconds: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="How long runs may go on once it is told to end; then they are suspended, and "
            "another worker goes on with them.",
        ),
    ] = 60.0,
) -> None:
    """Take the runs of deployments out of a work pool, and run them, until Ctrl-C.

    Ctrl-C or SIGTERM: it takes no more runs, and ends when those under way are over (exit code
    0). A second one ends them at once (exit code 130), and another worker goes on with them.
    """
    from raflow.cli._become import become

    become(
        "raflow.worker",
        pool=pool,
        name=name,
        runners=runners,
        backend=backend.value if backend else None,
        ray_address=ray_address,
        api_url=api_url,
        drain_seconds=drain_seconds,
    )
