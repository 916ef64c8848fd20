"""`raflow reap`: bring flow runs to an end whose process is gone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from raflow import errors
from raflow.cli._errors import ExitCode
from raflow.cli._options import Json

if TYPE_CHECKING:
    from raflow.define import Flow
    from raflow.model import FlowRun
    from raflow.runtime import Reaped, Sighting
    from raflow.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class _Story:
    """What became of a flow run without a process."""

    flow_run: FlowRun
    sighting: Sighting
    reaped: Reaped | None = None
    """None: it was left as it is."""
    left: str = ""
    """Why it was left as it is."""
    without_hooks: str = ""
    """Why its hooks were not called."""


def reap(
    run: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN", help="Flow runs. Default: all that have no process any more."
        ),
    ] = None,
    undo: Annotated[
        bool,
        typer.Option(
            "--undo", help="Call on_rollback of what has completed; also of runs that have Crashed."
        ),
    ] = False,
    only_with_hooks: Annotated[
        bool,
        typer.Option("--only-with-hooks", help="Leave runs whose flow cannot be loaded from here."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    json_: Json = False,
) -> None:
    """Record flow runs as Crashed whose process is gone, end what it left, and call their hooks.

    Such a run can be resumed. One that is suspended needs no process, and is left alone.
    """
    from raflow.cli import _console, _open

    with _open.open_store() as store:
        seen = _seen(store, run or (), undo=undo) if store is not None else []
        if store is not None and not dry_run:
            seen = [_reaped(store, story, undo, only_with_hooks) for story in seen]
    if json_:
        _console.emit_json([_as_json(story) for story in seen])
    else:
        _print(seen, dry_run=dry_run)
    if run and any(story.left for story in seen):
        raise typer.Exit(ExitCode.USAGE)


def flow_of(store: Store, run: FlowRun) -> tuple[Flow[..., Any] | None, str]:
    """Return the flow of a run as it was recorded, or None and why it cannot be had."""
    from raflow import define

    known = _place(store, run)
    if not known:
        return None, "it was not started by `raflow run`, so that its flow is not found"
    try:
        flow = define.find_flow(known).flow
    except errors.RaflowError as error:
        return None, f"its flow cannot be loaded from here: {error.message}"
    if flow.name != run.flow:
        return None, f"{known!r} is flow {flow.name!r} by now, not {run.flow!r}"
    return flow, ""


def _place(store: Store, run: FlowRun) -> str:
    """Return where the flow of a run was loaded from; empty if that is not on record."""
    return store.flow_version(run.fingerprint, flow=run.flow).entrypoint


def _seen(store: Store, names: Sequence[str], *, undo: bool) -> list[_Story]:
    """Look at the runs in question."""
    from raflow import runtime

    if names:
        named = {found.id: found for found in map(store.find_flow_run, names)}
        return [
            _Story(flow_run=found, sighting=sighting, left=_why_not(found, sighting, undo=undo))
            for found in named.values()
            for sighting in [runtime.sight(store, found)]
        ]
    return [
        _Story(
            flow_run=found,
            sighting=sighting,
            left=_SILENT if sighting.fate is runtime.Fate.SILENT else "",
        )
        for found, sighting in runtime.abandoned(store)
    ]


_SILENT = "its process is there, if stopped. Name the run to take it from that process."


def _why_not(run: FlowRun, sighting: Sighting, *, undo: bool) -> str:
    """Return why a run that was named cannot be reaped; empty if it can."""
    from raflow import runtime
    from raflow.cli import _standing
    from raflow.model import StateName

    if run.parent_id is not None:
        return f"it is a subflow: name the run that it belongs to, {_standing.root_name(run)}."
    if sighting.fate is runtime.Fate.ALIVE:
        return "a process drives it. `raflow cancel` ends it."
    if undo and run.state.name is StateName.CRASHED:
        return ""
    if not runtime.needs_a_process(run):
        return f"it is {run.state.name.value}."
    return ""


def _reaped(store: Store, story: _Story, undo: bool, only_with_hooks: bool) -> _Story:
    from dataclasses import replace

    from raflow import config, runtime

    if story.left:
        return story
    flow, why = flow_of(store, story.flow_run)
    if flow is None and only_with_hooks and _place(store, story.flow_run):
        return replace(story, left=why)
    try:
        done = runtime.reap(store, story.flow_run, flow, undo=undo, results=config.load().results)
    except (errors.RunIsAliveError, errors.ResumeError, errors.FencedError) as error:
        return replace(story, left=error.message)
    return replace(story, flow_run=done.flow_run, reaped=done, without_hooks=why)


def _print(stories: Iterable[_Story], *, dry_run: bool) -> None:
    from raflow.cli import _console, _standing

    out = _console.out()
    stories = list(stories)
    if not stories:
        out.print("Every flow run that is under way has a process.")
    for story in stories:
        run = story.flow_run
        lines = [f"Flow run {run.name!r} {_words(story, dry_run=dry_run)}"]
        if story.without_hooks:
            lines.append(f"  Its hooks were not called: {story.without_hooks}")
        if story.reaped is not None:
            lines.append(f"  Go on with it: `{_standing.resume_command(run)}`")
        for line in lines:
            out.print(line, markup=False, soft_wrap=True)


def _words(story: _Story, *, dry_run: bool) -> str:
    from raflow.cli import _format

    if story.left:
        return f"is left as it is: {story.left}"
    if story.reaped is None:
        assert dry_run
        return f"would be reaped: {story.sighting.words}."
    state, words = story.flow_run.state, story.sighting.words
    told = f"is recorded as {state.name.value}"
    # Of a run that had crashed before, that is of the process which has recorded it.
    told += f": {words}." if words[1:] in state.message else "."
    if story.reaped.ended:
        ended = _format.count(story.reaped.ended, "process", "processes")
        told += f" {ended} that it left behind ended."
    if story.reaped.undone:
        told += f" {_format.count(story.reaped.undone, 'task run')} undone."
    return told


def _as_json(story: _Story) -> dict[str, Any]:
    from raflow.cli import _json

    done = story.reaped
    return {
        "flow_run": _json.flow_run(
            story.flow_run, lost=None if done or story.left else story.sighting
        ),
        "reaped": done is not None,
        "left_because": story.left or None,
        "without_hooks_because": story.without_hooks or None,
        "last_process": _json.sighting(story.sighting),
        "processes_ended": 0 if done is None else done.ended,
        "task_runs_undone": 0 if done is None else done.undone,
    }
