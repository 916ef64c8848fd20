"""Schedules of deployments, and their slots."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response
from pydantic import AwareDatetime, Field

from raflow.model import Permission
from raflow.server._router import Routes, Verbs
from raflow.server.schemas import (
    In,
    Limit,
    NextSlotOut,
    Page,
    RemovedOut,
    ScheduleIn,
    ScheduleOut,
    SlotOut,
)

routes = Routes("schedules")


class ScheduleQuery(In):
    """Which schedules."""

    deployment: str | None = None


@routes.get("/schedules", Permission.READ)
def list_schedules(query: Annotated[ScheduleQuery, Query()], verbs: Verbs) -> Page[ScheduleOut]:
    """List schedules, sorted by deployment and name."""
    return Page(items=[ScheduleOut.of(row) for row in verbs.schedules.all(query.deployment)])


@routes.get("/schedules/{schedule_id}", Permission.READ)
def get_schedule(schedule_id: str, verbs: Verbs) -> ScheduleOut:
    """Return a schedule."""
    return ScheduleOut.of(verbs.schedules.get(schedule_id))


@routes.put("/deployments/{name}/schedules/{schedule}", Permission.AUTHOR)
def put_schedule(
    name: str, schedule: str, wanted: ScheduleIn, verbs: Verbs, response: Response
) -> ScheduleOut:
    """Give a deployment a schedule by hand, or change one; 201 if it was made.

    It stays when the deployment is deployed again. One that the deployment comes with is refused.
    """
    row, is_new = verbs.schedules.set(name, wanted.named(schedule))
    response.status_code = 201 if is_new else 200
    return ScheduleOut.of(row)


@routes.delete("/schedules/{schedule_id}", Permission.AUTHOR)
def remove_schedule(schedule_id: str, verbs: Verbs) -> RemovedOut:
    """Remove a schedule that was made by hand, with its runs that wait for a time to come."""
    verbs.schedules.remove(schedule_id)
    return RemovedOut(removed=1)


class NextQuery(In):
    """How many slots."""

    n: Annotated[int, Field(ge=1, le=1000)] = 20


@routes.get("/schedules/{schedule_id}/next", Permission.READ)
def list_next_slots(
    schedule_id: str, query: Annotated[NextQuery, Query()], verbs: Verbs
) -> Page[NextSlotOut]:
    """List the slots that come next, with what changes of the clocks mean for them."""
    return Page(items=[NextSlotOut.of(one) for one in verbs.schedules.next(schedule_id, query.n)])


class SlotQuery(In):
    """Which slots."""

    before: AwareDatetime | None = None
    """Only earlier ones: the last of the page before."""
    limit: Limit = 50


@routes.get("/schedules/{schedule_id}/slots", Permission.READ)
def list_slots(
    schedule_id: str, query: Annotated[SlotQuery, Query()], verbs: Verbs
) -> Page[SlotOut]:
    """List slots that were decided, the newest first."""
    before = None if query.before is None else query.before.timestamp()
    found = verbs.schedules.slots(schedule_id, before=before, limit=query.limit)
    return Page(items=[SlotOut.of(slot) for slot in found])


@routes.post("/schedules/{schedule_id}/pause", Permission.OPERATE)
def pause_schedule(schedule_id: str, verbs: Verbs) -> ScheduleOut:
    """Have a schedule start no runs; those that wait for a time to come are cancelled."""
    return ScheduleOut.of(verbs.schedules.pause(schedule_id))


@routes.post("/schedules/{schedule_id}/resume", Permission.OPERATE)
def resume_schedule(schedule_id: str, verbs: Verbs) -> ScheduleOut:
    """Let a schedule go on with its next slot from now."""
    return ScheduleOut.of(verbs.schedules.resume(schedule_id))
