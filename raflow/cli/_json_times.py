"""The JSON forms of schedules and backfills; see `_json`."""

from __future__ import annotations

import json
from typing import Any

from raflow.cli import _format
from raflow.model import (
    Backfill,
    BackfillPreview,
    BackfillSlot,
    ScheduleRow,
    ScheduleSpec,
    SlotRecord,
)
from raflow.service import NextSlot


def schedule(row: ScheduleRow) -> dict[str, Any]:
    """Return when a deployment runs by itself."""
    return {
        "id": row.id,
        "deployment": row.deployment,
        "name": row.name,
        "active": row.active,
        "generation": row.generation,
        "next_at": _format.iso(row.next_at),
        "error": row.error or None,
        **({} if row.spec is None else _spec_of_schedule(row.spec)),
    }


def _spec_of_schedule(spec: ScheduleSpec) -> dict[str, Any]:
    from raflow.model.schedule import encode_policy, encode_rule

    when = spec.schedule
    return {
        "rule": json.loads(encode_rule(when.rule)),
        "timezone": when.rule.timezone,
        "start": None if when.start is None else _format.iso(when.start.timestamp()),
        "end": None if when.end is None else _format.iso(when.end.timestamp()),
        "jitter_seconds": when.jitter.total_seconds(),
        "policy": json.loads(encode_policy(spec.policy)),
        "parameters": dict(spec.parameters),
    }


def next_slot(found: NextSlot) -> dict[str, Any]:
    """Return a slot to come."""
    return {
        "slot": _format.iso(found.slot),
        "begins_at": _format.iso(found.begins_at),
        "local": found.local,
        "words": found.words,
    }


def slot(found: SlotRecord) -> dict[str, Any]:
    """Return what was decided about a slot."""
    return {
        "slot": _format.iso(found.instant),
        "action": found.action.value,
        "reason": found.reason,
        "flow_run_id": found.flow_run_id,
        "generation": found.generation,
        "decided_at": _format.iso(found.decided_at),
    }


def backfill(found: Backfill) -> dict[str, Any]:
    """Return a backfill."""
    return {
        "id": found.id,
        "deployment": found.deployment,
        "schedule_id": found.schedule_id,
        "since": _format.iso(found.since),
        "until": _format.iso(found.until),
        "state": found.state.value,
        "concurrency": found.concurrency,
        "reprocess": found.reprocess.value,
        "backwards": found.backwards,
        "parameters": dict(found.parameters),
        "total": found.total,
        "counts": {outcome.value: number for outcome, number in found.counts.items()},
        "actor": found.actor,
        "created_at": _format.iso(found.created_at),
        "ended_at": _format.iso(found.ended_at),
    }


def backfill_slot(found: BackfillSlot) -> dict[str, Any]:
    """Return a slot of a backfill."""
    return {
        "slot": _format.iso(found.instant),
        "outcome": found.outcome.value,
        "flow_run_id": found.flow_run_id,
        "attempt": found.attempt,
    }


def backfill_preview(found: BackfillPreview) -> dict[str, Any]:
    """Return what a backfill would do."""
    return {
        "slots": found.slots,
        "runs": found.runs,
        "already": dict(found.already),
        "first": [_format.iso(at) for at in found.first],
        "last": [_format.iso(at) for at in found.last],
    }
