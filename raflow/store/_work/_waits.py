"""What tells why a run does not go on, all read in one transaction."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from raflow import model
from raflow.store._database import _clock
from raflow.store._reading import _queries
from raflow.store._rows import _service_tables, _tables
from raflow.store._steering import _leases, _requests
from raflow.store._work import _places, _workers

_HOLDERS: Final = 20
"""So many runs are named that others wait for."""

_runs = _tables.flow_runs
_table = _service_tables.dispatches
_deployments = _service_tables.deployments


def snapshot(connection: sa.Connection, flow_run_id: str) -> model.WaitSnapshot:
    """Return what there is to know; see `Dispatches.snapshot`."""
    now = _clock.now(connection)
    run = _queries.flow_run(connection, flow_run_id)
    mine = _queries.of(_table, flow_run_id)
    row = connection.execute(sa.select(_table).where(mine)).first()
    common: dict[str, Any] = {
        "at": now,
        "flow_run": run,
        "lease": _leases.read_lease(connection, flow_run_id),
        "requests": _requests.unanswered(connection, flow_run_id),
        "questions": tuple(_requests.questions(connection, flow_run_id=flow_run_id)),
    }
    if row is None:
        return model.WaitSnapshot(dispatch=None, **common)
    [place] = _places.places(connection, mine, 1)
    under_way = _table.c.stage.in_((model.Stage.CLAIMED.value, model.Stage.RUNNING.value))
    of_pool = _table.c.pool == row.pool
    of_deployment = _table.c.deployment == row.deployment
    of_schedule = sa.and_(
        # It may have none.
        _table.c.schedule_id == sa.literal(row.schedule_id, sa.Text()),
        _table.c.stage != model.Stage.HELD.value,
    )
    said = sa.select(_deployments.c.concurrency, _deployments.c.paused)
    said = said.where(_deployments.c.name == row.deployment)
    concurrency, paused = connection.execute(said).first() or (None, False)
    active = sa.select(sa.func.count()).select_from(_table).where(of_deployment, under_way)
    workers = _workers.workers(connection, row.pool)
    return model.WaitSnapshot(
        dispatch=place,
        pool=_workers.pool_states(connection, row.pool)[0],
        workers=tuple(worker for worker in workers if worker.expires_at > now),
        pool_holders=_ids(connection, sa.and_(of_pool, under_way)),
        ahead=_ahead(connection, row, now),
        concurrency=concurrency,
        deployment_paused=paused,
        deployment_under_way=connection.execute(active).scalar_one(),
        deployment_holders=_ids(connection, sa.and_(of_deployment, under_way)),
        schedule_holders=_ids(connection, sa.and_(of_schedule, ~mine)),
        **common,
    )


def _ids(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> tuple[str, ...]:
    """Return the runs that others wait for, those that were due first first."""
    query = sa.select(_runs.c.id).join_from(_table, _runs).where(condition)
    query = query.order_by(_table.c.begins_at, _table.c.flow_run).limit(_HOLDERS)
    return tuple(connection.execute(query).scalars())


def _ahead(connection: sa.Connection, row: sa.Row[Any], now: float) -> int:
    order = sa.tuple_(_table.c.rank, _table.c.begins_at, _table.c.flow_run)
    query = sa.select(sa.func.count()).select_from(_table)
    query = query.where(_table.c.pool == row.pool, _table.c.stage == model.Stage.WAITING.value)
    query = query.where(_table.c.begins_at <= now)
    before = order < (row.rank, row.begins_at, row.flow_run)
    return connection.execute(query.where(before)).scalar_one()
