"""Slots of schedules that were decided, and ranges of the past that are run again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class SlotAction(StrEnum):
    """What was done about a slot."""

    STARTED = "started"
    WAITING = "waiting"
    """Its run waits for others of the schedule."""
    REPLACED = "replaced"
    """Its run replaces others of the schedule, which were cancelled."""
    SKIPPED = "skipped"
    MISSED = "missed"
    """It was too old when somebody was there to decide."""
    BACKFILLED = "backfilled"
    """Its run is one of a backfill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRecord:
    """What was decided about a slot of a schedule."""

    schedule_id: str
    generation: int
    instant: float
    action: SlotAction
    reason: str = ""
    flow_run_id: str | None = None
    decided_at: float = 0.0


class Reprocess(StrEnum):
    """Which slots a backfill runs that have a run already."""

    NONE = "none"
    FAILED = "failed"
    """Those whose last run did not complete."""
    COMPLETED = "completed"
    """All of them."""


class BackfillOutcome(StrEnum):
    """What became of a slot of a backfill."""

    WAITING = "waiting"
    """Its turn has not come."""
    RUNNING = "running"
    """Its run was ordered, and is not over."""
    COMPLETED = "completed"
    FAILED = "failed"
    """Its run ended otherwise."""
    KEPT = "kept"
    """It has a run already, which counts."""
    CANCELLED = "cancelled"
    """The backfill was cancelled before its turn."""


class BackfillState(StrEnum):
    """Where a backfill stands."""

    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfill:
    """Runs of a deployment for the slots of a range of time."""

    id: str
    deployment: str
    since: float
    until: float
    schedule_id: str | None = None
    state: BackfillState = BackfillState.RUNNING
    concurrency: int = 1
    """How many of its runs may be under way at the same time."""
    reprocess: Reprocess = Reprocess.NONE
    backwards: bool = False
    """Whether the newest slots come first."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    total: int = 0
    """How many slots it has."""
    counts: Mapping[BackfillOutcome, int] = field(default_factory=dict)
    """Slots by what became of them."""
    actor: str = ""
    created_at: float = 0.0
    ended_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillOrder:
    """A backfill that somebody wants."""

    deployment: str
    since: float
    """The first instant that may be a slot of it."""
    until: float
    """The last one; in the past."""
    schedule: str = ""
    """Name of the schedule whose slots they are. Default: that of `every`."""
    every: float = 0.0
    """Seconds between slots, from `since` on, where there is no schedule."""
    concurrency: int = 1
    reprocess: Reprocess = Reprocess.NONE
    backwards: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """In place of those of the deployment and the schedule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillSlot:
    """A slot of a backfill."""

    instant: float
    outcome: BackfillOutcome
    flow_run_id: str | None = None
    attempt: int = 0
    """How often it was tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillPreview:
    """What a backfill would do."""

    slots: int
    already: Mapping[str, int] = field(default_factory=dict)
    """Slots that have a run, by the name of its state."""
    runs: int = 0
    """How many runs it would order."""
    first: tuple[float, ...] = ()
    last: tuple[float, ...] = ()
