"""A flow run on one screen: what came of it, its tasks, what failed, and what to try next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from raflow.cli import _console, _errors, _format, _json, _task_rows
from raflow.cli._task_rows import TaskRow
from raflow.model import ErrorInfo, FlowRun, ResultInfo, StateType, TaskRun
from raflow.store import Store

_FAILURES_SHOWN = 5
_TRACEBACK_LINES = 14
_ENTRIES_SHOWN = 12
_OWN = "raflow.errors."


def as_json(store: Store, run: FlowRun, *, every_item: bool = False) -> dict[str, object]:
    """Return all that `runs show --json` prints."""
    rows = _rows(store, run, every_item)
    return {
        "flow_run": _json.flow_run(run),
        "tasks": [_json.task_row(row) for row in rows],
        "failures": [_json.failure(failed) for failed in _task_rows.failures(store, run)],
    }


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
    if not brief:
        out.print(_head(run))
        out.print()
    if rows:
        out.print(_task_rows.render(rows, limit=None if every_item else 40))
        out.print()
    failed = _task_rows.failures(store, run)
    for panel in _failure_panels(run, failed):
        out.print(panel)
    end = _end(run, brief=brief, own_error=not _is_told(run, failed))
    if brief:
        end.append(("Record", store.shown_url))
    commands = next_commands(run, rows, shown=not brief)
    out.print(_console.facts([*end, ("Next", _commands(commands))]))


def print_end(store: Store, run: FlowRun, *, out: Console) -> None:
    """Print what came of a flow run, and why; see `print_run`."""
    failed = _task_rows.failures(store, run)
    for panel in _failure_panels(run, failed):
        out.print(panel)
    out.print(_console.facts(_end(run, brief=True, own_error=not _is_told(run, failed))))


def next_commands(run: FlowRun, rows: Sequence[TaskRow], *, shown: bool) -> list[str]:
    """Return commands that are worth trying next.

    Args:
        run: The flow run.
        rows: Its tasks.
        shown: Whether `runs show` is the command that was just tried.
    """
    name = short_name(run)
    logs = f"raflow runs logs {name}"
    failed = next((row for row in rows if row.counts.get(StateType.FAILED)), None)
    if failed is not None:
        logs += f" --task {failed.node.key}"
    if not run.state.is_final:
        logs += " --follow"
    child = next((row.child_flow_run_id for row in rows if row.child_flow_run_id), None)
    show = f"raflow runs show {name}"
    if shown:
        show = f"raflow runs show {child}" if child else f"{show} --all"
    return [show, logs, f"raflow runs graph {name}"]


def short_name(run: FlowRun) -> str:
    """Return the shortest text that names the run for sure."""
    tail = run.id[-6:]
    return run.name if run.name.endswith(tail) and " " not in run.name else run.id[-12:]


def _rows(store: Store, run: FlowRun, every_item: bool) -> list[TaskRow]:
    return _task_rows.item_rows(store, run) if every_item else _task_rows.task_rows(store, run)


def _head(run: FlowRun) -> Table:
    parameters = ", ".join(f"{name}={value!r}" for name, value in run.parameters.items())
    begun = _format.moment(run.started_at or run.created_at)
    return _console.facts(
        [
            ("Flow", Text(run.flow, style="bold")),
            ("Parameters", parameters),
            ("Started", f"{begun} on {run.host} (process {run.pid})" if run.host else begun),
            ("Backend", run.backend),
            ("Parent", run.parent_id),
            ("Tags", ", ".join(run.tags)),
            ("Versions", ", ".join(f"{name} {text}" for name, text in run.versions.items())),
        ]
    )


def _commands(commands: Iterable[str]) -> Text:
    return Text("\n").join(Text(command, style="bold") for command in commands)


def _end(run: FlowRun, *, brief: bool, own_error: bool) -> list[tuple[str, RenderableType | None]]:
    took = ""
    if run.ended_at is not None:
        took = f" in {_format.duration(run.ended_at - (run.started_at or run.created_at))}"
    state = _console.state_text(run.state).append(took)
    if brief:
        state.append(f"  {run.flow}", style="bold")
    told = own_error or (run.error is not None and not run.error.type.startswith(_OWN))
    why = run.state.reason or ("" if told else run.state.message)
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
