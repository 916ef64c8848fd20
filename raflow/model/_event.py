"""What happened, in the order in which it became true."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class EventKind(StrEnum):
    """What happened; users' own kinds begin with `custom.` and are not listed."""

    FLOW_RUN_STATE = "flow_run.state"
    FLOW_RUN_PROGRESS = "flow_run.progress"
    FLOW_RUN_REQUESTED = "flow_run.requested"
    TASK_RUN_STATE = "task_run.state"
    TASK_RUNS_MORE = "task_runs.more"
    INPUT_ASKED = "input.asked"
    INPUT_ANSWERED = "input.answered"
    DEPLOYMENT_CREATED = "deployment.created"
    DEPLOYMENT_CHANGED = "deployment.changed"
    DEPLOYMENT_REMOVED = "deployment.removed"
    SCHEDULE_CHANGED = "schedule.changed"
    SCHEDULE_BROKEN = "schedule.broken"
    SLOT_SKIPPED = "slot.skipped"
    BACKFILL_STATE = "backfill.state"
    WORKER_ONLINE = "worker.online"
    WORKER_OFFLINE = "worker.offline"
    WORKER_LOST = "worker.lost"
    WORKER_DRAINING = "worker.draining"
    POOL_CHANGED = "pool.changed"
    LIMIT_CHANGED = "limit.changed"
    TOKEN_MADE = "token.made"  # noqa: S105  # a kind of event, not a secret
    TOKEN_REVOKED = "token.revoked"  # noqa: S105


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened."""

    kind: str
    """An `EventKind`, or `custom.` and a user's own."""
    object: str
    """To what: `flow_run:ID`, `deployment:NAME` ..."""
    at: float
    seq: int = 0
    """Its place among all events; 0: it has none yet."""
    flow_run_id: str | None = None
    flow: str | None = None
    deployment: str | None = None
    actor: str = ""
    """Who did it; empty: raflow."""
    payload: Mapping[str, Any] = field(default_factory=dict)
