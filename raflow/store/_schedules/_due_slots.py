"""Deciding about slots that have come: one transaction locks schedules, decides, orders runs."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from raflow import errors, model
from raflow._util import crash_point, new_id
from raflow.model import schedule as rules
from raflow.model.schedule import Action
from raflow.store import _feed
from raflow.store._database import _clock
from raflow.store._record import _moves
from raflow.store._rows import _service_tables, _tables, _upserts, _values
from raflow.store._schedules import _schedule_events, _schedule_rows
from raflow.store._steering import _requests
from raflow.store._work import _orders, _returns

MOST_ORDERS: Final = 2000
"""So many runs are ordered in one transaction; what is left comes with the next."""

_table = _service_tables.schedules
_deployments = _service_tables.deployments
_versions = _service_tables.deployment_versions
_dispatches = _service_tables.dispatches
_runs = _tables.flow_runs

_DONE: Final = {
    Action.START: model.SlotAction.STARTED,
    Action.WAIT: model.SlotAction.WAITING,
    Action.REPLACE: model.SlotAction.REPLACED,
    Action.SKIP: model.SlotAction.SKIPPED,
}
_FORWARD: Final = "UPDATE schedules SET cursor = ?, next_at = ? WHERE id = ?"
_FORWARD_ALL: Final = (
    "UPDATE schedules SET cursor = moved.cursor, next_at = moved.next_at FROM unnest("
    "%(ids)s::text[], %(cursors)s::double precision[], %(nexts)s::double precision[]"
    ") AS moved(id, cursor, next_at) WHERE schedules.id = moved.id"
)
_BREAK: Final = sa.text(
    "UPDATE schedules SET active = :active, next_at = NULL, error = :error WHERE id = :id"
)
_PAUSED: Final = "the deployment is paused"


class Decided(NamedTuple):
    """What was done about slots that had come."""

    schedules: int = 0
    """How many schedules were dealt with."""
    runs: tuple[str, ...] = ()
    """Ids of the runs that were ordered."""
    pools: frozenset[str] = frozenset()
    """Where these wait."""
    asked: tuple[str, ...] = ()
    """Ids of runs that were asked to cancel themselves, because a later one replaces them."""
    broken: tuple[str, ...] = ()
    """Ids of schedules whose slots cannot be told; they are paused."""


class Template(NamedTuple):
    """What a version of a deployment gives its runs."""

    parameters: Mapping[str, Any]
    tags: tuple[str, ...]
    max_resumes: int


class _Plan(NamedTuple):
    """What is to be done about a schedule."""

    row: sa.Row[Any]
    schedule: rules.Schedule
    due: rules.Due


def decide(connection: sa.Connection, limit: int) -> Decided:
    """Decide about the slots that have come; see `Schedules.decide_due`."""
    now = _clock.now(connection)
    rows = _lock_due(connection, now, limit)
    if not rows:
        return Decided()
    crash_point("scheduler.after_claim")
    counts = _counts(connection, [row.id for row in rows])
    plans, broken = [], []
    left = MOST_ORDERS
    for row in rows:
        if left <= 0:
            break
        try:
            plan = _plan(row, now, *counts.get(row.id, (0, 0)), most=left)
        # Whatever a rule or its zone may raise: the other schedules go on.
        except Exception as error:
            broken.append((row, _explain(error)))
        else:
            plans.append(plan)
            left -= sum(one.action is not Action.SKIP for one in plan.due.plans)
    orders, asked = _carry_out(connection, plans, now)
    _forward(connection, plans, broken)
    return Decided(
        schedules=len(plans) + len(broken),
        runs=tuple(order.flow_run_id for order in orders),
        pools=frozenset(order.origin.pool for order in orders),
        asked=tuple(asked),
        broken=tuple(row.id for row, _ in broken),
    )


def _lock_due(connection: sa.Connection, now: float, limit: int) -> Sequence[sa.Row[Any]]:
    """Return schedules whose slots have come, with their deployments; nobody else gets them."""
    query = sa.select(
        _table,
        _deployments.c.paused,
        _deployments.c.deleted_at,
        _deployments.c.version,
        _deployments.c.pool,
        _deployments.c.priority,
        _versions.c.flow,
        _versions.c.bundle,
        _versions.c.fingerprint,
        _versions.c.spec,
    )
    query = query.join_from(_table, _deployments, _deployments.c.name == _table.c.deployment)
    query = query.outerjoin(
        _versions,
        sa.and_(
            _versions.c.deployment == _deployments.c.name,
            _versions.c.number == _deployments.c.version,
        ),
    )
    query = query.where(_table.c.next_at <= now).order_by(_table.c.next_at, _table.c.id)
    query = query.limit(limit).with_for_update(of=_table, skip_locked=True)
    return connection.execute(query).all()


def _counts(connection: sa.Connection, ids: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return how many runs of schedules are not over and have begun or may, and how many wait."""
    held = _dispatches.c.stage == model.Stage.HELD.value
    waiting = sa.func.sum(sa.case((held, 1), else_=0))
    query = sa.select(_dispatches.c.schedule_id, sa.func.count(), waiting)
    query = query.where(_dispatches.c.schedule_id.in_(ids)).group_by(_dispatches.c.schedule_id)
    rows = connection.execute(query)
    return {whose: (every - waiting, waiting) for whose, every, waiting in rows}


# --- Deciding -------------------------------------------------------------------------------------


def _plan(row: sa.Row[Any], now: float, active: int, waiting: int, *, most: int) -> _Plan:
    schedule, policy = _schedule_rows.schedule(row), _schedule_rows.policy(row)
    at = _schedule_rows.instant(now)
    cursor, slot = _schedule_rows.instant(row.cursor), _schedule_rows.instant(row.next_at)
    if row.deleted_at is not None:
        return _Plan(row, schedule, rules.Due((), None, max(cursor, at), None))
    if row.flow is None:
        raise errors.ScheduleError(
            f"Deployment {row.deployment!r} has no version {row.version}. Deploy it again."
        )
    found = rules.due_on_time(
        schedule, policy, cursor=cursor, now=at, slot=slot, active=active, waiting=waiting
    ) or rules.due(
        schedule, policy, cursor=cursor, now=at, active=active, waiting=waiting, most=most
    )
    if row.paused:
        skipped = tuple(rules.SlotPlan(one.slot, Action.SKIP, _PAUSED) for one in found.plans)
        found = rules.Due(skipped, found.missed, found.cursor, found.next_at)
    return _Plan(row, schedule, found)


def _explain(error: Exception) -> str:
    if isinstance(error, errors.RaflowError):
        return _values.text(str(error))
    return _values.text(f"{type(error).__name__}: {error}")


# --- Carrying it out ------------------------------------------------------------------------------


def _carry_out(
    connection: sa.Connection, plans: Iterable[_Plan], now: float
) -> tuple[list[model.RunOrder], list[str]]:
    """Write the slots, and order the runs of those that nobody has written before."""
    slots: list[_values.Row] = []
    orders: dict[str, model.RunOrder] = {}
    replacing: list[_Plan] = []
    events: list[model.Event] = []
    for plan in plans:
        for one in plan.due.plans:
            run = None if one.action is Action.SKIP else new_id()
            slots.append(_slot(plan.row, one.slot, _DONE[one.action], one.reason, run, now))
            if run is not None:
                orders[run] = _order(plan, one, run)
            else:
                action = model.SlotAction.SKIPPED
                events.append(_schedule_events.skipped(plan.row, one.slot, action, one.reason))
        if plan.due.missed is not None:
            first, reason = _missed(plan, plan.due.missed)
            action = model.SlotAction.MISSED
            slots.append(_slot(plan.row, first, action, reason, None, now))
            events.append(_schedule_events.skipped(plan.row, first, action, reason))
        if any(one.action is Action.REPLACE for one in plan.due.plans):
            replacing.append(plan)
    new = _insert_slots(connection, slots)
    mine = [order for run, order in orders.items() if run in new]
    _orders.order(connection, mine)
    asked = [run for plan in replacing for run in _cancel_others(connection, plan.row, new)]
    for plan in replacing:
        # If all of them waited, nothing is left to wait for.
        _moves.release(connection, plan.row.id)
    _feed.append(connection, events)
    return mine, asked


def _slot(
    row: sa.Row[Any],
    at: datetime,
    action: model.SlotAction,
    reason: str,
    run: str | None,
    now: float,
) -> _values.Row:
    return (row.id, row.generation, at.timestamp(), action.value, reason, run, now)


def _missed(plan: _Plan, missed: tuple[datetime, datetime]) -> tuple[datetime, str]:
    """Return the first of the slots that are too old, and what is said of all of them."""
    after, before = missed
    first = plan.schedule.next_after(after)
    assert first is not None, "something was missed"
    reason = (
        f"slots from {first:%Y-%m-%d %H:%M:%S} to {before:%Y-%m-%d %H:%M:%S} UTC are older than "
        "the catch-up window"
    )
    return first, reason


def _insert_slots(connection: sa.Connection, rows: Sequence[_values.Row]) -> set[str]:
    """Write slots but those that are there already; return the runs of the new ones."""
    if not rows:
        return set()
    fresh = _upserts.insert_fresh(connection, _service_tables.slots, rows, found_by="flow_run_id")
    return {run for run in fresh if run is not None}


def _order(plan: _Plan, one: rules.SlotPlan, run: str) -> model.RunOrder:
    row = plan.row
    made = template(row.spec)
    waits = one.action is not Action.START
    reason = one.reason
    if waits:
        reason = f"waits for other runs of schedule {row.name!r}: {one.reason}"
    return model.RunOrder(
        flow_run_id=run,
        flow=row.flow,
        fingerprint=row.fingerprint,
        name=f"{row.flow}-{run[-6:]}",
        origin=model.RunOrigin(
            deployment=row.deployment,
            version=row.version,
            bundle=row.bundle,
            pool=row.pool,
            priority=row.priority,
            schedule_id=row.id,
            slot=one.slot.timestamp(),
            begins_at=plan.schedule.begins_at(row.id, one.slot).timestamp(),
            actor=f"schedule:{row.name}",
        ),
        parameters=parameters_of(row, one.slot),
        trigger=model.Trigger.SCHEDULE,
        tags=made.tags,
        stage=model.Stage.HELD if waits else model.Stage.WAITING,
        reason=reason,
        max_resumes=made.max_resumes,
    )


def parameters_of(row: sa.Row[Any], slot: datetime) -> Mapping[str, Any]:
    """Return the parameters of the run of a slot of a schedule."""
    own = {**template(row.spec).parameters, **_values.from_json(row.parameters)}
    if rules.MARK in row.spec or rules.MARK in row.parameters:
        return rules.fill_slot(own, slot, row.timezone)
    return own


@functools.lru_cache(maxsize=2000)
def template(spec: str) -> Template:
    """Return what a version gives its runs, by its text."""
    read = json.loads(spec)
    resumes = read.get("on_crash", model.OnCrash.RESUME) == model.OnCrash.RESUME
    return Template(
        parameters=read.get("parameters", {}),
        tags=tuple(read.get("tags", ())),
        max_resumes=read.get("max_resumes", 3) if resumes else 0,
    )


def _cancel_others(connection: sa.Connection, row: sa.Row[Any], new: set[str]) -> list[str]:
    """Cancel the runs of a schedule but a new one that is held for them.

    Returns:
        Those that have begun, which were asked to.
    """
    query = sa.select(_runs.c.id, _dispatches.c.stage).join_from(_dispatches, _runs)
    query = query.where(_dispatches.c.schedule_id == row.id).order_by(_dispatches.c.flow_run)
    by, message = f"schedule:{row.name}", "a later slot of its schedule replaces it"
    rest = [
        (run, stage)
        for run, stage in connection.execute(query).all()
        if run not in new or stage != model.Stage.HELD.value
    ]
    return cancel(connection, rest, by=by, message=message)


def cancel(
    connection: sa.Connection, runs: Iterable[tuple[str, str]], *, by: str, message: str
) -> list[str]:
    """Cancel runs, given with their stages.

    Returns:
        Those that have begun, which were asked to.
    """
    asked = []
    for run, stage in runs:
        if _returns.cancel_waiting(connection, run, message=message):
            continue
        try:
            _requests.ask(connection, run, model.RequestKind.CANCEL, by, message)
        except errors.RunHasEndedError:
            continue
        if stage == model.Stage.PARKED.value:
            # No process is there to hear it.
            _returns.requeue(connection, run, kind=model.Work.END, max_resumes=0)
        asked.append(run)
    return asked


def _forward(
    connection: sa.Connection, plans: Iterable[_Plan], broken: Sequence[tuple[sa.Row[Any], str]]
) -> None:
    moved: list[_values.Row] = [
        (
            plan.row.id,
            plan.due.cursor.timestamp(),
            None if plan.due.next_at is None else plan.due.next_at.timestamp(),
        )
        for plan in plans
    ]
    if moved:
        _move(connection, moved)
    if broken:
        stopped = [{"id": row.id, "active": False, "error": error} for row, error in broken]
        connection.execute(_BREAK, stopped)
        _feed.append(connection, [_schedule_events.broken(row, error) for row, error in broken])


def _move(connection: sa.Connection, moved: Sequence[_values.Row]) -> None:
    """Write how far schedules have come, given with id, cursor and next slot."""
    if connection.dialect.name == "sqlite":
        rows = [(cursor, next_at, schedule) for schedule, cursor, next_at in moved]
        connection.exec_driver_sql(_FORWARD, rows)
        return
    ids, cursors, nexts = map(list, zip(*moved, strict=True))
    connection.exec_driver_sql(_FORWARD_ALL, {"ids": ids, "cursors": cursors, "nexts": nexts})
