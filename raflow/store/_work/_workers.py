"""Work pools, and the workers that take runs of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from raflow import errors, model
from raflow.store._database import _clock
from raflow.store._rows import _service_tables, _tables, _upserts, _values
from raflow.store._work import _orders

_pools = _service_tables.pools
_workers = _service_tables.workers
_dispatches = _service_tables.dispatches
_leases = _tables.run_leases


# --- Pools ----------------------------------------------------------------------------------------


def set_pool(connection: sa.Connection, pool: model.Pool) -> None:
    """Make a pool, or change it."""
    if not pool.name or (pool.concurrency is not None and pool.concurrency < 0):
        raise errors.ConfigError(
            f"Work pool {pool.name!r} with a concurrency of {pool.concurrency} cannot be: it needs "
            "a name, and 0 runs at the same time or more."
        )
    values = {
        "name": _values.text(pool.name),
        "concurrency": pool.concurrency,
        "paused": pool.paused,
        "description": _values.text(pool.description),
        "kind": pool.kind.value,
    }
    insert = _upserts.insert_into(_pools, connection.dialect.name)
    insert = insert.values(created_at=_clock.now(connection), **values)
    connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_=values))


def remove_pool(connection: sa.Connection, name: str) -> None:
    """Remove a pool that has no runs."""
    query = sa.select(_pools.c.name).where(_pools.c.name == name).with_for_update()
    if connection.execute(query).first() is None:
        raise _unknown_pool(connection, name)
    runs = sa.select(sa.func.count()).select_from(_dispatches).where(_dispatches.c.pool == name)
    if left := connection.execute(runs).scalar_one():
        raise errors.ConfigError(
            f"Work pool {name!r} has {left} runs that are not over. Cancel them, or let them end."
        )
    connection.execute(sa.delete(_pools).where(_pools.c.name == name))


def pool_states(connection: sa.Connection, name: str | None) -> list[model.PoolState]:
    """Return pools and what goes on in them, sorted by name."""
    this = sa.true() if name is None else _pools.c.name == name
    rows = connection.execute(sa.select(_pools).where(this).order_by(_pools.c.name)).all()
    if name is not None and not rows:
        raise _unknown_pool(connection, name)
    counts: dict[str, dict[model.Stage, int]] = defaultdict(dict)
    since: dict[str, float] = {}
    table = _dispatches.c
    stages = sa.select(table.pool, table.stage, sa.func.count(), sa.func.min(table.begins_at))
    for pool, stage, count, first in connection.execute(stages.group_by(table.pool, table.stage)):
        counts[pool][model.Stage(stage)] = count
        if stage == model.Stage.WAITING.value:
            since[pool] = first
    now = _clock.now(connection)
    alive = sa.select(_workers.c.pool, sa.func.count()).where(_workers.c.expires_at > now)
    living: dict[str, int] = {
        row[0]: row[1] for row in connection.execute(alive.group_by(_workers.c.pool))
    }
    return [
        model.PoolState(
            pool=_read_pool(row),
            counts=counts.get(row.name, {}),
            waiting_since=since[row.name] if since.get(row.name, now) < now else None,
            workers=living.get(row.name, 0),
        )
        for row in rows
    ]


def _read_pool(row: sa.Row[Any]) -> model.Pool:
    return model.Pool(
        name=row.name,
        concurrency=row.concurrency,
        paused=row.paused,
        description=row.description,
        kind=model.PoolKind(row.kind),
    )


def _unknown_pool(connection: sa.Connection, name: str) -> errors.NotFoundError:
    known = connection.execute(sa.select(_pools.c.name)).scalars()
    return errors.NotFoundError.of("work pool", name, known)


# --- Workers --------------------------------------------------------------------------------------


def seen(
    connection: sa.Connection, info: model.WorkerInfo, *, seconds: float, claimed: Sequence[str]
) -> model.WorkerInfo:
    """Note that a worker is alive; see `Dispatches.worker_seen`."""
    now = _clock.now(connection)
    _orders.ensure_pools(connection, [info.pool], now)
    values = {
        "id": info.id,
        "name": _values.text(info.name),
        "pool": _values.text(info.pool),
        "host": _values.text(info.host),
        "pid": info.pid,
        "versions": _values.to_json(info.versions),
        "ray_address": _values.text(info.ray_address),
        "started_at": _values.seconds(info.started_at),
        "seen_at": now,
        "expires_at": now + seconds,
        "draining": info.draining,
        "runners": info.runners,
        "busy": info.busy,
        "token_id": info.token_id,
    }
    insert = _upserts.insert_into(_workers, connection.dialect.name).values(values)
    # That it shall end was perhaps somebody else's wish: it knows by the answer.
    changed = values | {"draining": sa.or_(_workers.c.draining, insert.excluded["draining"])}
    insert = insert.on_conflict_do_update(index_elements=["id"], set_=changed)
    row = connection.execute(insert.returning(*_workers.c)).one()
    if claimed:
        _renew(connection, info.id, claimed, now, seconds)
    return _read_worker(row)


def _renew(
    connection: sa.Connection, worker_id: str, claimed: Sequence[str], now: float, seconds: float
) -> None:
    """Renew the leases of runs that a worker has not begun yet."""
    runs = _tables.flow_runs
    mine = sa.select(_dispatches.c.flow_run).join_from(_dispatches, runs)
    mine = mine.where(_dispatches.c.worker_id == worker_id, runs.c.id.in_(claimed))
    mine = mine.where(_dispatches.c.stage == model.Stage.CLAIMED.value)
    update = sa.update(_leases).where(_leases.c.flow_run.in_(mine))
    connection.execute(update.values(renewed_at=now, expires_at=now + seconds))


def workers(connection: sa.Connection, pool: str | None) -> list[model.WorkerInfo]:
    """Return workers, whether they are alive or not, by pool and name."""
    query = sa.select(_workers).order_by(_workers.c.pool, _workers.c.name, _workers.c.id)
    if pool is not None:
        query = query.where(_workers.c.pool == pool)
    return [_read_worker(row) for row in connection.execute(query)]


def lost(connection: sa.Connection) -> list[model.WorkerInfo]:
    """Return workers that have not been seen in time, those that fell silent first first."""
    over = _workers.c.expires_at <= _clock.now(connection)
    query = sa.select(_workers).where(over).order_by(_workers.c.expires_at)
    return [_read_worker(row) for row in connection.execute(query)]


def drain(connection: sa.Connection, worker_id: str) -> None:
    """Have a worker take no more runs."""
    update = sa.update(_workers).where(_workers.c.id == worker_id).values(draining=True)
    if not connection.execute(update).rowcount:
        known = connection.execute(sa.select(_workers.c.id)).scalars()
        raise errors.NotFoundError.of("worker", worker_id, known)


def _read_worker(row: sa.Row[Any]) -> model.WorkerInfo:
    return model.WorkerInfo(
        id=row.id,
        name=row.name,
        pool=row.pool,
        host=row.host,
        pid=row.pid,
        versions=_values.from_json(row.versions),
        ray_address=row.ray_address,
        started_at=row.started_at,
        seen_at=row.seen_at,
        expires_at=row.expires_at,
        draining=row.draining,
        runners=row.runners,
        busy=row.busy,
        token_id=row.token_id,
    )
