"""A schedule: a rule, and when it holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from raflow import errors
from raflow.model.schedule._rules import Rule

_WHOLE: Final = 1 << 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When runs are to start: the slots of a rule between a start and an end.

    A slot is an instant in UTC. It stays what it is when its run begins later, by jitter or because
    nobody was there.
    """

    rule: Rule
    start: datetime | None = None
    """Before it there are no slots. Default: no bound."""
    end: datetime | None = None
    """After it there are no slots. Default: no bound."""
    jitter: timedelta = timedelta(0)
    """Each run begins by up to so much later than its slot, always before the next one: how much
    follows from the schedule and the slot. Default: none."""

    def __post_init__(self) -> None:
        for name, at in (("start", self.start), ("end", self.end)):
            if at is not None and at.tzinfo is None:
                raise errors.ScheduleError(
                    f"{name}={at.isoformat()!r} has no time zone. Write it with one, such as "
                    f"{at.isoformat()}Z or {at.isoformat()}+02:00."
                )
        if self.start and self.end and self.end <= self.start:
            raise errors.ScheduleError("The end of a schedule is after its start.")
        if self.jitter < timedelta(0):
            raise errors.ScheduleError("jitter is zero or more.")

    def next_after(self, instant: datetime) -> datetime | None:
        """Return the first slot after an instant; None: there is none."""
        instant = instant.astimezone(UTC)
        if self.start is not None:
            instant = max(instant, self.start.astimezone(UTC) - timedelta(microseconds=1))
        slot = self.rule.next_after(instant)
        return None if slot is None or (self.end is not None and slot > self.end) else slot

    def slots(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """Yield the slots after an instant and not after another, in order."""
        slot = self.next_after(after)
        while slot is not None and slot <= until:
            yield slot
            slot = self.next_after(slot)

    def begins_at(self, schedule_id: str, slot: datetime) -> datetime:
        """Return when the run of a slot is to begin: the slot, and its jitter.

        Args:
            schedule_id: What makes schedules with the same rule differ.
            slot: One of its slots.
        """
        if not self.jitter:
            return slot
        following = self.next_after(slot)
        room = self.jitter if following is None else min(self.jitter, following - slot)
        text = f"{schedule_id}|{slot.astimezone(UTC).isoformat()}"
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return slot + room * (int.from_bytes(digest, "big") / _WHOLE)
