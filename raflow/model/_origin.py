"""Where a run of a deployment comes from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOrigin:
    """Where a run of a deployment comes from."""

    deployment: str
    """Name of the deployment."""
    version: int
    bundle: str
    """Digest of its code: the run keeps it, whatever the deployment becomes."""
    pool: str
    priority: int = 0
    """Higher begins first."""
    schedule_id: str | None = None
    slot: float | None = None
    """The instant of the schedule, or of the backfill, that it stands for."""
    backfill_id: str | None = None
    begins_at: float | None = None
    """When it is to begin."""
    actor: str = ""
    """Who ordered it."""
    traceparent: str = ""
