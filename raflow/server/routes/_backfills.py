"""Backfills: runs of deployments for slots of the past."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from pydantic import AwareDatetime

from raflow.model import BackfillOutcome, Permission
from raflow.server._router import Routes, Verbs
from raflow.server.schemas import (
    BackfillIn,
    BackfillOut,
    BackfillPreviewOut,
    BackfillSlotOut,
    In,
    Limit,
    Page,
)

routes = Routes("backfills")


class BackfillQuery(In):
    """Which backfills."""

    deployment: str | None = None
    limit: Limit = 50


@routes.get("/backfills", Permission.READ)
def list_backfills(query: Annotated[BackfillQuery, Query()], verbs: Verbs) -> Page[BackfillOut]:
    """List backfills, the newest first."""
    found = verbs.backfills.all(deployment=query.deployment, limit=query.limit)
    return Page(items=[BackfillOut.of(one) for one in found])


@routes.post("/backfills", Permission.OPERATE, status_code=201)
def create_backfill(wanted: BackfillIn, verbs: Verbs) -> BackfillOut:
    """Begin a backfill; its runs are ordered as others of it end."""
    return BackfillOut.of(verbs.backfills.create(wanted.order()))


@routes.post("/backfills/preview", Permission.READ)
def preview_backfill(wanted: BackfillIn, verbs: Verbs) -> BackfillPreviewOut:
    """Return what a backfill would do; changes nothing."""
    return BackfillPreviewOut.of(verbs.backfills.preview(wanted.order()))


@routes.get("/backfills/{backfill_id}", Permission.READ)
def get_backfill(backfill_id: str, verbs: Verbs) -> BackfillOut:
    """Return a backfill."""
    return BackfillOut.of(verbs.backfills.get(backfill_id))


class BackfillSlotQuery(In):
    """Which slots."""

    outcome: BackfillOutcome | None = None
    after: AwareDatetime | None = None
    """Only later ones: the last of the page before."""
    limit: Limit = 50


@routes.get("/backfills/{backfill_id}/slots", Permission.READ)
def list_backfill_slots(
    backfill_id: str, query: Annotated[BackfillSlotQuery, Query()], verbs: Verbs
) -> Page[BackfillSlotOut]:
    """List slots of a backfill, the oldest first."""
    after = None if query.after is None else query.after.timestamp()
    found = verbs.backfills.slots(
        backfill_id, outcome=query.outcome, after=after, limit=query.limit
    )
    return Page(items=[BackfillSlotOut.of(slot) for slot in found])


@routes.post("/backfills/{backfill_id}/pause", Permission.OPERATE)
def pause_backfill(backfill_id: str, verbs: Verbs) -> BackfillOut:
    """Order no more runs of a backfill; those that were go on."""
    return BackfillOut.of(verbs.backfills.pause(backfill_id))


@routes.post("/backfills/{backfill_id}/resume", Permission.OPERATE)
def resume_backfill(backfill_id: str, verbs: Verbs) -> BackfillOut:
    """Let a backfill go on that is paused."""
    return BackfillOut.of(verbs.backfills.resume(backfill_id))


@routes.post("/backfills/{backfill_id}/cancel", Permission.OPERATE)
def cancel_backfill(backfill_id: str, verbs: Verbs) -> BackfillOut:
    """Cancel a backfill with its runs."""
    return BackfillOut.of(verbs.backfills.cancel(backfill_id))


@routes.post("/backfills/{backfill_id}/retry-failed", Permission.OPERATE)
def retry_backfill(backfill_id: str, verbs: Verbs) -> BackfillOut:
    """Have a backfill run those slots again whose runs did not complete."""
    return BackfillOut.of(verbs.backfills.retry_failed(backfill_id))
