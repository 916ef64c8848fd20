"""`raflow run-deployment`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from raflow.cli._options import Json, Params

if TYPE_CHECKING:
    from collections.abc import Sequence

    from raflow.cli._errors import ExitCode
    from raflow.model import FlowRun, Ordered
    from raflow.store import Store


def run_deployment(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The name of the deployment.", show_default=False)
    ],
    param: Params = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="When it begins at the earliest: 02:30, or 2026-01-31T02:30."
        ),
    ] = None,
    in_: Annotated[
        str | None,
        typer.Option("--in", metavar="SPAN", help="In how long it begins: 90s, 15m, 2h, 1d."),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option("--watch", "-w", help="Show what happens until the run is over."),
    ] = False,
    run_name: Annotated[str, typer.Option(help="Name of the run. Default: made up.")] = "",
    tag: Annotated[
        list[str] | None,
        typer.Option(help="A tag of the run. May be repeated.", show_default=False),
    ] = None,
    idempotency_key: Annotated[
        str,
        typer.Option(
            "--idempotency-key",
            "--key",
            metavar="KEY",
            help="Again with the same key it is the same run, and no second one.",
        ),
    ] = "",
    json_: Json = False,
) -> None:
    """Have a worker run a deployment; `raflow worker` starts one.

    With --watch the exit codes are those of `raflow run`, and Ctrl-C ends the watching: the run
    goes on.
    """
    from raflow.cli import _open, _when
    from raflow.runtime.deploying import order_run

    begins_at = _when.begins_at(at, in_)
    with _open.make_store() as store:
        ordered = order_run(
            store,
            name,
            _parameters(store, name, param or ()),
            begins_at=begins_at,
            flow_run_name=run_name,
            tags=tag or (),
            idempotency_key=idempotency_key,
        )
        if watch:
            raise typer.Exit(_watched(store, ordered, json_=json_))
        _tell(store, ordered, json_=json_)


def _parameters(store: Store, name: str, given: Sequence[str]) -> dict[str, object]:
    from raflow.cli import _params
    from raflow.model import read_parameters

    schema = store.deployments.version(name).parameter_schema
    return read_parameters(schema, _params.split(given))


def _watched(store: Store, ordered: Ordered, *, json_: bool) -> ExitCode:
    from raflow.cli import _console, _follow

    run = store.flow_run(ordered.flow_run_id)
    _console.err().print(_ordered(run, ordered), markup=False, soft_wrap=True)
    return _follow.to_the_end(store, run, json_=json_)


def _tell(store: Store, ordered: Ordered, *, json_: bool) -> None:
    from raflow.cli import _console, _json, _standing

    run = store.flow_run(ordered.flow_run_id)
    if json_:
        _console.emit_json({**_json.flow_run(run), "is_new": ordered.is_new})
        return
    out = _console.out()
    out.print(_ordered(run, ordered), markup=False, soft_wrap=True)
    if why := _standing.why(store, run, lost=None):
        out.print(f"{why[0].upper()}{why[1:]}.", markup=False, soft_wrap=True)
    out.print(f"`raflow runs show {run.short_name}` tells how it is.", markup=False, soft_wrap=True)


def _ordered(run: FlowRun, ordered: Ordered) -> str:
    origin = run.origin
    assert origin is not None
    what = f"deployment {origin.deployment!r}, version {origin.version}"
    if not ordered.is_new:
        return f"Flow run {run.name!r} of {what} was ordered before, under the same key."
    return f"Flow run {run.name!r} of {what} is ordered."
