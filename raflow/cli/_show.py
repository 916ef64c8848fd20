"""A flow run on one screen: what came of it, its tasks, what failed, and what to try next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from raflow._util import short_id
from raflow.cli import _console, _errors, _format, _json, _standing, _task_rows
from raflow.cli._task_rows import TaskRow
from raflow.model import (
    ErrorInfo,
    FlowRun,
    GraphNode,
    ResultInfo,
    State,
    StateName,
    StateType,
    TaskRun,
)
from raflow.runtime import Sighting, needs_a_process
from raflow.store import Store

_FAILURES_SHOWN = 5
_TRACEBACK_LINES = 14
_ENTRIES_SHOWN = 12
_OWN = "raflow.errors."


def as_json(store: Store, run: FlowRun, *, every_item: bool = False) -> dict[str, object]:
    """Return all that `runs show --json` prints."""
    rows = _rows(store, run, every_item)
    nodes = {node.id: node for node in store.graph(run.id).nodes}
    return {
        "flow_run": _json.flow_run(run, lost=_standing.lost(store, run)),
        "waits": [_json.wait(wait) for wait in _standing.waits_for(store, run)],
        "retries": [_json.state(state) for state in _retries(store, run)],
        "tasks": [_json.task_row(row) for row in rows],
        "failures": [
            _failure(store, nodes[failed.key.node], failed)
            for failed in _task_rows.failures(store, run)
        ],
    }


def _failure(store: Store, node: GraphNode, failed: TaskRun) -> dict[str, object]:
    attempts = store.attempts(failed.flow_run_id, failed.key)
    cause = attempts[-1].cause if attempts else None
    return _json.failure(failed, cause, _task_rows.memory_uses(node, attempts))


def print_run(
    store: Store,
    run: FlowRun,
    *,
    out: Console,
    every_item: bool = False,
    brief: bool = False,
) -> None:
    """Print a flow run.

    Args:
        store: The record.
        run: The flow run.
        out: Where to.
        every_item: A row for each item of a map. Default: one for the map.
        brief: Leave out what a person who has just started the run knows.
    """
    rows = _rows(store, run, every_item)
    lost = _standing.lost(store, run)
    if not brief:
        out.print(_head(run))
        tried = [_retry(state) for state in _retries(store, run)]
        if tried:
            out.print(_console.facts([("Retried", "\n".join(tried))]))
        out.print()
    if rows:
        out.print(_task_rows.render(rows, limit=None if every_item else 40))
        out.print()
    notes = _task_rows.notes(rows)
    if notes:
        out.print(_console.facts(notes))
        out.print()
    failed = _task_rows.failures(store, run)
    for panel in _failure_panels(run, failed):
        out.print(panel)
    end = _end(store, run, brief=brief, own_error=not _is_told(run, failed), lost=lost)
    if brief:
        end.append(("Record", store.shown_url))
    commands = next_commands(run, rows, shown=not brief, abandoned=lost is not None)
    out.print(_console.facts([*end, ("Next", _commands(commands))]))


def print_end(store: Store, run: FlowRun, *, out: Console) -> None:
    """Print what came of a flow run, and why; see `print_run`."""
    failed = _task_rows.failures(store, run)
    for panel in _failure_panels(run, failed):
        out.print(panel)
    out.print(_console.facts(_end(store, run, brief=True, own_error=not _is_told(run, failed))))
    if run.state.name is StateName.SUSPENDED:
        out.print(_console.facts([("Next", _commands([_standing.way_on(run)]))]))


def print_outcome(run: FlowRun, *, record: str, out: Console) -> None:
    """Print what came of a flow run whose record is elsewhere."""
    for panel in _failure_panels(run, ()):
        out.print(panel)
    end = _end(None, run, brief=True, own_error=not _is_told(run, ()))
    out.print(_console.facts([*end, ("Record", record)]))


def next_commands(
    run: FlowRun, rows: Sequence[TaskRow], *, shown: bool, abandoned: bool = False
) -> list[str]:
    """Return commands that are worth trying next.

    Args:
        run: The flow run.
        rows: Its tasks.
        shown: Whether `runs show` is the command that was just tried.
        abandoned: Whether its process is gone.
    """
    name = run.short_name
    if run.origin is not None and not (run.started_at or run.state.is_final):
        return [f"raflow cancel {name}"]
    logs = f"raflow runs logs {name}"
    failed = next((row for row in rows if row.counts.get(StateType.FAILED)), None)
    if failed is not None:
        logs += f" --task {failed.node.key}"
    if needs_a_process(run) and not abandoned:
        logs += " --follow"
    child = next((row.child_flow_run_id for row in rows if row.child_flow_run_id), None)
    show = f"raflow runs show {name}"
    if shown:
        show = f"raflow runs show {short_id(child)}" if child else f"{show} --all"
    others = [show, logs, f"raflow runs graph {name}"]
    way_on = _standing.way_on(run, abandoned=abandoned)
    if not way_on:
        return others
    return [*others, way_on] if run.state.is_final else [way_on, *others]


def _rows(store: Store, run: FlowRun, every_item: bool) -> list[TaskRow]:
    return _task_rows.item_rows(store, run) if every_item else _task_rows.task_rows(store, run)


def _head(run: FlowRun) -> Table:
    parameters = ", ".join(f"{name}={value!r}" for name, value in run.parameters.items())
    begun = _format.moment(run.started_at or run.created_at)
    origin = run.origin
    if origin is not None and run.started_at is None:
        begun = ""
    return _console.facts(
        [
            ("Flow", Text(run.flow, style="bold")),
            ("Deployment", origin and f"{origin.deployment}, version {origin.version}"),
            ("Pool", origin and origin.pool),
            ("Ordered", origin and f"{_format.moment(run.created_at)} by {origin.actor}"),
            ("Parameters", parameters),
            ("Started", f"{begun} on {run.host} (process {run.pid})" if run.host else begun),
            ("Backend", run.backend),
            ("Parent", run.parent_id and short_id(run.parent_id)),
            ("Rerun of", run.rerun_of and short_id(run.rerun_of)),
            ("Tags", ", ".join(run.tags)),
            ("Versions", ", ".join(f"{name} {text}" for name, text in run.versions.items())),
        ]
    )


def _retries(store: Store, run: FlowRun) -> list[State]:
    """Return the states in which a flow run has waited for its next attempt."""
    states = (change.state for change in store.states(run.id))
    return [state for state in states if state.name is StateName.AWAITING_RETRY]


def _retry(state: State) -> str:
    """Return what went wrong, and what was done about it."""
    return f"{_format.clock(state.at)}  {state.message}; {state.reason}"


def _commands(commands: Iterable[str]) -> Text:
    return Text("\n").join(Text(command, style="bold") for command in commands)


def _end(
    store: Store | None,
    run: FlowRun,
    *,
    brief: bool,
    own_error: bool,
    lost: Sighting | None = None,
) -> list[tuple[str, RenderableType | None]]:
    took = ""
    if run.ended_at is not None:
        took = f" in {_format.duration(run.ended_at - (run.started_at or run.created_at))}"
    state = _console.state_text(run.state).append(took)
    if brief:
        state.append(f"  {run.flow}", style="bold")
    told = own_error or (run.error is not None and not run.error.type.startswith(_OWN))
    why = run.state.reason or ("" if told else run.state.message)
    if store is not None and (lost is not None or _standing.waits_for(store, run)):
        why = _standing.why(store, run, lost=lost)
    return [
        ("State", state),
        ("Why", why),
        ("Result", _result(run.result)),
        ("Run", Text.assemble((run.name, "bold"), (f"  {run.id}", "dim"))),
    ]


def _result(result: ResultInfo | None) -> RenderableType | None:
    if result is None:
        return None
    value = _json.value(result)
    if isinstance(value, dict) and 0 < len(value) <= _ENTRIES_SHOWN:
        return _console.facts((str(name), _entry(inner)) for name, inner in value.items())
    kind = f"  {_format.plain_type(result.type)}, {_format.size(result.size)}"
    stored = f", stored at {result.url}" if result.url else ""
    return Text.assemble(result.preview, (kind + stored, "dim"))


def _entry(value: object) -> str:
    """Return an entry of a result on a line of its own: texts bare, small dicts as a list."""
    if isinstance(value, dict) and all(isinstance(v, str | int | float) for v in value.values()):
        return ", ".join(f"{name} {inner}" for name, inner in value.items())
    return value if isinstance(value, str) else repr(value)


def _failure_panels(run: FlowRun, failed: Sequence[TaskRun]) -> Iterable[RenderableType]:
    shown = failed[:_FAILURES_SHOWN]
    for number, task_run in enumerate(shown):
        # One traceback is worth reading; the items of a map mostly fail alike.
        lines = _TRACEBACK_LINES if number == 0 else 0
        title = f"{task_run.label} {task_run.state.name.value}"
        if task_run.attempts > 1:
            title += f" after {_format.count(task_run.attempts, 'attempt')}"
        yield _panel(title, task_run.error, task_run.state.message, lines)
    if len(failed) > len(shown):
        yield Text(f"… and {len(failed) - len(shown)} or more task runs that failed\n", style="dim")
    if not _is_told(run, failed):
        yield _flow_panel(run)


def _panel(title: str, error: ErrorInfo | None, message: str, lines: int) -> Panel:
    said = f"{_format.plain_type(error.type)}: {error.message}" if error else message
    parts: list[RenderableType] = [Text(said or "No message.", overflow="fold")]
    frames = _frames(error) if error and lines else ""
    if frames:
        parts += [Text(), Text(_errors.tail(frames, lines), style="dim", overflow="fold")]
    return Panel(Group(*parts), title=title, title_align="left", border_style="red")


def _frames(error: ErrorInfo) -> str:
    """Return the traceback without its last line, which says what the panel begins with."""
    last = f"{error.type.removeprefix('builtins.')}: {error.message}"
    frames = error.traceback.rstrip().removesuffix(last.rstrip()).rstrip()
    return frames if 'File "' in frames else ""


def _flow_panel(run: FlowRun) -> Panel:
    title = f"{run.flow} {run.state.name.value}"
    return _panel(title, run.error, run.state.message, _TRACEBACK_LINES)


def _is_told(run: FlowRun, failed: Sequence[TaskRun]) -> bool:
    """Whether the error of a flow run says no more than its state and the failures of its tasks."""
    if run.error is None or run.error.type.startswith(f"{_OWN}FlowRun"):
        return True
    if failed and run.error.type.startswith(_OWN):
        return True
    told = {(t.error.type, t.error.message) for t in failed if t.error is not None}
    return (run.error.type, run.error.message) in told
