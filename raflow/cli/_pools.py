"""`raflow pools` and `raflow workers`: who takes the runs of deployments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from raflow.cli._options import Json

if TYPE_CHECKING:
    from raflow.model import Pool

app = typer.Typer(no_args_is_help=True, help="Look at work pools, and change them.")
workers_app = typer.Typer(no_args_is_help=True, help="Look at workers, and have them end.")
_Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The name of the pool.", show_default=False)
]


@app.command("ls")
def list_pools(json_: Json = False) -> None:
    """List the work pools, and what goes on in them."""
    from raflow.cli import _console, _json, _open
    from raflow.model import Stage

    with _open.open_store() as store:
        found = store.work.pools() if store is not None else []
    if json_:
        _console.emit_json([_json.pool(state) for state in found])
        return
    out = _console.out()
    if not found:
        out.print("There is no work pool. `raflow deploy` and `raflow worker` make them.")
        return
    table = _console.table(
        *("Pool", "Workers", "Under way", "Waiting", "At once", "Paused"),
        right=["Workers", "Under way", "Waiting", "At once"],
    )
    for state in found:
        under_way = sum(state.counts.get(stage, 0) for stage in (Stage.CLAIMED, Stage.RUNNING))
        most = state.pool.concurrency
        table.add_row(
            *(Text(state.pool.name), str(state.workers), str(under_way)),
            str(state.counts.get(Stage.WAITING, 0)),
            *("any" if most is None else str(most), "yes" if state.pool.paused else ""),
        )
    out.print(table)


@app.command("set")
def set_pool(
    name: _Name,
    concurrency: Annotated[
        int | None,
        typer.Option(min=0, help="How many of its runs may be under way at the same time."),
    ] = None,
    unlimited: Annotated[
        bool, typer.Option("--unlimited", help="Any number of runs at the same time.")
    ] = False,
    description: Annotated[str | None, typer.Option(help="For people.")] = None,
) -> None:
    """Make a pool, or change it; what is not given stays as it is."""
    from raflow.cli import _console

    changes: dict[str, Any] = {}
    if concurrency is not None or unlimited:
        changes["concurrency"] = None if unlimited else concurrency
    if description is not None:
        changes["description"] = description
    pool = _changed(name, make=True, **changes)
    most = "any number of runs" if pool.concurrency is None else f"{pool.concurrency} at most"
    told = f"Pool {name!r} has {most} under way at the same time."
    _console.out().print(told, markup=False, soft_wrap=True)


@app.command("pause")
def pause_pool(name: _Name) -> None:
    """Let the workers of a pool take no runs. What is under way goes on."""
    from raflow.cli import _console

    _changed(name, paused=True)
    told = f"Pool {name!r} is paused. `raflow pools resume {name}` lets it go on."
    _console.out().print(told, markup=False, soft_wrap=True)


@app.command("resume")
def resume_pool(name: _Name) -> None:
    """Let the workers of a pool take runs again."""
    from raflow.cli import _console

    _changed(name, paused=False)
    _console.out().print(f"Pool {name!r} goes on.", markup=False)


@app.command("rm")
def remove_pool(name: _Name) -> None:
    """Remove a pool that has no runs."""
    from raflow.cli import _console, _open

    with _open.make_store() as store:
        store.work.remove_pool(name)
    _console.out().print(f"Pool {name!r} is removed.", markup=False)


@workers_app.command("ls")
def list_workers(
    pool: Annotated[str | None, typer.Option(help="Only those of this pool.")] = None,
    json_: Json = False,
) -> None:
    """List the workers."""
    from raflow.cli import _console, _format, _json, _open

    with _open.open_store() as store:
        found = store.work.workers(pool) if store is not None else []
    if json_:
        _console.emit_json([_json.worker(worker) for worker in found])
        return
    out = _console.out()
    if not found:
        out.print("There is no worker. Start one:\n")
        command = f"    raflow worker --pool {pool}" if pool else "    raflow worker"
        out.print(command, style="bold", markup=False)
        return
    table = _console.table(
        *("Worker", "Pool", "Runs", "Host", "Process", "Started", "Seen"),
        right=["Runs", "Process"],
        less=["Started", "Process", "Host"],
    )
    for worker in found:
        runs = f"{worker.busy} of {worker.runners}{' (ends)' if worker.draining else ''}"
        table.add_row(
            *(Text(worker.name), Text(worker.pool), runs, Text(worker.host), str(worker.pid)),
            *(_format.moment(worker.started_at), _format.moment(worker.seen_at)),
        )
    out.print(table)


@workers_app.command("drain")
def drain_worker(
    worker: Annotated[
        str,
        typer.Argument(
            metavar="WORKER", help="The name of a worker, or its id.", show_default=False
        ),
    ],
) -> None:
    """Have a worker take no more runs, and end when its own are over; all that have the name."""
    from raflow import errors
    from raflow.cli import _console, _format, _open

    with _open.make_store() as store:
        known = store.work.workers()
        meant = [one.id for one in known if worker in {one.name, one.id}]
        if not meant:
            names = [one.name for one in known]
            raise errors.NotFoundError.of("worker", worker, names, "See `raflow workers ls`.")
        for one in meant:
            store.work.drain(one)
    number = _format.count(len(meant), "worker")
    told = f"{number} told to end. Runs under way go on until they are over."
    _console.out().print(told, markup=False, soft_wrap=True)


def _changed(name: str, *, make: bool = False, **changes: Any) -> Pool:
    """Change a pool; return it as it is then."""
    import dataclasses

    from raflow.cli import _open
    from raflow.model import Pool

    with _open.make_store() as store:
        known = {state.pool.name: state.pool for state in store.work.pools()}
        if name not in known and not make:
            store.work.pool(name)  # says which there are
        pool = dataclasses.replace(known.get(name, Pool(name=name)), **changes)
        store.work.set_pool(pool)
    return pool
