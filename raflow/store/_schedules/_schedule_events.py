"""What the feed says of schedules and their slots."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from raflow import model

if TYPE_CHECKING:
    import sqlalchemy as sa


def changed(
    schedule_id: str, name: str, deployment: str, what: str, *, actor: str, **more: object
) -> model.Event:
    """Return the event that somebody has changed a schedule.

    Args:
        schedule_id: Its id.
        name: Its name.
        deployment: Whose it is.
        what: `made`, `changed`, `removed`, `paused` or `resumed`.
        actor: Who did it.
        **more: For the payload.
    """
    return model.Event(
        kind=model.EventKind.SCHEDULE_CHANGED,
        object=f"schedule:{schedule_id}",
        at=0.0,
        deployment=deployment,
        actor=actor,
        payload={"name": name, "what": what, **more},
    )


def broken(row: sa.Row[Any], error: str) -> model.Event:
    """Return the event that the slots of a schedule cannot be told; it is paused."""
    return model.Event(
        kind=model.EventKind.SCHEDULE_BROKEN,
        object=f"schedule:{row.id}",
        at=0.0,
        deployment=row.deployment,
        payload={"name": row.name, "error": error},
    )


def skipped(row: sa.Row[Any], slot: datetime, action: model.SlotAction, reason: str) -> model.Event:
    """Return the event that a slot, or several that are too old, starts no run."""
    shown = slot.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return model.Event(
        kind=model.EventKind.SLOT_SKIPPED,
        object=f"schedule:{row.id}",
        at=0.0,
        flow=row.flow,
        deployment=row.deployment,
        payload={"name": row.name, "slot": shown, "action": action.value, "reason": reason},
    )
