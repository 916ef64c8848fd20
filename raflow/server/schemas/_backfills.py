"""Backfills, as the wire has them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AwareDatetime, Field

from raflow import model
from raflow.server.schemas._base import In, Out, maybe_moment, moment, plain, text


class BackfillIn(In):
    """A backfill that somebody wants."""

    deployment: str
    schedule: str = ""
    """The schedule whose slots they are; otherwise `every` says when."""
    since: AwareDatetime
    until: AwareDatetime
    every: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] = 0.0
    """Seconds between slots, where there is no schedule."""
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 1
    """How many of its runs may be under way at the same time."""
    reprocess: model.Reprocess = model.Reprocess.NONE
    """Which slots run that have a run already."""
    backwards: bool = False
    """Whether the newest slots come first."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """In place of those of the deployment and the schedule."""

    def order(self) -> model.BackfillOrder:
        """Return it as the service takes it."""
        return model.BackfillOrder(
            deployment=self.deployment,
            schedule=self.schedule,
            since=self.since.timestamp(),
            until=self.until.timestamp(),
            every=self.every,
            concurrency=self.concurrency,
            reprocess=self.reprocess,
            backwards=self.backwards,
            parameters=self.parameters,
        )


class BackfillPreviewOut(Out):
    """What a backfill would do."""

    slots: int
    runs: int
    """How many runs it would order."""
    already: dict[str, int]
    """Slots that have a run, by the name of its state."""
    first: list[datetime]
    last: list[datetime]

    @classmethod
    def of(cls, found: model.BackfillPreview) -> Self:
        """Return it as the wire has it."""
        return cls(
            slots=found.slots,
            runs=found.runs,
            already=dict(found.already),
            first=[moment(at) for at in found.first],
            last=[moment(at) for at in found.last],
        )


class BackfillOut(Out):
    """Runs of a deployment for slots of the past."""

    id: str
    deployment: str
    schedule_id: str | None
    since: datetime
    until: datetime
    state: model.BackfillState
    concurrency: int
    reprocess: model.Reprocess
    backwards: bool
    parameters: dict[str, Any]
    total: int
    counts: dict[model.BackfillOutcome, int]
    """Slots by what became of them."""
    actor: str
    created_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, found: model.Backfill) -> Self:
        """Return it as the wire has it."""
        return cls(
            id=found.id,
            deployment=text(found.deployment),
            schedule_id=found.schedule_id,
            since=moment(found.since),
            until=moment(found.until),
            state=found.state,
            concurrency=found.concurrency,
            reprocess=found.reprocess,
            backwards=found.backwards,
            parameters=plain(dict(found.parameters)),
            total=found.total,
            counts=dict(found.counts),
            actor=text(found.actor),
            created_at=moment(found.created_at),
            ended_at=maybe_moment(found.ended_at),
        )


class BackfillSlotOut(Out):
    """A slot of a backfill."""

    slot: datetime
    outcome: model.BackfillOutcome
    flow_run_id: str | None
    attempt: int
    """How often it was tried again."""

    @classmethod
    def of(cls, found: model.BackfillSlot) -> Self:
        """Return it as the wire has it."""
        return cls(
            slot=moment(found.instant),
            outcome=found.outcome,
            flow_run_id=found.flow_run_id,
            attempt=found.attempt,
        )
