"""Limits and cached values, as the wire has them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from pydantic import Field

from raflow import model
from raflow.server.schemas._base import In, Out, maybe_moment, moment
from raflow.server.schemas._runs import ResultOut, show_key

_INT32 = 2**31 - 1


class SlotsOut(Out):
    """Slots of a limit that somebody holds, or waits for."""

    holder: str
    """Empty: nobody's any more; they count for their time."""
    label: str
    flow_run_id: str
    amount: int
    priority: int
    since: datetime
    expires_at: datetime

    @classmethod
    def of(cls, lease: model.SlotLease) -> Self:
        """Return it as the wire has it."""
        return cls(
            holder=lease.holder,
            label=lease.label,
            flow_run_id=lease.flow_run_id,
            amount=lease.amount,
            priority=lease.priority,
            since=moment(lease.since),
            expires_at=moment(lease.expires_at),
        )


class LimitOut(Out):
    """A limit, who holds its slots, and who waits."""

    name: str
    slots: int
    per_seconds: float | None
    """Null: slots are given back; otherwise a rate."""
    taken: int
    holders: list[SlotsOut]
    waiters: list[SlotsOut]

    @classmethod
    def of(cls, state: model.LimitState) -> Self:
        """Return it as the wire has it."""
        return cls(
            name=state.limit.name,
            slots=state.limit.slots,
            per_seconds=state.limit.per_seconds or None,
            taken=sum(lease.amount for lease in state.holders),
            holders=[SlotsOut.of(lease) for lease in state.holders],
            waiters=[SlotsOut.of(lease) for lease in state.waiters],
        )


class LimitIn(In):
    """How much of something all runs may use together."""

    slots: Annotated[int, Field(ge=0, le=_INT32)]
    per_seconds: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] = 0.0


class CacheEntryOut(Out):
    """A value that was computed before."""

    key: str
    task: str
    flow_run_id: str
    task_run: str
    created_at: datetime
    expires_at: datetime | None
    result: ResultOut | None

    @classmethod
    def of(cls, entry: model.CacheEntry) -> Self:
        """Return it as the wire has it."""
        return cls(
            key=entry.key,
            task=entry.task,
            flow_run_id=entry.flow_run_id,
            task_run=show_key(entry.run),
            created_at=moment(entry.created_at),
            expires_at=maybe_moment(entry.expires_at),
            result=ResultOut.of(entry.result),
        )


class RemovedOut(Out):
    """How many things were removed."""

    removed: int
