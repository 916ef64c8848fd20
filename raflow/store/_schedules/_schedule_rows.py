"""Schedules and their slots as rows of their tables, and back."""

from __future__ import annotations

import functools
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from raflow import errors, model
from raflow.model import schedule as rules
from raflow.store._rows import _values

if TYPE_CHECKING:
    import sqlalchemy as sa

_KEPT: Final = 20_000


def definition(spec: model.ScheduleSpec) -> dict[str, object]:
    """Return the columns that say which slots a schedule has: equal ones are the same slots."""
    schedule = spec.schedule
    return {
        "rule": rules.encode_rule(schedule.rule),
        "timezone": schedule.rule.timezone,
        "start_at": None if schedule.start is None else schedule.start.timestamp(),
        "end_at": None if schedule.end is None else schedule.end.timestamp(),
        "jitter": schedule.jitter.total_seconds(),
    }


def handling(spec: model.ScheduleSpec) -> dict[str, object]:
    """Return the columns that say what is done about the slots of a schedule."""
    return {
        "policy": rules.encode_policy(spec.policy),
        "parameters": json.dumps(dict(spec.parameters), sort_keys=True, separators=(",", ":")),
    }


def schedule(row: sa.Row[Any]) -> rules.Schedule:
    """Return when a row has slots.

    Raises:
        ScheduleError: Its rule, or its time zone, is not known here.
    """
    return _schedule(row.rule, row.start_at, row.end_at, row.jitter)


def policy(row: sa.Row[Any]) -> rules.Policy:
    """Return what the schedule of a row does where it does not go by plan."""
    return _policy(row.policy)


# Looked at again with each slot, while schedules hardly ever change.


@functools.lru_cache(maxsize=_KEPT)
def _schedule(
    rule: str, start_at: float | None, end_at: float | None, jitter: float
) -> rules.Schedule:
    return rules.Schedule(
        rule=rules.decode_rule(rule),
        start=None if start_at is None else instant(start_at),
        end=None if end_at is None else instant(end_at),
        jitter=timedelta(seconds=jitter),
    )


@functools.lru_cache(maxsize=256)
def _policy(text: str) -> rules.Policy:
    return rules.decode_policy(text)


def instant(at: float) -> datetime:
    """Return a time of the database as an instant."""
    return datetime.fromtimestamp(at, UTC)


def read(row: sa.Row[Any]) -> model.ScheduleRow:
    """Return the schedule of a row, as far as it can be read here."""
    found, error = None, row.error
    try:
        found = spec(row)
    except errors.ScheduleError as why:
        error = error or str(why)
    return model.ScheduleRow(
        id=row.id,
        deployment=row.deployment,
        name=row.name,
        spec=found,
        active=row.active,
        generation=row.generation,
        cursor=row.cursor,
        next_at=row.next_at,
        error=error,
    )


def spec(row: sa.Row[Any]) -> model.ScheduleSpec:
    """Return what a person has written for the schedule of a row.

    Raises:
        ScheduleError: Its rule, or its time zone, is not known here.
    """
    return model.ScheduleSpec(
        name=row.name,
        schedule=schedule(row),
        policy=policy(row),
        parameters=_values.from_json(row.parameters),
        active=row.active,
    )


def read_slot(row: sa.Row[Any]) -> model.SlotRecord:
    """Return the slot of a row."""
    return model.SlotRecord(
        schedule_id=row.schedule_id,
        generation=row.generation,
        instant=row.instant,
        action=model.SlotAction(row.action),
        reason=row.reason,
        flow_run_id=row.flow_run_id,
        decided_at=row.decided_at,
    )
