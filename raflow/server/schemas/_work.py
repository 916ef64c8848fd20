"""Pools, workers, and why runs wait, as the wire has them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from pydantic import Field

from raflow import model
from raflow.server.schemas._base import In, Out, maybe_moment, moment, text
from raflow.server.schemas._runs import TaskRunOut

_INT32 = 2**31 - 1


class PoolIn(In):
    """What a pool is to be."""

    concurrency: Annotated[int, Field(ge=0, le=_INT32)] | None = None
    """How many of its runs may be under way at the same time; null: any number."""
    description: Annotated[str, Field(max_length=2000)] | None = None
    """For people; null: as it is."""


class PoolOut(Out):
    """Workers that share a line of waiting runs."""

    name: str
    concurrency: int | None
    paused: bool
    description: str
    kind: model.PoolKind
    counts: dict[model.Stage, int]
    """Runs by how far they have come."""
    waiting_since: datetime | None
    """Since when the one that waits longest could have begun."""
    workers: int
    """Those that are alive."""

    @classmethod
    def of(cls, state: model.PoolState) -> Self:
        """Return it as the wire has it."""
        return cls(
            name=text(state.pool.name),
            concurrency=state.pool.concurrency,
            paused=state.pool.paused,
            description=text(state.pool.description),
            kind=state.pool.kind,
            counts=dict(state.counts),
            waiting_since=maybe_moment(state.waiting_since),
            workers=state.workers,
        )


class WorkerOut(Out):
    """A process that takes runs of a pool."""

    id: str
    name: str
    pool: str
    host: str
    pid: int
    versions: dict[str, str]
    ray_address: str
    started_at: datetime
    seen_at: datetime
    expires_at: datetime
    """When it counts as lost without another sign of life."""
    draining: bool
    runners: int
    """How many runs it may have at the same time."""
    busy: int
    """How many it has."""

    @classmethod
    def of(cls, worker: model.WorkerInfo) -> Self:
        """Return it as the wire has it."""
        return cls(
            id=worker.id,
            name=text(worker.name),
            pool=text(worker.pool),
            host=text(worker.host),
            pid=worker.pid,
            versions={text(name): text(number) for name, number in worker.versions.items()},
            ray_address=text(worker.ray_address),
            started_at=moment(worker.started_at),
            seen_at=moment(worker.seen_at),
            expires_at=moment(worker.expires_at),
            draining=worker.draining,
            runners=worker.runners,
            busy=worker.busy,
        )


class ChangeOut(Out):
    """What would let a run go on."""

    text: str
    command: str
    """A command of raflow that does it; empty: none does."""


class WaitOut(Out):
    """Why a run does not go on."""

    code: str
    """For programs: `pool_full`, `no_worker` ..."""
    text: str
    since: datetime | None
    holders: list[str]
    """Ids of the runs that it waits for."""
    changes: list[ChangeOut]
    calls: list[str]
    """Labels of the calls of the run that wait for this; empty: the run does. The first twenty."""
    count: int
    """How many calls there are."""

    @classmethod
    def of(cls, wait: model.Wait) -> Self:
        """Return it as the wire has it."""
        return cls(
            code=wait.code,
            text=text(wait.text),
            since=maybe_moment(wait.since),
            holders=list(wait.holders),
            changes=[
                ChangeOut(text=text(one.text), command=text(one.command)) for one in wait.changes
            ],
            calls=[text(label) for label in wait.calls],
            count=wait.count,
        )


class CallNoteOut(Out):
    """Why calls completed otherwise than at their first attempt."""

    state: model.StateName
    text: str
    calls: list[str]
    """Labels; the first twenty."""
    count: int


class WhyOut(Out):
    """Why a flow run, or a part of it, does not go on."""

    summary: str
    """In one sentence: whether it waits, goes on or is over."""
    waits: list[WaitOut]
    """What it waits for, what weighs most first."""
    running: list[TaskRunOut]
    """Its calls that run, the longest first; the first five."""
    notes: list[CallNoteOut]

    @classmethod
    def of(cls, why: model.Why) -> Self:
        """Return it as the wire has it."""
        return cls(
            summary=text(why.summary),
            waits=[WaitOut.of(wait) for wait in why.waits],
            running=[TaskRunOut.of(call) for call in why.running],
            notes=[
                CallNoteOut(
                    state=note.state,
                    text=text(note.text),
                    calls=[text(label) for label in note.calls],
                    count=note.count,
                )
                for note in why.notes
            ],
        )
