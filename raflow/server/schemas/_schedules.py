"""Schedules and their slots, as the wire has them."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Annotated, Any, Self

from pydantic import AwareDatetime, Field

from raflow import model
from raflow.model.schedule import (
    Policy,
    Schedule,
    decode_policy,
    decode_rule,
    describe,
    encode_policy,
    encode_rule,
)
from raflow.server.schemas._base import In, Out, maybe_moment, moment, plain, text
from raflow.service import NextSlot


class ScheduleIn(In):
    """When a deployment is to run by itself."""

    rule: dict[str, Any]
    """As `ScheduleOut` has it: its `kind` is `cron`, `interval`, `rrule` or `once`."""
    start: AwareDatetime | None = None
    end: AwareDatetime | None = None
    jitter_seconds: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] = 0.0
    policy: dict[str, Any] = Field(default_factory=dict)
    """What is done about its slots where it does not go by plan."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """In place of those of the deployment."""
    active: bool = True

    def named(self, name: str) -> model.ScheduleSpec:
        """Return it as the service takes it."""
        return model.ScheduleSpec(
            name=name,
            schedule=Schedule(
                rule=decode_rule(json.dumps(self.rule)),
                start=self.start,
                end=self.end,
                jitter=timedelta(seconds=self.jitter_seconds),
            ),
            policy=decode_policy(json.dumps(self.policy)) if self.policy else Policy(),
            parameters=self.parameters,
            active=self.active,
        )


class WhenOut(Out):
    """Which slots a schedule has, and what is done about them."""

    rule: dict[str, Any]
    """Its `kind` is `cron`, `interval`, `rrule` or `once`."""
    words: str
    """The rule in one line."""
    timezone: str
    start: datetime | None
    end: datetime | None
    jitter_seconds: float
    policy: dict[str, Any]
    """What is done where it does not go by plan."""
    parameters: dict[str, Any]
    """In place of those of the deployment."""

    @classmethod
    def of(cls, spec: model.ScheduleSpec) -> Self:
        """Return it as the wire has it."""
        schedule: Schedule = spec.schedule
        return cls(
            rule=json.loads(encode_rule(schedule.rule)),
            words=text(describe(schedule.rule)),
            timezone=schedule.rule.timezone,
            start=schedule.start,
            end=schedule.end,
            jitter_seconds=schedule.jitter.total_seconds(),
            policy=json.loads(encode_policy(spec.policy)),
            parameters=plain(dict(spec.parameters)),
        )


class ScheduleOut(Out):
    """When a deployment runs by itself."""

    id: str
    deployment: str
    name: str
    active: bool
    """Whether it starts runs."""
    generation: int
    """Counts the changes of what its slots are."""
    next_at: datetime | None
    """Its next slot; null: it has none, or is paused."""
    error: str
    """Why its slots cannot be told; it is paused then."""
    when: WhenOut | None
    """Null: it cannot be read here; `error` says why."""

    @classmethod
    def of(cls, row: model.ScheduleRow) -> Self:
        """Return it as the wire has it."""
        return cls(
            id=row.id,
            deployment=text(row.deployment),
            name=text(row.name),
            active=row.active,
            generation=row.generation,
            next_at=maybe_moment(row.next_at),
            error=text(row.error),
            when=None if row.spec is None else WhenOut.of(row.spec),
        )


class NextSlotOut(Out):
    """A slot to come."""

    slot: datetime
    begins_at: datetime
    """When its run begins: the slot, and its jitter."""
    local: str
    """What clocks show in the zone of the schedule."""
    words: str
    """What is special about it because clocks are changed; empty: nothing."""

    @classmethod
    def of(cls, found: NextSlot) -> Self:
        """Return it as the wire has it."""
        return cls(
            slot=moment(found.slot),
            begins_at=moment(found.begins_at),
            local=found.local,
            words=found.words,
        )


class SlotOut(Out):
    """What was decided about a slot."""

    slot: datetime
    generation: int
    action: model.SlotAction
    reason: str
    flow_run_id: str | None
    decided_at: datetime

    @classmethod
    def of(cls, found: model.SlotRecord) -> Self:
        """Return it as the wire has it."""
        return cls(
            slot=moment(found.instant),
            generation=found.generation,
            action=found.action,
            reason=text(found.reason),
            flow_run_id=found.flow_run_id,
            decided_at=moment(found.decided_at),
        )
