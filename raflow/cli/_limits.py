"""`raflow limits`: how much of something all flow runs may use together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from raflow.cli._options import Json

if TYPE_CHECKING:
    from raflow.model import LimitState, SlotLease

app = typer.Typer(
    no_args_is_help=True, help="Limit what all flow runs of the database use together."
)
_Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The name of the limit.", show_default=False)
]


@app.command("ls")
def list_limits(json_: Json = False) -> None:
    """List the limits, who holds their slots, and who waits for some."""
    from raflow.cli import _console, _json, _open

    with _open.open_store() as store:
        limits = store.limits.all() if store is not None else []
    if json_:
        _console.emit_json([_json.limit(state) for state in limits])
        return
    out = _console.out()
    if not limits:
        out.print("No limit is set. Set one, and let tasks hold its slots while they run:\n")
        out.print("    raflow limits set warehouse 3\n", style="bold")
        out.print('    @task(limits=["warehouse"])', style="dim", markup=False)
        return
    table = _console.table(
        *("Limit", "Taken", "Slots", "Who", "Since"), right=["Taken", "Slots"], less=["Since"]
    )
    for state in limits:
        limit = state.limit
        slots = f"{limit.slots:,}"
        if limit.per_seconds:
            slots += f" per {limit.per_seconds:g} s"
        taken = sum(holder.amount for holder in state.holders)
        first, *others = _people(state) or [(Text(), "")]
        table.add_row(Text(limit.name), f"{taken:,}", slots, *first)
        for other in others:
            table.add_row("", "", "", *other)
    out.print(table)


@app.command("set")
def set_limit(
    name: _Name,
    slots: Annotated[
        int, typer.Argument(metavar="SLOTS", min=0, help="How many there are; 0: nobody is served.")
    ],
    per_seconds: Annotated[
        float,
        typer.Option(
            min=0.0,
            metavar="SECONDS",
            help="Make it a rate: so many starts in this time. Default: slots are given back.",
            show_default=False,
        ),
    ] = 0.0,
) -> None:
    """Set a limit, or change it. Who holds more than it allows now keeps that."""
    from raflow.cli import _console, _format, _open
    from raflow.model import Limit

    with _open.make_store() as store:
        store.limits.set(Limit(name=name, slots=slots, per_seconds=per_seconds))
    rate = f" per {per_seconds:g} s" if per_seconds else ""
    told = f"Limit {name!r} has {_format.count(slots, 'slot')}{rate}."
    _console.out().print(told, markup=False)


@app.command("rm")
def remove_limit(name: _Name) -> None:
    """Remove a limit. A task that asks for its slots then fails until it is set again."""
    from raflow.cli import _console, _open

    with _open.make_store() as store:
        store.limits.remove(name)
    _console.out().print(f"Limit {name!r} is removed.", markup=False)


def _people(state: LimitState) -> list[tuple[Text, str]]:
    holders = [_person(lease, "") for lease in state.holders]
    return holders + [_person(lease, "waits: ") for lease in state.waiters]


def _person(lease: SlotLease, doing: str) -> tuple[Text, str]:
    from raflow.cli import _format

    amount = f" ({lease.amount:,})" if lease.amount != 1 else ""
    return Text(f"{doing}{lease.label}{amount}"), _format.clock(lease.since)
