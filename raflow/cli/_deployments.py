"""`raflow deployments`: look at deployments and their versions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from raflow.cli._options import Json

if TYPE_CHECKING:
    from raflow.bundles import Manifest
    from raflow.store import Store

app = typer.Typer(no_args_is_help=True, help="Look at deployments and their versions.")
_Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The name of the deployment.", show_default=False)
]


@app.command("ls")
def list_deployments(json_: Json = False) -> None:
    """List the deployments."""
    from raflow.cli import _console, _format, _json, _open

    with _open.open_store() as store:
        found = store.deployments.all() if store is not None else []
    if json_:
        _console.emit_json([_json.deployment(deployment) for deployment in found])
        return
    out = _console.out()
    if not found:
        out.print("There is no deployment. Make one:\n")
        out.print("    raflow deploy FILE:FLOW --name NAME", style="bold", markup=False)
        return
    table = _console.table(
        *("Deployment", "Flow", "Version", "Pool", "Changed"), right=["Version"], less=["Changed"]
    )
    for each in found:
        changed = _format.moment(each.updated_at)
        name = Text(f"{each.name} (paused)" if each.paused else each.name)
        table.add_row(name, Text(each.flow), str(each.version), Text(each.spec.pool), changed)
    out.print(table)


@app.command("show")
def show_deployment(name: _Name, json_: Json = False) -> None:
    """Show a deployment: its flow, code, parameters, pool."""
    from raflow.cli import _console, _format, _json, _open

    with _open.make_store() as store:
        found = store.deployments.get(name)
        version = store.deployments.version(name)
        manifest = manifest_of(store, version.bundle)
    if json_:
        _console.emit_json({**_json.deployment(found), "uses": _json.deployment_version(version)})
        return
    spec = found.spec
    made = f"made by {version.actor} on {_format.moment(version.created_at)}"
    rows = {
        "Deployment": found.name,
        "Flow": found.flow,
        "Version": f"{found.version}, {made}",
        "Entrypoint": spec.entrypoint,
        "Code": f"{_format.count(len(manifest.entries), 'file')}, {version.bundle[:12]}",
        "Pool": spec.pool,
        "Paused": "yes" if found.paused else "",
        "Parameters": _shown(dict(spec.parameters)) if spec.parameters else "",
        "Tags": ", ".join(spec.tags),
        "Priority": str(spec.priority),
        "Concurrency": "any" if spec.concurrency is None else str(spec.concurrency),
        "Python": f"{version.python}, {_format.count(len(version.packages), 'package')}",
        "Note": version.note,
    }
    for label, text in rows.items():
        if text:
            _console.out().print(f"{label:<12} {text}", markup=False, highlight=False)


@app.command("versions")
def list_versions(name: _Name, json_: Json = False) -> None:
    """List the versions of a deployment, the newest first."""
    from raflow.cli import _console, _format, _json, _open

    with _open.make_store() as store:
        used = store.deployments.get(name).version
        found = store.deployments.versions(name)
    if json_:
        _console.emit_json([_json.deployment_version(version) for version in found])
        return
    table = _console.table(
        *("Version", "Made", "By", "Code", "Note"), right=["Version"], less=["By", "Code"]
    )
    for version in found:
        number = f"{version.number}{' *' if version.number == used else '  '}"
        made = _format.moment(version.created_at)
        table.add_row(number, made, Text(version.actor), version.bundle[:12], Text(version.note))
    _console.out().print(table)
    _console.out().print("* new runs use it", style="dim", markup=False)


@app.command("diff")
def diff_versions(
    name: _Name,
    from_: Annotated[
        int | None,
        typer.Option("--from", min=1, help="The earlier version. Default: the one before --to."),
    ] = None,
    to: Annotated[
        int | None, typer.Option(min=1, help="The later version. Default: the one in use.")
    ] = None,
    json_: Json = False,
) -> None:
    """Show what is different between two versions of a deployment."""
    from raflow.cli import _console, _open
    from raflow.service import changes, file_changes

    with _open.make_store() as store:
        after = store.deployments.version(name, to)
        before = store.deployments.version(name, from_ or max(1, after.number - 1))
        said = changes(before, after)
        files = file_changes(manifest_of(store, before.bundle), manifest_of(store, after.bundle))
    if json_:
        _console.emit_json(
            {
                "from": before.number,
                "to": after.number,
                "settings": [
                    {"path": path, "from": _plain(old), "to": _plain(new)}
                    for path, old, new in said
                ],
                "files": [{"path": path, "change": change} for path, change in files],
            }
        )
        return
    out = _console.out()
    out.print(f"Version {before.number} -> {after.number}", style="bold")
    for path, old, new in said:
        out.print(f"  {path}: {_shown(old)} -> {_shown(new)}", markup=False, highlight=False)
    for path, change in files:
        out.print(f"  {change:<8} {path}", markup=False, highlight=False)
    if not (said or files):
        out.print("  nothing is different", style="dim")


@app.command("rollback")
def roll_back(
    name: _Name,
    version: Annotated[
        int, typer.Argument(metavar="VERSION", min=1, help="The version to use again.")
    ],
) -> None:
    """Have new runs of a deployment use an earlier version, or a later one, again."""
    from raflow.cli import _console, _open

    with _open.make_store() as store:
        found = store.deployments.use(name, version)
    _console.out().print(f"Deployment {name!r} uses version {found.version}.", markup=False)


@app.command("pause")
def pause_deployment(name: _Name) -> None:
    """Let no run of a deployment begin, nor its schedules start any. What has begun goes on."""
    from raflow.cli import _console, _open

    with _open.make_store() as store:
        store.deployments.set_paused(name, True)
    told = f"Deployment {name!r} is paused. `raflow deployments resume {name}` lets it go on."
    _console.out().print(told, markup=False, soft_wrap=True)


@app.command("resume")
def resume_deployment(name: _Name) -> None:
    """Let runs of a deployment begin again."""
    from raflow.cli import _console, _open

    with _open.make_store() as store:
        store.deployments.set_paused(name, False)
    _console.out().print(f"Deployment {name!r} goes on.", markup=False)


@app.command("rm")
def remove_deployment(name: _Name) -> None:
    """Remove a deployment: runs that wait are cancelled, others go on."""
    from raflow.cli import _console, _format, _open

    with _open.make_store() as store:
        cancelled = store.deployments.remove(name)
    also = f" {_format.count(cancelled, 'run')} that waited: cancelled." if cancelled else ""
    _console.out().print(f"Deployment {name!r} is removed.{also}", markup=False)


def manifest_of(store: Store, digest: str) -> Manifest:
    """Return what is in a bundle that a version uses."""
    from raflow.bundles import Limits, Manifest

    found = store.deployments.bundle(digest)
    assert found is not None, "every version has its bundle on record"
    return Manifest.parse(found.manifest, Limits())


def _shown(value: object) -> str:
    return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: object) -> Any:
    """Return the JSON form of a value of a spec."""
    import pydantic_core

    return pydantic_core.to_jsonable_python(value, fallback=str)
