"""How a backfill goes on: its runs are settled as they end, and the next ones are ordered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from raflow import errors, model
from raflow._util import new_id
from raflow.model import BackfillOutcome, BackfillState, Reprocess, StateName, StateType
from raflow.model.schedule import fill_slot
from raflow.store import _feed
from raflow.store._database import _clock
from raflow.store._rows import _service_tables, _tables, _values
from raflow.store._schedules import _due_slots
from raflow.store._work import _orders

_AT_ONCE: Final = 100
"""So many slots of a backfill are dealt with in one transaction."""
_FINAL: Final = [name.value for name in StateName if name.type.is_final]

_table = _service_tables.backfills
_parts = _service_tables.backfill_slots
_schedules = _service_tables.schedules
_deployments = _service_tables.deployments
_versions = _service_tables.deployment_versions
_slots = _service_tables.slots
_runs = _tables.flow_runs


class Taken(NamedTuple):
    """What was done for backfills."""

    runs: tuple[str, ...] = ()
    """Ids of the runs that were ordered."""
    pools: frozenset[str] = frozenset()
    """Where these wait."""
    more: bool = False
    """Whether there is more to do at once."""


def take(connection: sa.Connection) -> Taken:
    """Order the next runs of backfills; see `Backfills.take`."""
    query = sa.select(_table).where(_table.c.ended_at.is_(None))
    query = query.order_by(_table.c.id).with_for_update(skip_locked=True)
    orders: list[model.RunOrder] = []
    more = False
    for row in connection.execute(query).all():
        settle(connection, row)
        if row.state != BackfillState.RUNNING:
            _end_cancelled(connection, row)
            continue
        found, looked = _next(connection, row)
        # At once: the next backfill may be of the same slots.
        _orders.order(connection, found)
        orders += found
        more = more or looked == _AT_ONCE
    return Taken(
        runs=tuple(order.flow_run_id for order in orders),
        pools=frozenset(order.origin.pool for order in orders),
        more=more,
    )


def settle(connection: sa.Connection, row: sa.Row[Any]) -> None:
    """Note which runs of a backfill are over."""
    query = sa.select(_parts.c.instant, _runs.c.state)
    query = query.join_from(_parts, _runs, _runs.c.id == _parts.c.flow_run_id)
    mine = (_parts.c.backfill_id == row.id, _parts.c.outcome == BackfillOutcome.RUNNING.value)
    ended: defaultdict[BackfillOutcome, list[float]] = defaultdict(list)
    for instant, state in connection.execute(query.where(*mine, _runs.c.state.in_(_FINAL))):
        completed = StateName(state).type is StateType.COMPLETED
        ended[BackfillOutcome.COMPLETED if completed else BackfillOutcome.FAILED].append(instant)
    for outcome, instants in ended.items():
        _become(connection, row.id, instants, outcome)


def _end_cancelled(connection: sa.Connection, row: sa.Row[Any]) -> None:
    """Note the end of a backfill that was cancelled, once all its runs are over."""
    running = counts(connection, [row.id]).get(row.id, {}).get(BackfillOutcome.RUNNING)
    if row.state == BackfillState.CANCELLED and not running:
        update = sa.update(_table).where(_table.c.id == row.id)
        connection.execute(update.values(ended_at=_clock.now(connection)))


def _next(connection: sa.Connection, row: sa.Row[Any]) -> tuple[list[model.RunOrder], int]:
    """Return what a backfill orders now, and how many slots were looked at for it."""
    done = counts(connection, [row.id]).get(row.id, {})
    free = row.concurrency - done.get(BackfillOutcome.RUNNING, 0)
    if not done.get(BackfillOutcome.WAITING):
        if not done.get(BackfillOutcome.RUNNING):
            enter(connection, row.id, BackfillState.COMPLETED, actor="")
        return [], 0
    of = _deployment(connection, row)
    if of is None:
        _become_all(connection, row.id)
        enter(connection, row.id, BackfillState.CANCELLED, actor="")
        return [], 0
    if free <= 0 or of.paused:
        return [], 0
    orders: list[model.RunOrder] = []
    looked = 0
    for part in _waiting(connection, row):
        looked += 1
        run = new_id()
        if not _claim(connection, row, of, part, run):
            _become(connection, row.id, [part.instant], BackfillOutcome.KEPT)
            continue
        _become(connection, row.id, [part.instant], BackfillOutcome.RUNNING, run)
        orders.append(_order(row, of, part.instant, run))
        if len(orders) == free:
            break
    return orders, looked


def _deployment(connection: sa.Connection, row: sa.Row[Any]) -> sa.Row[Any] | None:
    """Return the deployment of a backfill with its schedule, locked; None: either is gone."""
    query: sa.Select[Any] = sa.select(
        _deployments.c.name,
        _deployments.c.paused,
        _deployments.c.version,
        _deployments.c.pool,
        _deployments.c.priority,
        _versions.c.flow,
        _versions.c.bundle,
        _versions.c.fingerprint,
        _versions.c.spec,
    )
    version = sa.and_(
        _versions.c.deployment == _deployments.c.name,
        _versions.c.number == _deployments.c.version,
    )
    query = query.join_from(_deployments, _versions, version)
    query = query.where(_deployments.c.name == row.deployment, _deployments.c.deleted_at.is_(None))
    if row.schedule_id is None:
        empty = sa.literal("{}").label("parameters")
        return connection.execute(
            query.add_columns(empty, sa.literal("UTC").label("timezone"))
        ).first()
    own = (_schedules.c.parameters, _schedules.c.timezone, _schedules.c.generation)
    query = query.add_columns(*own).join(_schedules, _schedules.c.deployment == _deployments.c.name)
    query = query.where(_schedules.c.id == row.schedule_id)
    # Nobody decides about its slots meanwhile: loops pass over what is locked.
    return connection.execute(query.with_for_update(of=_schedules)).first()


def _waiting(connection: sa.Connection, row: sa.Row[Any]) -> Sequence[sa.Row[Any]]:
    order = _parts.c.instant.desc() if row.backwards else _parts.c.instant
    query: sa.Select[Any] = sa.select(_parts.c.instant, _parts.c.attempt)
    waiting = _parts.c.outcome == BackfillOutcome.WAITING.value
    query = query.where(_parts.c.backfill_id == row.id, waiting)
    return connection.execute(query.order_by(order).limit(_AT_ONCE)).all()


def _claim(
    connection: sa.Connection, row: sa.Row[Any], of: sa.Row[Any], part: sa.Row[Any], run: str
) -> bool:
    """Make a run that of a slot; return False, having changed nothing, if it has one already."""
    if row.schedule_id is None:
        return True
    there = (_slots.c.schedule_id == row.schedule_id, _slots.c.instant == part.instant)
    query = sa.select(_slots.c.generation, _runs.c.state)
    query = query.join_from(_slots, _runs, _runs.c.id == _slots.c.flow_run_id, isouter=True)
    query = query.where(*there).order_by(_slots.c.flow_run_id.is_(None), _slots.c.decided_at.desc())
    known = connection.execute(query).first()
    reprocess = Reprocess(row.reprocess)
    if part.attempt and reprocess is Reprocess.NONE:
        reprocess = Reprocess.FAILED
    if known is not None and not runs_again(known.state, reprocess):
        return False
    values = {
        "action": model.SlotAction.BACKFILLED.value,
        "flow_run_id": run,
        "decided_at": _clock.now(connection),
    }
    if known is None:
        new = {"schedule_id": row.schedule_id, "generation": of.generation, "reason": ""}
        connection.execute(sa.insert(_slots).values(instant=part.instant, **new, **values))
    else:
        update = sa.update(_slots).where(*there, _slots.c.generation == known.generation)
        connection.execute(update.values(values))
    return True


def runs_again(state: str | None, reprocess: Reprocess) -> bool:
    """Whether a slot runs whose last run is in a state; None: it has no run."""
    if state is None:
        return True
    if not StateName(state).type.is_final or reprocess is Reprocess.NONE:
        return False
    return reprocess is Reprocess.COMPLETED or StateName(state).type is not StateType.COMPLETED


def _order(row: sa.Row[Any], of: sa.Row[Any], instant: float, run: str) -> model.RunOrder:
    made = _due_slots.template(of.spec)
    parameters = {
        **made.parameters,
        **_values.from_json(of.parameters),
        **_values.from_json(row.parameters),
    }
    slot = datetime.fromtimestamp(instant, UTC)
    return model.RunOrder(
        flow_run_id=run,
        flow=of.flow,
        fingerprint=of.fingerprint,
        name=f"{of.flow}-{run[-6:]}",
        # Not of the schedule: it is no reason for a slot of that to wait.
        origin=model.RunOrigin(
            deployment=of.name,
            version=of.version,
            bundle=of.bundle,
            pool=of.pool,
            priority=of.priority,
            slot=instant,
            backfill_id=row.id,
            actor=row.actor,
        ),
        parameters=fill_slot(parameters, slot, of.timezone),
        trigger=model.Trigger.BACKFILL,
        tags=made.tags,
        max_resumes=made.max_resumes,
    )


def _become(
    connection: sa.Connection,
    backfill_id: str,
    instants: Sequence[float],
    outcome: BackfillOutcome,
    run: str | None = None,
) -> None:
    update = sa.update(_parts).where(
        _parts.c.backfill_id == backfill_id, _parts.c.instant.in_(instants)
    )
    more = {} if run is None else {"flow_run_id": run}
    connection.execute(update.values(outcome=outcome.value, **more))


def _become_all(connection: sa.Connection, backfill_id: str) -> None:
    waiting = _parts.c.outcome == BackfillOutcome.WAITING.value
    update = sa.update(_parts).where(_parts.c.backfill_id == backfill_id, waiting)
    connection.execute(update.values(outcome=BackfillOutcome.CANCELLED.value))


# --- States ---------------------------------------------------------------------------------------


def locked(connection: sa.Connection, backfill_id: str) -> sa.Row[Any]:
    """Return the row of a backfill, which nobody else changes until the transaction ends.

    Raises:
        NotFoundError: There is no such backfill.
    """
    query = sa.select(_table).where(_table.c.id == backfill_id).with_for_update()
    row = connection.execute(query).first()
    if row is None:
        raise errors.NotFoundError.of("backfill", backfill_id, ())
    return row


def enter(connection: sa.Connection, backfill_id: str, state: BackfillState, *, actor: str) -> None:
    """Have a backfill be in another state, and tell."""
    update = sa.update(_table).where(_table.c.id == backfill_id)
    ended_at = _clock.now(connection) if state is BackfillState.COMPLETED else None
    connection.execute(update.values(state=state.value, ended_at=ended_at))
    _feed.append(connection, [told(connection, backfill_id, actor=actor)])


def told(connection: sa.Connection, backfill_id: str, *, actor: str) -> model.Event:
    """Return the event that a backfill is in its state."""
    row = connection.execute(sa.select(_table).where(_table.c.id == backfill_id)).one()
    found = counts(connection, [backfill_id]).get(backfill_id, {})
    return model.Event(
        kind=model.EventKind.BACKFILL_STATE,
        object=f"backfill:{backfill_id}",
        at=0.0,
        deployment=row.deployment,
        actor=actor,
        payload={
            "state": row.state,
            "counts": {outcome.value: number for outcome, number in found.items()},
        },
    )


def counts(connection: sa.Connection, ids: Sequence[str]) -> dict[str, dict[BackfillOutcome, int]]:
    """Return how many slots of backfills became what."""
    query = sa.select(_parts.c.backfill_id, _parts.c.outcome, sa.func.count())
    query = query.where(_parts.c.backfill_id.in_(ids))
    query = query.group_by(_parts.c.backfill_id, _parts.c.outcome)
    found: defaultdict[str, dict[BackfillOutcome, int]] = defaultdict(dict)
    for backfill_id, outcome, number in connection.execute(query):
        found[backfill_id][BackfillOutcome(outcome)] = number
    return dict(found)
