"""Options of `raflow deploy` that say when a deployment runs by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from raflow.model import ScheduleSpec

_PANEL = "When it runs by itself"


def _rule(metavar: str, help_: str) -> object:
    return typer.Option(
        metavar=metavar,
        help=f"{help_} May be repeated.",
        show_default=False,
        rich_help_panel=_PANEL,
    )


def _how(metavar: str, help_: str, *names: str) -> object:
    return typer.Option(*names, metavar=metavar, help=help_, rich_help_panel=_PANEL)


CronRules: TypeAlias = Annotated[
    list[str] | None, _rule("EXPRESSION", "Run when clocks show this: '30 2 * * mon-fri'.")
]
Intervals: TypeAlias = Annotated[list[str] | None, _rule("TIME", "Run every so often: 10m, 1d.")]
RRules: TypeAlias = Annotated[
    list[str] | None, _rule("RULE", "Run by a rule of calendars: 'DTSTART:... RRULE:FREQ=...'.")
]
Times: TypeAlias = Annotated[
    list[str] | None, _rule("TIME", "Run once at this time: 2026-01-31T09:00.")
]
CronRule: TypeAlias = Annotated[
    str, _how("EXPRESSION", "Run when clocks show this: '30 2 * * mon-fri'.", "--cron")
]
IntervalRule: TypeAlias = Annotated[str, _how("TIME", "Run every so often: 10m, 1d.", "--interval")]
RRuleText: TypeAlias = Annotated[
    str, _how("RULE", "Run by a rule of calendars: 'DTSTART:... RRULE:FREQ=...'.", "--rrule")
]
AtTime: TypeAlias = Annotated[str, _how("TIME", "Run once at this time: 2026-01-31T09:00.", "--at")]
Timezone: TypeAlias = Annotated[
    str, _how("ZONE", "The clocks that these schedules go by: Europe/Paris.")
]
CatchUpWord: TypeAlias = Annotated[
    str,
    _how(
        "all|latest|none",
        "Which slots still run that came while nobody was there. Default: all.",
        "--catch-up",
        "--catchup",
    ),
]
Window: TypeAlias = Annotated[
    str,
    _how("TIME", "How long after its time a slot still runs. Default: 1h.", "--catch-up-window"),
]
OverlapWord: TypeAlias = Annotated[
    str,
    _how(
        "skip|buffer_one|buffer_all|cancel_other|allow_all",
        "What a slot does that comes while runs of the schedule are not over. Default: skip.",
    ),
]
Jitter: TypeAlias = Annotated[
    str, _how("TIME", "Begin each run by up to so much later, always the same for a slot.")
]
Start: TypeAlias = Annotated[str, _how("TIME", "No slots before this time.")]
End: TypeAlias = Annotated[str, _how("TIME", "No slots after this time.")]


def read(
    how: Mapping[str, str], rules: Mapping[str, Sequence[str] | None]
) -> tuple[ScheduleSpec, ...]:
    """Return the schedules that options stand for.

    Args:
        how: What holds for each of them, by the names of `WrittenSchedule`.
        rules: Texts of each kind of rule, by the same; each text is a schedule.

    Raises:
        ScheduleError: One is written wrongly.
        ParameterError: There is none that the other options could be for.
    """
    from raflow import errors
    from raflow.model import ScheduleSpec, schedule_specs
    from raflow.model.schedule import WrittenSchedule

    texts = [(kind, text) for kind, found in rules.items() for text in found or ()]
    each = [WrittenSchedule(**{**how, kind: text}) for kind, text in texts]  # type: ignore[arg-type]
    if not each and WrittenSchedule(**how) != WrittenSchedule():  # type: ignore[arg-type]
        raise errors.ParameterError(
            "Options of a schedule were given, and no schedule. Give --cron, --interval, --rrule "
            "or --at, too."
        )
    named = schedule_specs(one.schedule() for one in each)
    policies = [one.policy() for one in each]
    return tuple(
        ScheduleSpec(name=spec.name, schedule=spec.schedule, policy=policy)
        for spec, policy in zip(named, policies, strict=True)
    )
