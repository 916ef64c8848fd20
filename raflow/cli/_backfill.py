"""`raflow backfill`: runs of deployments for slots of the past."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from raflow.cli._options import Json

if TYPE_CHECKING:
    from raflow.model import Backfill, BackfillOrder
    from raflow.service import Service

app = typer.Typer(no_args_is_help=True, help="Run deployments for slots of the past.")
_Id = Annotated[
    str,
    typer.Argument(
        metavar="BACKFILL", help="The id of a backfill, or its end.", show_default=False
    ),
]


class ReprocessName(StrEnum):
    """Which slots run that have a run already."""

    NONE = "none"
    FAILED = "failed"
    COMPLETED = "completed"


@app.command("create")
def create(
    name: Annotated[
        str,
        typer.Argument(
            metavar="DEPLOYMENT[/SCHEDULE]",
            help="The deployment, and which of its schedules if there are several.",
            show_default=False,
        ),
    ],
    since: Annotated[str, typer.Option(metavar="TIME", help="The first slot: 2026-01-01.")],
    until: Annotated[
        str, typer.Option(metavar="TIME", help="The last slot. Default: now.", show_default=False)
    ] = "",
    every: Annotated[
        str,
        typer.Option(metavar="TIME", help="A slot every so often, in place of a schedule: 1d, 6h."),
    ] = "",
    concurrency: Annotated[
        int, typer.Option(min=1, help="How many of its runs may go on at once.")
    ] = 1,
    reprocess: Annotated[
        ReprocessName, typer.Option(help="Which slots run again that have a run already.")
    ] = ReprocessName.NONE,
    backwards: Annotated[bool, typer.Option("--backwards", help="The newest slots first.")] = False,
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            "-p",
            metavar="NAME=VALUE",
            help="A parameter of its runs; {slot:%Y-%m-%d} in it is the slot's day. "
            "May be repeated.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell which slots would run.")
    ] = False,
    json_: Json = False,
) -> None:
    """Run a deployment for the slots of a range of the past; those with a run are left alone."""
    from raflow.cli import _open, _params
    from raflow.model import Reprocess

    with _open.make_verbs() as verbs:
        more = {
            "concurrency": concurrency,
            "reprocess": Reprocess(reprocess.value),
            "backwards": backwards,
            "parameters": _params.read_plain(param or ()),
        }
        wanted = _wanted(verbs, name, since, until, every, more)
        if dry_run:
            _preview(verbs, wanted, json_=json_)
        else:
            _tell(verbs.backfills.create(wanted), json_=json_)


@app.command("ls")
def list_backfills(
    deployment: Annotated[
        str | None, typer.Argument(help="Only those of this deployment.", show_default=False)
    ] = None,
    json_: Json = False,
) -> None:
    """List backfills, the newest first."""
    from raflow.cli import _console, _format, _json_times, _open

    with _open.open_verbs() as verbs:
        found = verbs.backfills.all(deployment=deployment) if verbs is not None else []
    if json_:
        _console.emit_json([_json_times.backfill(one) for one in found])
        return
    table = _console.table("Backfill", "Deployment", "From", "To", "State", "Slots", less=["To"])
    for one in found:
        table.add_row(
            one.id[-6:],
            Text(one.deployment),
            _format.moment(one.since),
            _format.moment(one.until),
            one.state.value,
            _counted(one),
        )
    _console.out().print(table)


@app.command("show")
def show(name: _Id, json_: Json = False) -> None:
    """Show a backfill: how far it has come."""
    from raflow.cli import _open

    with _open.make_verbs() as verbs:
        _tell(verbs.backfills.find(name), json_=json_)


@app.command("slots")
def list_slots(
    name: _Id,
    number: Annotated[int, typer.Option("-n", "--number", min=1, help="How many.")] = 100,
    json_: Json = False,
) -> None:
    """List slots of a backfill, the oldest first: what became of each."""
    from raflow.cli import _console, _format, _json_times, _open

    with _open.make_verbs() as verbs:
        found = verbs.backfills.slots(verbs.backfills.find(name).id, limit=number)
    if json_:
        _console.emit_json([_json_times.backfill_slot(one) for one in found])
        return
    table = _console.table("Slot", "What", "Run", "Retries", right=["Retries"])
    for one in found:
        run = (one.flow_run_id or "")[-6:]
        table.add_row(_format.moment(one.instant), one.outcome.value, run, str(one.attempt))
    _console.out().print(table)


@app.command("pause")
def pause(name: _Id, json_: Json = False) -> None:
    """Order no more runs of a backfill; those that were go on."""
    from raflow.cli import _open

    with _open.make_verbs() as verbs:
        _tell(verbs.backfills.pause(verbs.backfills.find(name).id), json_=json_)


@app.command("resume")
def resume(name: _Id, json_: Json = False) -> None:
    """Let a backfill go on that is paused."""
    from raflow.cli import _open

    with _open.make_verbs() as verbs:
        _tell(verbs.backfills.resume(verbs.backfills.find(name).id), json_=json_)


@app.command("cancel")
def cancel(name: _Id, json_: Json = False) -> None:
    """Cancel a backfill with its runs."""
    from raflow.cli import _open

    with _open.make_verbs() as verbs:
        _tell(verbs.backfills.cancel(verbs.backfills.find(name).id), json_=json_)


@app.command("retry")
def retry(name: _Id, json_: Json = False) -> None:
    """Run those slots of a backfill again whose runs did not complete."""
    from raflow.cli import _open

    with _open.make_verbs() as verbs:
        _tell(verbs.backfills.retry_failed(verbs.backfills.find(name).id), json_=json_)


def _wanted(
    verbs: Service, name: str, since: str, until: str, every: str, more: dict[str, Any]
) -> BackfillOrder:
    from raflow.model import BackfillOrder
    from raflow.model.schedule import WrittenSchedule, parse_duration

    deployment, _, schedule = name.partition("/")
    zone = "UTC"
    if not every:
        row = verbs.schedules.find(name)
        deployment, schedule = row.deployment, row.name
        zone = "UTC" if row.spec is None else row.spec.schedule.rule.timezone
    # Times are written as those of schedules are.
    begin = WrittenSchedule(cron="@daily", timezone=zone, start=since).schedule().start
    end = WrittenSchedule(cron="@daily", timezone=zone, start=until).schedule().start
    assert begin is not None, "an empty text was refused"
    return BackfillOrder(
        deployment=deployment,
        schedule=schedule,
        since=begin.timestamp(),
        until=(end or datetime.now(UTC)).timestamp() if until else _now(),
        every=parse_duration(every).total_seconds() if every else 0.0,
        **more,
    )


def _now() -> float:
    return datetime.now(UTC).timestamp()


def _preview(verbs: Service, wanted: BackfillOrder, *, json_: bool) -> None:
    from raflow.cli import _console, _format, _json_times

    found = verbs.backfills.preview(wanted)
    if json_:
        _console.emit_json(_json_times.backfill_preview(found))
        return
    out = _console.out()
    there = ", ".join(f"{number} {state}" for state, number in found.already.items())
    told = f"; runs that are there: {there}" if there else ""
    slots = _format.count(found.slots, "slot")
    out.print(f"{slots}, {_format.count(found.runs, 'run')} to order{told}.", markup=False)
    shown = dict.fromkeys([*found.first, *found.last])
    for at in shown:
        out.print(f"  {_format.iso(at)}", markup=False)
    if found.slots > len(shown):
        out.print(f"  ... and {found.slots - len(shown):,} between them", style="dim")


def _tell(backfill: Backfill, *, json_: bool) -> None:
    from raflow.cli import _console, _format, _json_times

    if json_:
        _console.emit_json(_json_times.backfill(backfill))
        return
    parameters = dict(backfill.parameters)
    facts = [
        ("Backfill", backfill.id),
        ("Deployment", backfill.deployment),
        ("From", _format.moment(backfill.since)),
        ("To", _format.moment(backfill.until)),
        ("State", backfill.state.value),
        ("Slots", _counted(backfill)),
        ("At once", str(backfill.concurrency)),
        ("Reprocess", backfill.reprocess.value),
        ("Parameters", json.dumps(parameters, ensure_ascii=False) if parameters else ""),
        ("By", backfill.actor),
    ]
    _console.out().print(_console.facts(facts))


def _counted(backfill: Backfill) -> str:
    parts = [f"{number} {outcome.value}" for outcome, number in backfill.counts.items()]
    return f"{backfill.total:,}: {', '.join(sorted(parts))}"
