"""Why a run of a deployment does not begin, or does not go on, in words for people."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from raflow.model import Change, PoolState, Stage, Wait, WaitSnapshot, Work


def waits(seen: WaitSnapshot) -> tuple[Wait, ...]:
    """Return what keeps a run from beginning, what weighs most first; nothing if it goes on."""
    place = seen.dispatch
    if place is None:
        return ()
    match place.stage:
        case Stage.HELD:
            others = _runs(len(seen.schedule_holders), "other run")
            text = f"it waits for {others} of its schedule"
            return (Wait(code="held_overlap", text=text, holders=seen.schedule_holders),)
        case Stage.CLAIMED:
            worker = next((w.name for w in seen.workers if w.id == place.worker_id), "that is gone")
            return (Wait(code="claimed", text=f"worker {worker} has it, and loads its code"),)
        case Stage.WAITING:
            return tuple(_waiting(seen))
        case _:
            return ()


def _waiting(seen: WaitSnapshot) -> Iterator[Wait]:
    place, pool = seen.dispatch, seen.pool
    assert place is not None
    assert pool is not None
    if place.refusals and place.message:
        often = "once" if place.refusals == 1 else f"{place.refusals} times"
        yield Wait(code="given_back", text=f"it was given back {often}: {place.message}")
    if place.begins_at > seen.at:
        again = "is tried again" if place.refusals else "begins"
        at = f"{datetime.fromtimestamp(place.begins_at).astimezone():%Y-%m-%d %H:%M:%S}"
        yield Wait(code="not_due", text=f"it {again} at {at}")
        return
    if place.kind is not Work.END:
        yield from _no_room(seen, pool, place.deployment)
    yield from _no_hands(seen, pool)


def _no_room(seen: WaitSnapshot, pool: PoolState, deployment: str) -> Iterator[Wait]:
    """Return what does not let the run begin, whoever were there to take it."""
    place, name = seen.dispatch, pool.pool.name
    if seen.deployment_paused and place is not None and place.kind is Work.RUN:
        goes_on = Change(text="let it go on", command=f"raflow deployments resume {deployment}")
        text = f"deployment {deployment!r} is paused"
        yield Wait(code="deployment_paused", text=text, changes=(goes_on,))
    room, taken = seen.concurrency, seen.deployment_under_way
    if room is not None and taken >= room:
        text = f"deployment {deployment!r} has {_runs(taken)} under way, and may have {room}"
        yield Wait(code="deployment_full", text=text, holders=seen.deployment_holders)
    room = pool.pool.concurrency
    taken = sum(pool.counts.get(stage, 0) for stage in (Stage.CLAIMED, Stage.RUNNING))
    if room is not None and taken >= room:
        text = f"pool {name!r} has {_runs(taken)} under way, and may have {room}"
        more = Change(text="let it have more", command=f"raflow pools set {name} --concurrency N")
        yield Wait(code="pool_full", text=text, holders=seen.pool_holders, changes=(more,))


def _no_hands(seen: WaitSnapshot, pool: PoolState) -> Iterator[Wait]:
    """Return why no worker takes the run."""
    name = pool.pool.name
    if pool.pool.paused:
        goes_on = Change(text="let it go on", command=f"raflow pools resume {name}")
        yield Wait(code="pool_paused", text=f"pool {name!r} is paused", changes=(goes_on,))
    takers = [worker for worker in seen.workers if not worker.draining]
    if not takers:
        start = Change(text="start one", command=f"raflow worker --pool {name}")
        yield Wait(code="no_worker", text=f"pool {name!r} has no worker", changes=(start,))
        return
    busy, runners = sum(w.busy for w in takers), sum(w.runners for w in takers)
    if busy >= runners:
        text = f"the workers of pool {name!r} are busy with {_runs(busy)}, as many as they may have"
        ahead = f", and {_runs(seen.ahead)} come before it" if seen.ahead else ""
        yield Wait(code="workers_busy", text=f"{text}{ahead}", holders=seen.pool_holders)


def _runs(number: int, word: str = "run") -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
