"""`raflow schedules`: when deployments run by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from raflow.cli._options import Json, Params
from raflow.cli._schedule_options import (
    AtTime,
    CatchUpWord,
    CronRule,
    End,
    IntervalRule,
    Jitter,
    OverlapWord,
    RRuleText,
    Start,
    Timezone,
    Window,
)

if TYPE_CHECKING:
    from raflow.model import ScheduleRow

app = typer.Typer(no_args_is_help=True, help="Look at schedules of deployments, and change them.")
_Name = Annotated[
    str,
    typer.Argument(
        metavar="SCHEDULE",
        help="DEPLOYMENT/SCHEDULE, or the name of a deployment that has only one, or an id.",
        show_default=False,
    ),
]
_Number = Annotated[int, typer.Option("-n", "--number", min=1, help="How many.")]


@app.command("ls")
def list_schedules(
    deployment: Annotated[
        str | None, typer.Argument(help="Only those of this deployment.", show_default=False)
    ] = None,
    json_: Json = False,
) -> None:
    """List schedules, and when each runs next."""
    from raflow.cli import _console, _format, _json_times, _open

    with _open.open_verbs() as verbs:
        rows = verbs.schedules.all(deployment) if verbs is not None else []
    if json_:
        _console.emit_json([_json_times.schedule(row) for row in rows])
        return
    out = _console.out()
    if not rows:
        out.print("There is no schedule. Deploy a flow with one:\n")
        out.print(
            "    raflow deploy FILE:FLOW --cron '30 2 * * *' --timezone Europe/Paris",
            style="bold",
            markup=False,
        )
        return
    table = _console.table("Schedule", "When", "Zone", "Next", "State", less=["Zone"])
    for row in rows:
        when, zone = _when(row)
        state = Text(_state(row), style="red" if row.error else "")
        name = Text(f"{row.deployment}/{row.name}")
        table.add_row(name, Text(when), zone, _format.moment(row.next_at), state)
    out.print(table)


@app.command("show")
def show_schedule(name: _Name, json_: Json = False) -> None:
    """Show a schedule: when it runs, what it does if that does not go by plan."""
    from raflow.cli import _console, _format, _json_times, _open
    from raflow.model.schedule import show_duration

    with _open.make_verbs() as verbs:
        row = verbs.schedules.find(name)
    if json_:
        _console.emit_json(_json_times.schedule(row))
        return
    when, zone = _when(row)
    facts: list[tuple[str, str]] = [
        ("Schedule", f"{row.deployment}/{row.name}"),
        ("When", when),
        ("Zone", zone),
        ("State", _state(row)),
        ("Next", _format.moment(row.next_at)),
    ]
    if row.spec is not None:
        schedule, policy = row.spec.schedule, row.spec.policy
        parameters = dict(row.spec.parameters)
        facts += [
            ("Start", "" if schedule.start is None else schedule.start.isoformat(" ")),
            ("End", "" if schedule.end is None else schedule.end.isoformat(" ")),
            ("Jitter", show_duration(schedule.jitter) if schedule.jitter else ""),
            ("Overlap", policy.overlap.value),
            ("Catch-up", f"{policy.catch_up.value}, within {show_duration(policy.window)}"),
            ("Parameters", _console.as_json(parameters) if parameters else ""),
        ]
    _console.out().print(_console.facts([*facts, ("Id", row.id)]))


@app.command("next")
def list_next(name: _Name, number: _Number = 20, json_: Json = False) -> None:
    """List the slots that come next, with what changes of the clocks mean for them."""
    from raflow.cli import _console, _format, _json_times, _open

    with _open.make_verbs() as verbs:
        row = verbs.schedules.find(name)
        found = verbs.schedules.next(row.id, number)
    if json_:
        _console.emit_json([_json_times.next_slot(one) for one in found])
        return
    out = _console.out()
    if not row.active:
        out.print("It is paused: none of these runs.", style="yellow")
    for one in found:
        begins = one.begins_at - one.slot
        later = f", begins {_format.duration(begins)} later" if begins >= 1 else ""
        words = f"  {one.words}" if one.words else ""
        out.print(f"{one.local}  {_format.iso(one.slot)}{later}{words}", markup=False)
    if not found:
        out.print("It has no further slots.", style="dim")


@app.command("slots")
def list_slots(name: _Name, number: _Number = 20, json_: Json = False) -> None:
    """List slots that were decided, the newest first: what became of each, and why."""
    from raflow.cli import _console, _format, _json_times, _open

    with _open.make_verbs() as verbs:
        row = verbs.schedules.find(name)
        found = verbs.schedules.slots(row.id, limit=number)
    if json_:
        _console.emit_json([_json_times.slot(one) for one in found])
        return
    table = _console.table("Slot", "What", "Run", "Why", less=["Run"])
    for one in found:
        table.add_row(
            _format.moment(one.instant),
            one.action.value,
            (one.flow_run_id or "")[-6:],
            Text(one.reason),
        )
    _console.out().print(table)


@app.command("set")
def set_schedule(
    name: Annotated[
        str, typer.Argument(metavar="DEPLOYMENT/SCHEDULE", help="Its name.", show_default=False)
    ],
    cron: CronRule = "",
    interval: IntervalRule = "",
    rrule: RRuleText = "",
    at: AtTime = "",
    timezone: Timezone = "UTC",
    overlap: OverlapWord = "",
    catch_up: CatchUpWord = "",
    catch_up_window: Window = "",
    jitter: Jitter = "",
    start: Start = "",
    end: End = "",
    param: Params = None,
    json_: Json = False,
) -> None:
    """Make a schedule by hand, or change one; it stays when the deployment is deployed again."""
    from raflow import errors
    from raflow.cli import _console, _format, _json_times, _open, _params
    from raflow.model import ScheduleSpec
    from raflow.model.schedule import WrittenSchedule

    deployment, slash, own = name.partition("/")
    if not (slash and own):
        raise errors.ParameterError(f"{name!r} names no schedule. Write DEPLOYMENT/SCHEDULE.")
    rule = {"cron": cron, "interval": interval, "rrule": rrule, "at": at, "timezone": timezone}
    how = {"overlap": overlap, "catch_up": catch_up, "window": catch_up_window}
    when = {"jitter": jitter, "start": start, "end": end}
    written = WrittenSchedule(**{**rule, **how, **when})  # type: ignore[arg-type]  # all are texts
    spec = ScheduleSpec(
        name=own,
        schedule=written.schedule(),
        policy=written.policy(),
        parameters=_params.read_plain(param or ()),
    )
    with _open.make_verbs() as verbs:
        row, is_new = verbs.schedules.set(deployment, spec)
    if json_:
        _console.emit_json({**_json_times.schedule(row), "is_new": is_new})
        return
    next_ = "it has no further slots" if row.next_at is None else _format.moment(row.next_at)
    next_ = next_ if row.active else "it is paused"
    told = f"Schedule {name!r} is {'made' if is_new else 'set'}; next: {next_}."
    _console.out().print(told, markup=False, soft_wrap=True)


@app.command("delete")
def delete_schedule(name: _Name) -> None:
    """Remove a schedule that was made by hand, with its runs that wait for a time to come."""
    from raflow.cli import _console, _open

    with _open.make_verbs() as verbs:
        row = verbs.schedules.find(name)
        verbs.schedules.remove(row.id)
    _console.out().print(f"Schedule '{row.deployment}/{row.name}' is removed.", markup=False)


@app.command("pause")
def pause(name: _Name) -> None:
    """Have a schedule start no runs."""
    from raflow.cli import _console, _open

    with _open.make_verbs() as verbs:
        row = verbs.schedules.pause(verbs.schedules.find(name).id)
    told = f"Schedule '{row.deployment}/{row.name}' is paused."
    _console.out().print(told, markup=False)


@app.command("resume")
def resume(name: _Name) -> None:
    """Let a schedule go on with its next slot from now."""
    from raflow.cli import _console, _format, _open

    with _open.make_verbs() as verbs:
        row = verbs.schedules.resume(verbs.schedules.find(name).id)
    next_ = "it has no further slots" if row.next_at is None else _format.moment(row.next_at)
    told = f"Schedule '{row.deployment}/{row.name}' goes on; next: {next_}."
    _console.out().print(told, markup=False)


def _when(row: ScheduleRow) -> tuple[str, str]:
    """Return the rule in one line, and its zone."""
    from raflow.model.schedule import describe

    if row.spec is None:
        return "cannot be read", ""
    rule = row.spec.schedule.rule
    return describe(rule), rule.timezone


def _state(row: ScheduleRow) -> str:
    if row.error:
        return f"broken: {row.error}"
    if not row.active:
        return "paused"
    return "active" if row.next_at is not None else "over"
