"""`raflow why`: what a flow run waits for, and what would change that."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.text import Text

from raflow.cli._options import Json, RunName

if TYPE_CHECKING:
    from rich.console import Console

    from raflow.model import FlowRun, TaskRun, Wait, Why
    from raflow.store import Store


def why(run: RunName, json_: Json = False) -> None:
    """Say why a flow run, or a part of it, does not go on, and what to type to change that."""
    from raflow.cli import _console, _json, _open

    with _open.make_verbs() as verbs, _open.make_store() as store:
        found = _with_process(store, verbs.runs.why(verbs.runs.find(run).id))
    if json_:
        _console.emit_json(_json.why(found))
        return
    _print(found, _console.out())


def _with_process(store: Store, found: Why) -> Why:
    """Add what only this machine knows: that a process of it is gone before its lease is over."""
    import dataclasses

    from raflow.cli import _standing
    from raflow.model import Change, Wait

    lost = _standing.lost(store, found.flow_run)
    if lost is None or any(wait.code == "lost" for wait in found.waits):
        return found
    name = _standing.root_name(found.flow_run)
    changes = (
        Change(text="go on with it here", command=f"raflow resume {name}"),
        Change(text="record that it crashed", command=f"raflow reap {name}"),
    )
    gone = Wait(code="lost", text=lost.words, since=lost.at, changes=changes)
    return dataclasses.replace(found, summary="it waits", waits=(gone, *found.waits))


def _print(found: Why, out: Console) -> None:
    from raflow.cli import _console

    run = found.flow_run
    head = Text.assemble((run.short_name, "bold"), "  ", _console.state_text(run.state))
    out.print(head.append(f"  {found.summary}"), soft_wrap=True)
    for wait in found.waits:
        out.print()
        out.print(Text.assemble(("● ", "yellow"), _sentence(wait)), soft_wrap=True)
        for line in _details(wait):
            out.print(line, soft_wrap=True)
    if found.running:
        out.print()
        out.print(_console.facts([("Runs", _running(found.running))]))
    for one in found.notes:
        out.print()
        said = f"{_listed(one.calls, one.count)}: {one.text}"
        out.print(Text.assemble(("○ ", "dim"), f"{one.state.value}  {said}"), soft_wrap=True)
    if not (found.waits or found.running or found.notes):
        _advise(run, out)


def _advise(run: FlowRun, out: Console) -> None:
    out.print(Text.assemble("  ", (f"raflow runs show {run.short_name}", "bold")))


def _sentence(wait: Wait) -> str:
    who = f"{_listed(wait.calls, wait.count)}: " if wait.calls else ""
    return f"{who}{wait.text}"


def _details(wait: Wait) -> Iterator[Text]:
    from raflow.cli import _format

    if wait.since is not None:
        for_ = _format.duration(max(0.0, time.time() - wait.since))
        yield Text(f"  for {for_}, since {_format.moment(wait.since)}", style="dim")
    for change in wait.changes:
        line = Text.assemble("  ", f"{change.text}")
        yield line.append(": ").append(change.command, "bold") if change.command else line


def _running(calls: tuple[TaskRun, ...]) -> Text:
    from raflow._util import short_id
    from raflow.cli import _format

    lines = []
    for call in calls:
        since = call.started_at or call.state.at
        line = Text(f"{call.label}, for {_format.duration(max(0.0, time.time() - since))}")
        if call.child_flow_run_id:
            line.append(": ").append(f"raflow why {short_id(call.child_flow_run_id)}", "bold")
        lines.append(line)
    return Text("\n").join(lines)


def _listed(labels: tuple[str, ...], count: int) -> str:
    shown = ", ".join(labels[:3])
    more = count - min(3, len(labels))
    return f"{shown} and {more} more" if more else shown
