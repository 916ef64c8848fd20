"""Who gets slots of a limit, and why somebody has to wait. Nothing here touches the database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from raflow import model
from raflow.store._database import _clock

_NAMED: Final = 3
"""How many holders a reason names."""


class Claim(NamedTuple):
    """A row in line for a limit, or one that was served."""

    name: str
    """Of the limit."""
    ticket: int
    """Its place in the order of arrival."""
    holder: str
    """Empty: nobody's any more, but it still counts against a rate."""
    flow_run_id: str
    label: str
    amount: int
    priority: int
    asked_at: float
    granted_at: float | None
    """None: it waits."""
    expires_at: float

    @property
    def rank(self) -> tuple[int, int]:
        """What those who wait are served by."""
        return -self.priority, self.ticket

    def is_same(self, other: Claim) -> bool:
        """Tell whether it is the same place in line, perhaps with another priority."""
        return self.ticket == other.ticket

    def lease(self, limit: model.Limit) -> model.SlotLease:
        """Return it as data for others."""
        is_taken = limit.per_seconds and self.granted_at is not None
        back_at = (self.granted_at or 0.0) + limit.per_seconds
        return model.SlotLease(
            holder=self.holder,
            flow_run_id=self.flow_run_id,
            label=self.label,
            amount=self.amount,
            priority=self.priority,
            since=self.asked_at if self.granted_at is None else self.granted_at,
            expires_at=back_at if is_taken else self.expires_at,
        )


def is_over(limit: model.Limit, claim: Claim, now: float) -> bool:
    """Tell whether a claim is nobody's and counts for nothing any more."""
    return claim.expires_at <= now and not (limit.per_seconds and _uses(limit, claim, now))


def taken(limit: model.Limit, claims: Iterable[Claim], now: float) -> list[Claim]:
    """Return the claims that use slots of a limit, the oldest first."""
    using = [claim for claim in claims if _uses(limit, claim, now)]
    return sorted(using, key=lambda claim: (claim.granted_at, claim.ticket))


def line(claims: Iterable[Claim]) -> list[Claim]:
    """Return the claims that wait for a limit, in the order in which they will be served."""
    return sorted((c for c in claims if c.granted_at is None), key=lambda claim: claim.rank)


def _uses(limit: model.Limit, claim: Claim, now: float) -> bool:
    if claim.granted_at is None:
        return False
    return not limit.per_seconds or claim.granted_at > now - limit.per_seconds


def obstacle(limit: model.Limit, claims: Sequence[Claim], asked: Claim, now: float) -> str | None:
    """Return why somebody cannot have slots of a limit right now; None if nothing is in the way.

    Args:
        limit: The limit.
        claims: All claims on it, without those that are over.
        asked: What is wanted, with its place in line; perhaps among `claims` already.
        now: The time.
    """
    ahead = [
        claim for claim in line(claims) if claim.rank < asked.rank and not asked.is_same(claim)
    ]
    using = taken(limit, claims, now)
    used = sum(claim.amount for claim in using)
    if not ahead and used + asked.amount <= limit.slots:
        return None
    return f"{_usage(limit, used, asked.amount)}{_by(limit, using, now)}{_behind(ahead, now)}"


def _usage(limit: model.Limit, used: int, amount: int) -> str:
    if not limit.slots:
        return f"limit {limit.name!r} is closed: it has no slots"
    rate = f" per {limit.per_seconds:g} s" if limit.per_seconds else ""
    need = f", {amount} needed" if amount > 1 else ""
    return f"limit {limit.name!r} {used}/{limit.slots}{rate}{need}"


def _by(limit: model.Limit, using: Sequence[Claim], now: float) -> str:
    if not using:
        return ""
    if limit.per_seconds:
        back_at = _clock.time_of_day((using[0].granted_at or now) + limit.per_seconds, now)
        return f", the next comes back at {back_at}"
    names = [
        f"{claim.label} since {_clock.time_of_day(claim.granted_at or now, now)}"
        for claim in using[:_NAMED]
    ]
    more = f" and {len(using) - _NAMED} more" if len(using) > _NAMED else ""
    return f", held by {', '.join(names)}{more}"


def _behind(ahead: Sequence[Claim], now: float) -> str:
    if not ahead:
        return ""
    first, *others = ahead
    since = _clock.time_of_day(first.asked_at, now)
    if not others:
        return f"; {first.label} comes first, in line since {since}"
    return (
        f"; {len(ahead)} come first: {first.label}, in line since {since}, and {len(others)} more"
    )
