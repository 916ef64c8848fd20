"""Where runs of deployments stand, and looking after those that nobody looks after."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from raflow import model
from raflow.store._database import _clock
from raflow.store._record import _moves
from raflow.store._rows import _service_tables, _tables, _upserts
from raflow.store._steering import _requests
from raflow.store._work import _returns

_runs = _tables.flow_runs
_leases = _tables.run_leases
_table = _service_tables.dispatches
_workers = _service_tables.workers
_installation = _service_tables.installation
_LOOKED_AFTER: Final = "looked_after_at"


def places(
    connection: sa.Connection, condition: sa.ColumnElement[bool], limit: int
) -> list[model.Dispatch]:
    """Return where runs stand, those that were due first first."""
    query = sa.select(_table, _runs.c.id.label("id"), _runs.c.incarnation.label("incarnation"))
    query = query.join_from(_table, _runs).where(condition)
    query = query.order_by(_table.c.begins_at, _table.c.flow_run).limit(limit)
    return [_read(row) for row in connection.execute(query)]


def _read(row: sa.Row[Any]) -> model.Dispatch:
    return model.Dispatch(
        flow_run_id=row.id,
        pool=row.pool,
        deployment=row.deployment,
        stage=model.Stage(row.stage),
        kind=model.Work(row.kind),
        priority=-row.rank,
        begins_at=row.begins_at,
        ordered_at=row.ordered_at,
        schedule_id=row.schedule_id,
        backfill_id=row.backfill_id,
        worker_id=row.worker_id,
        incarnation=row.incarnation,
        refusals=row.refusals,
        resumes=row.resumes,
        max_resumes=row.max_resumes,
        message=row.message,
    )


def dead(connection: sa.Connection, limit: int) -> list[model.Dispatch]:
    """Return runs whose lease is over; see `Dispatches.dead`."""
    now = _clock.now(connection)
    alive = sa.select(_leases.c.flow_run).where(_leases.c.flow_run == _table.c.flow_run)
    alive = alive.where(_leases.c.expires_at > now)
    stages = (model.Stage.CLAIMED.value, model.Stage.RUNNING.value)
    return places(connection, sa.and_(_table.c.stage.in_(stages), ~alive.exists()), limit)


# --- Looking after them ---------------------------------------------------------------------------


def gone(connection: sa.Connection, worker_id: str) -> int:
    """Forget a worker; see `Dispatches.worker_gone`."""
    claimed = sa.select(_runs.c.id, _runs.c.incarnation).join_from(_table, _runs)
    claimed = claimed.where(_table.c.worker_id == worker_id)
    claimed = claimed.where(_table.c.stage == model.Stage.CLAIMED.value).order_by(_runs.c.number)
    message = "its worker ended before it began"
    back = [
        _returns.give_back(connection, run, incarnation, message=message, permanent=False)
        for run, incarnation in connection.execute(claimed).all()
    ]
    connection.execute(sa.delete(_workers).where(_workers.c.id == worker_id))
    return sum(back)


def mark_late(connection: sa.Connection, seconds: float, limit: int) -> int:
    """Note which runs are late; see `Dispatches.mark_late`."""
    now = _clock.now(connection)
    due = sa.select(_table.c.flow_run).where(
        _table.c.stage == model.Stage.WAITING.value,
        _table.c.late.is_(False),
        _table.c.begins_at <= now - seconds,
    )
    due = due.order_by(_table.c.begins_at).limit(limit)
    waiting = sa.select(_runs.c.number).where(
        _runs.c.number.in_(connection.execute(due).scalars().all())
    )
    locked = waiting.order_by(_runs.c.number).with_for_update(key_share=True, skip_locked=True)
    numbers = connection.execute(locked).scalars().all()
    still = sa.and_(_table.c.flow_run.in_(numbers), _table.c.stage == model.Stage.WAITING.value)
    marked = connection.execute(
        sa.update(_table).where(still).values(late=True).returning(_table.c.flow_run)
    )
    late = set(marked.scalars())
    scheduled = sa.select(_runs.c.number).where(
        _runs.c.number.in_(late), _runs.c.state == model.StateName.SCHEDULED.value
    )
    new = connection.execute(scheduled).scalars().all()
    state = model.State(
        name=model.StateName.LATE, at=now, reason="no worker of its pool has taken it"
    )
    _moves.enter(connection, new, state)
    return len(new)


def release_held(connection: sa.Connection) -> int:
    """Let held runs go; see `Dispatches.release_held`."""
    active = _table.alias("active")
    others = sa.select(active.c.flow_run).where(
        active.c.schedule_id == _table.c.schedule_id, active.c.stage != model.Stage.HELD.value
    )
    query = sa.select(_table.c.schedule_id).distinct()
    query = query.where(_table.c.stage == model.Stage.HELD.value, ~others.exists())
    schedules = connection.execute(query.order_by(_table.c.schedule_id)).scalars().all()
    return sum(_moves.release(connection, schedule) for schedule in schedules if schedule)


def due_questions(connection: sa.Connection, limit: int) -> list[model.InputRequest]:
    """Return questions whose time is over; see `Dispatches.due_questions`."""
    now = _clock.now(connection)
    asked = _tables.input_requests
    parked = sa.select(_table.c.flow_run).where(_table.c.stage == model.Stage.PARKED.value)
    due = sa.and_(asked.c.flow_run.in_(parked), asked.c.expires_at <= now)
    return _requests.questions(connection, due, limit=limit)


def forgive(connection: sa.Connection, silence: float) -> bool:
    """Note that somebody looks after runs; see `Dispatches.forgive`."""
    now = _clock.now(connection)
    # Made first, so that there is a row to lock: of several who find a silence one makes up for it.
    _upserts.insert_new(connection, _installation, [(_LOOKED_AFTER, repr(now))])
    mine = _installation.c.key == _LOOKED_AFTER
    query = sa.select(_installation.c.value).where(mine).with_for_update()
    seen = connection.execute(query).scalar_one()
    now = _clock.now(connection)
    connection.execute(sa.update(_installation).where(mine).values(value=repr(now)))
    gap = now - float(seen)
    if gap <= silence:
        return False
    given = _leases.c.flow_run.in_(sa.select(_table.c.flow_run))
    # Who was able to renew in the middle of it needs nothing.
    for table, renewed_at, whose in (
        (_leases, _leases.c.renewed_at, given),
        (_workers, _workers.c.seen_at, sa.true()),
    ):
        longer = sa.update(table).where(whose, renewed_at <= float(seen) + silence)
        connection.execute(longer.values(expires_at=table.c.expires_at + gap))
    return True
