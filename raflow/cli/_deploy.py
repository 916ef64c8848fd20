"""`raflow deploy`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from raflow.cli._options import Json, Params
from raflow.cli._schedule_options import (
    CatchUpWord,
    CronRules,
    End,
    Intervals,
    Jitter,
    OverlapWord,
    RRules,
    Start,
    Times,
    Timezone,
    Window,
)

if TYPE_CHECKING:
    from raflow.define import Flow
    from raflow.model import DeploymentSpec, ScheduleSpec
    from raflow.runtime.deploying import Deployed
    from raflow.store import Store


_Target = Annotated[
    str | None,
    typer.Argument(
        metavar="FILE[:FLOW]",
        help="A Python file, or a module, and the flow in it if there are several. Without it all "
        "that raflow.yaml describes is deployed.",
        show_default=False,
    ),
]
_Name = Annotated[
    str,
    typer.Option(
        "--name",
        "-n",
        help="Name of the deployment. Default: the flow's; of a raflow.yaml, all.",
    ),
]
_PROJECT = "Of a raflow.yaml"
_File = Annotated[
    Path | None,
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        help="The raflow.yaml. Default: that of this folder.",
        show_default=False,
        rich_help_panel=_PROJECT,
    ),
]
_DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Only show what would be different.", rich_help_panel=_PROJECT),
]
_Prune = Annotated[
    bool,
    typer.Option(
        "--prune",
        help="Remove deployments that it does not have any more.",
        rich_help_panel=_PROJECT,
    ),
]
_All = Annotated[
    bool,
    typer.Option("--all", help="Deploy all of it, as without --name.", rich_help_panel=_PROJECT),
]
_Schema = Annotated[
    bool,
    typer.Option(
        "--schema",
        help="Print its JSON Schema, by which editors complete it, and do nothing else.",
        rich_help_panel=_PROJECT,
    ),
]
_Pool = Annotated[str, typer.Option(help="The work pool whose workers run it.")]
_Tags = Annotated[
    list[str] | None, typer.Option(help="A tag of its runs. May be repeated.", show_default=False)
]
_Priority = Annotated[int, typer.Option(help="Runs with a higher one begin first.")]
_Concurrency = Annotated[
    int | None,
    typer.Option(min=1, help="How many of its runs may go on at once. Default: any number."),
]
_Root = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="What is packed. Default: the first folder above the file with a pyproject.toml or "
        ".git, else the file's own.",
        show_default=False,
    ),
]
_Include = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATH",
        help="A file that is packed in any case. May be repeated.",
        show_default=False,
    ),
]
_Exclude = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="What is left out, as in .gitignore. May be repeated.",
        show_default=False,
    ),
]
_Note = Annotated[str, typer.Option(help="What is new, for `raflow deployments versions`.")]


def deploy(
    ctx: typer.Context,
    target: _Target = None,
    file: _File = None,
    all_: _All = False,
    dry_run: _DryRun = False,
    prune: _Prune = False,
    schema: _Schema = False,
    name: _Name = "",
    pool: _Pool = "default",
    param: Params = None,
    tag: _Tags = None,
    priority: _Priority = 0,
    concurrency: _Concurrency = None,
    cron: CronRules = None,
    interval: Intervals = None,
    rrule: RRules = None,
    at: Times = None,
    timezone: Timezone = "UTC",
    overlap: OverlapWord = "",
    catch_up: CatchUpWord = "",
    catch_up_window: Window = "",
    jitter: Jitter = "",
    start: Start = "",
    end: End = "",
    root: _Root = None,
    include: _Include = None,
    exclude: _Exclude = None,
    note: _Note = "",
    json_: Json = False,
) -> None:
    """Keep a flow with its code under a name; a new version if anything is different.

    Without FILE all is deployed that raflow.yaml describes.
    """
    from raflow import define
    from raflow.cli import _params, _project, _schedule_options
    from raflow.model import DeploymentSpec

    if _project.is_meant(ctx, target):
        said = _project.Said(file, name, all_=all_, dry_run=dry_run, prune=prune, note=note)
        _project.deploy(said, schema=schema, json_=json_)
        return
    assert target is not None
    schedules = _schedule_options.read(
        {
            "timezone": timezone,
            "overlap": overlap,
            "catch_up": catch_up,
            "window": catch_up_window,
            "jitter": jitter,
            "start": start,
            "end": end,
        },
        {"cron": cron, "interval": interval, "rrule": rrule, "at": at},
    )
    flow = define.find_flow(target).flow
    spec = DeploymentSpec(flow="", entrypoint="", pool=pool, tags=tuple(tag or ()))
    parameters = _params.read_changes(flow, param or ())
    spec = replace(spec, parameters=parameters, priority=priority, concurrency=concurrency)
    files = _Files(root=root, include=include or (), exclude=exclude or ())
    _keep(flow, spec, schedules, files, name=name, note=note, json_=json_)


class _Files(NamedTuple):
    """What is packed."""

    root: Path | None
    include: Sequence[str]
    exclude: Sequence[str]


def _keep(
    flow: Flow[..., Any],
    spec: DeploymentSpec,
    schedules: Sequence[ScheduleSpec],
    files: _Files,
    *,
    name: str,
    note: str,
    json_: bool,
) -> None:
    from raflow import config
    from raflow._util import person
    from raflow.cli import _open
    from raflow.runtime.deploying import LocalDeploys
    from raflow.runtime.deploying import deploy as deploy_flow

    with _open.make_store() as store:
        deployed = deploy_flow(
            flow,
            spec,
            LocalDeploys(store, config.load().bundles),
            name=name or flow.name.lower(),
            schedules=schedules,
            root=files.root,
            include=files.include,
            exclude=files.exclude,
            actor=person(),
            note=note,
        )
        _tell(store, deployed, json_=json_)


def _tell(store: Store, deployed: Deployed, *, json_: bool) -> None:
    from raflow.cli import _console, _format, _json

    left_out = deployed.packed.left_out
    if json_:
        _console.emit_json(
            {
                **_json.deployment(deployed.deployment),
                "is_new": deployed.is_new,
                "files": len(deployed.packed.manifest.entries),
                "left_out": list(left_out),
            }
        )
        return
    for sentence in left_out:
        _console.err().print(sentence, style="yellow", markup=False)
    out = _console.out()
    out.print(_told(store, deployed), markup=False)
    for row in store.schedules.of(deployed.deployment.name):
        next_ = "no further slots" if row.next_at is None else _format.moment(row.next_at)
        shown = next_ if row.active else "paused"
        out.print(f"Schedule {row.name!r}: next {shown}.", markup=False)


def _told(store: Store, deployed: Deployed) -> str:
    """Say what a deploy has done."""
    from raflow.cli import _format
    from raflow.service import changes

    name, number = deployed.deployment.name, deployed.deployment.version
    if not deployed.is_new:
        return f"Deployment {name!r} is unchanged: version {number}."
    manifest = deployed.packed.manifest
    files = _format.count(len(manifest.entries), "file")
    if number == 1:
        size = _format.size(manifest.size)
        return f"Deployment {name!r} is made: version 1, {files} of {size} from {deployed.root}."
    versions = store.deployments.versions(name)
    said = len(changes(versions[1], versions[0]))
    parts = [_format.count(said, "setting")] if said else []
    if changed := _changed_files(store, versions[1].bundle, versions[0].bundle):
        parts.insert(0, _format.count(changed, "file"))
    return f"Deployment {name!r} has version {number}: {' and '.join(parts) or 'other code'}."


def _changed_files(store: Store, before: str, after: str) -> int:
    from raflow.cli._deployments import manifest_of
    from raflow.service import file_changes

    return len(file_changes(manifest_of(store, before), manifest_of(store, after)))
