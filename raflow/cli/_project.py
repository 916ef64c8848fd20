"""`raflow deploy` without a flow: what a `raflow.yaml` describes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import typer
from rich.text import Text

from raflow import errors

if TYPE_CHECKING:
    from rich.console import Console

    from raflow.cli._plan import Plan, Step
    from raflow.runtime.deploying import Project
    from raflow.store import Store

_OF_PROJECTS: Final = frozenset({"file", "all_", "dry_run", "prune", "schema"})
_OF_BOTH: Final = frozenset({"ctx", "target", "name", "note", "json_"})
_SIGNS: Final = {
    "make": ("+", "green", "is made"),
    "change": ("~", "yellow", "is changed"),
    "keep": ("=", "dim", "stays as it is"),
    "remove": ("-", "red", "is removed"),
}
_DETAILS: Final = 12


class Said(NamedTuple):
    """What a person wants of a file."""

    file: Path | None
    name: str
    all_: bool
    dry_run: bool
    prune: bool
    note: str


def is_meant(ctx: typer.Context, target: str | None) -> bool:
    """Whether a `raflow.yaml` is to be deployed rather than one flow.

    Raises:
        ParameterError: Options were given that belong to the other.
    """
    given = {name for name in ctx.params if _is_given(ctx, name)}
    wrong = given & _OF_PROJECTS if target else given - _OF_PROJECTS - _OF_BOTH
    if wrong:
        options = [one for one in ctx.command.params if one.name in wrong]
        named = ", ".join(sorted(one.opts[0] for one in options))
        if target:
            raise errors.ParameterError(f"{named}: for a raflow.yaml only. Leave out {target!r}.")
        raise errors.ParameterError(
            f"{named}: for one flow only. Name it (raflow deploy FILE[:FLOW]), or write this into "
            "raflow.yaml."
        )
    return target is None


def deploy(said: Said, *, schema: bool, json_: bool) -> None:
    """Deploy what a file describes, or show what that would change."""
    from raflow._util import person
    from raflow.cli import _console, _open, _plan
    from raflow.runtime import deploying

    if schema:
        print(deploying.project_schema(), end="")
        return
    if said.name and (said.all_ or said.prune):
        raise errors.ParameterError("--name is for one deployment: leave out --all and --prune.")
    project = deploying.read_project(said.file or Path(deploying.PROJECT_FILE))
    names = [said.name] if said.name else []
    with _open.make_store() as store:
        plan = _plan.plan_project(project, store, names=names, actor=person(), note=said.note)
        if not said.dry_run:
            _apply(plan, project, store, prune=said.prune)
    if json_:
        _console.emit_json(_as_json(plan, project, said))
    else:
        _tell(plan, project, said, _console.out())


def _apply(plan: Plan, project: Project, store: Store, *, prune: bool) -> None:
    from raflow import config
    from raflow.cli import _plan
    from raflow.runtime.deploying import LocalDeploys

    to = LocalDeploys(store, config.load().bundles)
    _plan.apply_plan(plan, project, store, to, prune=prune)


def _as_json(plan: Plan, project: Project, said: Said) -> dict[str, object]:
    return {
        "project": project.name,
        "file": str(project.file),
        "dry_run": said.dry_run,
        "pruned": said.prune and not said.dry_run,
        "steps": [
            {
                "kind": step.kind,
                "name": step.name,
                "action": step.action,
                "details": list(step.details),
            }
            for step in plan.steps
        ],
        "left_out": list(plan.left_out),
    }


def _tell(plan: Plan, project: Project, said: Said, out: Console) -> None:
    from raflow.cli import _console, _format

    for sentence in plan.left_out:
        _console.err().print(sentence, style="yellow", markup=False)
    for step in plan.steps:
        out.print(_line(step, said), soft_wrap=True)
        for text in step.details[:_DETAILS]:
            out.print(Text(f"    {text}", style="dim"), soft_wrap=True)
        if len(step.details) > _DETAILS:
            more = (
                f"    and {len(step.details) - _DETAILS} more: raflow deployments diff {step.name}"
            )
            out.print(Text(more, style="dim"), soft_wrap=True)
    differ = sum(step.action in {"make", "change"} for step in plan.steps)
    same = sum(step.action == "keep" for step in plan.steps)
    did = "would be" if said.dry_run else "was" if differ == 1 else "were"
    stay = "stays as it is" if same == 1 else "stay as they are"
    told = f"Project {project.name!r}: {differ} {did} made or changed, {same} {stay}."
    out.print(Text(told, style="bold"), soft_wrap=True)
    gone = [step.name for step in plan.steps if step.action == "remove"]
    if gone and not said.prune:
        number = _format.count(len(gone), "deployment")
        told = f"On record and no longer in {project.file}: {number}. --prune removes what is."
        out.print(Text(told), soft_wrap=True)


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _line(step: Step, said: Said) -> Text:
    sign, style, told = _SIGNS[step.action]
    if step.action == "remove" and not said.prune:
        sign, style, told = "!", "yellow", "is not in the file any more"
    elif said.dry_run and step.action != "keep":
        told = told.replace("is ", "would be ")
    return Text.assemble((f"{sign} {step.kind} ", style), (step.name, "bold"), f" {told}")
