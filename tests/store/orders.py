"""Runs of deployments for tests, and workers that take, begin and end them."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Sequence

import sqlalchemy as sa

from raflow import model
from raflow.model import Claim, RunOrder, RunOrigin, Stage, State, StateName, WorkerInfo
from raflow.store import Store
from raflow.store._rows import _service_tables
from tests.store import records

_claims = itertools.count()


def order(
    run: str,
    *,
    deployment: str = "nightly",
    pool: str = "default",
    priority: int = 0,
    begins_at: float | None = None,
    schedule_id: str | None = None,
    stage: Stage = Stage.WAITING,
    tags: tuple[str, ...] = (),
    max_resumes: int = 3,
    key: str = "",
    digest: bytes = b"",
) -> RunOrder:
    origin = RunOrigin(
        deployment=deployment,
        version=2,
        bundle="b1",
        pool=pool,
        priority=priority,
        begins_at=begins_at,
        schedule_id=schedule_id,
        actor="ann",
    )
    return RunOrder(
        flow_run_id=run,
        flow="etl",
        fingerprint="f1",
        name=f"name-of-{run}",
        origin=origin,
        parameters={"day": 1},
        tags=tags,
        stage=stage,
        max_resumes=max_resumes,
        key=("ann", key) if key else None,
        digest=digest,
    )


def ordered(store: Store, *runs: str | RunOrder) -> None:
    """Order runs."""
    made = store.work.order([run if isinstance(run, RunOrder) else order(run) for run in runs])
    assert all(one.is_new for one in made)


def claim(
    store: Store, worker: str = "w1", *, most: int = 10, pool: str = "default"
) -> list[Claim]:
    """Take runs for a worker."""
    token = f"claim-{next(_claims)}"
    return store.work.claim(pool, worker, most=most, seconds=30, claim=token)


def ids(claims: Sequence[Claim]) -> list[str]:
    return [one.flow_run.id for one in claims]


def record(store: Store, claim: Claim, name: StateName, *, ahead: int = 0) -> bool:
    """Record a state of a claimed run, as its driver does."""
    seq = store.recall.numbers(claim.flow_run.id).batch + ahead
    run = dataclasses.replace(claim.flow_run, state=State(name=name, at=time.time()))
    return store.apply(
        records.batch(run, flow_run_id=run.id, seq=seq, incarnation=claim.incarnation)
    )


def begun(store: Store, run: str | RunOrder) -> Claim:
    """Order a run, and have a worker begin it."""
    ordered(store, run)
    [taken] = claim(store)
    assert record(store, taken, StateName.RUNNING)
    return taken


def state_of(store: Store, run: str) -> StateName:
    return store.find_flow_run(run).state.name


def stage_of(store: Store, run: str) -> Stage | None:
    found = store.work.dispatch(run)
    return None if found is None else found.stage


def worker(worker_id: str = "w1", pool: str = "default") -> WorkerInfo:
    return WorkerInfo(
        id=worker_id, name=f"name-of-{worker_id}", pool=pool, host="here", pid=7, runners=4
    )


def limit_deployment(store: Store, name: str, concurrency: int | None) -> None:
    """Make a deployment of which so many runs may be under way."""
    table = _service_tables.deployments
    values = {
        "name": name,
        "flow": "etl",
        "version": 1,
        "paused": False,
        "pool": "default",
        "priority": 0,
        "concurrency": concurrency,
        "revision": 1,
        "created_at": 1.0,
        "updated_at": 1.0,
    }
    store._database.write(lambda c: c.execute(sa.insert(table).values(values)))


def names_of(changes: Sequence[model.StateChange]) -> list[StateName]:
    return [change.state.name for change in changes]
