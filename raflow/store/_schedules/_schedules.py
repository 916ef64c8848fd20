"""Schedules of deployments: when the service starts which runs by itself."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from raflow import errors, model
from raflow._util import crash_point, new_id
from raflow.model.schedule import zones_version
from raflow.store import _feed
from raflow.store._database import _clock
from raflow.store._rows import _service_tables, _tables, _values
from raflow.store._schedules import _due_slots, _schedule_events, _schedule_rows
from raflow.store._schedules._due_slots import Decided
from raflow.store._work import _returns

if TYPE_CHECKING:
    from raflow.store._database._engine import Database

_table = _service_tables.schedules
_slots = _service_tables.slots
_deployments = _service_tables.deployments
_versions = _service_tables.deployment_versions
_dispatches = _service_tables.dispatches
_runs = _tables.flow_runs


class Rechecked(NamedTuple):
    """What other time zones have changed."""

    moved: list[str]
    """Ids of schedules whose next slot is another one now."""
    broken: list[str]
    """Ids of those whose slots cannot be told any more; they are paused."""


class Schedules:
    """Schedules of deployments, and their slots. Times are by the clock of the database.

    Each method is one transaction.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- Definitions ------------------------------------------------------------------------------

    def put(
        self,
        deployment: str,
        specs: Sequence[model.ScheduleSpec],
        *,
        prune: bool = True,
        actor: str = "",
    ) -> list[model.ScheduleRow]:
        """Give a deployment schedules; what it has already stays as it is.

        A schedule with other slots than before begins anew: slots up to now are not decided again,
        and runs that wait for a time to come are cancelled. One that is new begins now. One that
        somebody has paused stays so; one that says that it is not active is paused.

        Args:
            deployment: Name of the deployment.
            specs: The schedules; each name once.
            prune: Whether its other schedules are removed. Default: yes.
            actor: Who does this.

        Returns:
            All its schedules, sorted by name.

        Raises:
            NotFoundError: There is no such deployment.
            ConfigError: Two schedules have the same name.
        """

        def write(connection: sa.Connection) -> list[model.ScheduleRow]:
            rows = put(connection, deployment, specs, prune=prune, actor=actor)
            crash_point("schedules.before_edit")
            return rows

        rows = self._database.write(write)
        crash_point("schedules.after_edit")
        return rows

    def set(
        self, deployment: str, spec: model.ScheduleSpec, *, actor: str = ""
    ) -> tuple[model.ScheduleRow, bool]:
        """Give a deployment a schedule by hand, or change one; what equals it changes nothing.

        It stays when the deployment is deployed again. See `put` for what a change does.

        Args:
            deployment: Name of the deployment.
            spec: The schedule.
            actor: Who does this.

        Returns:
            The schedule, and whether it was made.

        Raises:
            NotFoundError: There is no such deployment.
            ScheduleError: The version of the deployment has a schedule of that name.
        """

        def write(connection: sa.Connection) -> tuple[model.ScheduleRow, bool]:
            _lock_deployment(connection, deployment)
            _refuse_deployed(connection, deployment, spec.name)
            known = {row.name for row in _of(connection, deployment)}
            rows = put(connection, deployment, [spec], prune=False, actor=actor)
            crash_point("schedules.before_edit")
            return next(row for row in rows if row.name == spec.name), spec.name not in known

        done = self._database.write(write)
        crash_point("schedules.after_edit")
        return done

    def remove(self, schedule_id: str, *, actor: str = "") -> None:
        """Remove a schedule that was made by hand; its runs that wait for a time to come, too.

        Raises:
            NotFoundError: There is no such schedule.
            ScheduleError: It is what the version of its deployment says.
        """

        def write(connection: sa.Connection) -> None:
            row = _locked(connection, schedule_id)
            _refuse_deployed(connection, row.deployment, row.name)
            _feed.append(connection, [_remove(connection, row, _clock.now(connection), actor)])
            crash_point("schedules.before_edit")

        self._database.write(write)
        crash_point("schedules.after_edit")

    def set_active(self, schedule_id: str, *, active: bool, actor: str = "") -> model.ScheduleRow:
        """Pause a schedule, or let it go on with the next slot from now.

        Runs of a paused one that wait for a time to come are cancelled.

        Args:
            schedule_id: The schedule.
            active: Whether it starts runs.
            actor: Who does this.

        Raises:
            NotFoundError: There is no such schedule.
            ScheduleError: Its slots cannot be told here.
        """

        def write(connection: sa.Connection) -> model.ScheduleRow:
            row = _locked(connection, schedule_id)
            if row.active != active:
                _set_active(connection, row, active=active)
                what = "resumed" if active else "paused"
                _feed.append(connection, [_told(row, what, actor)])
            crash_point("schedules.before_edit")
            return _schedule_rows.read(_locked(connection, schedule_id))

        row = self._database.write(write)
        crash_point("schedules.after_edit")
        return row

    def get(self, schedule_id: str) -> model.ScheduleRow:
        """Return a schedule.

        Raises:
            NotFoundError: There is no such schedule.
        """
        query = sa.select(_table).where(_table.c.id == schedule_id)
        row = self._database.read(lambda c: c.execute(query).first())
        if row is None:
            raise _unknown(schedule_id)
        return _schedule_rows.read(row)

    def of(self, deployment: str | None = None) -> list[model.ScheduleRow]:
        """Return the schedules of a deployment, or all, sorted by deployment and name."""
        return self._database.read(lambda c: _of(c, deployment))

    def slots(
        self, schedule_id: str, *, before: float | None = None, limit: int = 50
    ) -> list[model.SlotRecord]:
        """Return slots that were decided, the newest first.

        Args:
            schedule_id: The schedule.
            before: Only slots before this instant, that of the last one of a page.
            limit: At most so many. Default: 50.
        """
        query = sa.select(_slots).where(_slots.c.schedule_id == schedule_id)
        if before is not None:
            query = query.where(_slots.c.instant < before)
        query = query.order_by(_slots.c.instant.desc(), _slots.c.generation.desc()).limit(limit)
        return self._database.read(
            lambda c: [_schedule_rows.read_slot(row) for row in c.execute(query)]
        )

    # --- Slots ------------------------------------------------------------------------------------

    def next_wake(self) -> float | None:
        """Return in how many seconds the next slot comes; None: no schedule has one."""
        query = sa.select(sa.func.min(_table.c.next_at)).where(_table.c.next_at.is_not(None))

        def read(connection: sa.Connection) -> float | None:
            at = connection.execute(query).scalar()
            return None if at is None else at - _clock.now(connection)

        return self._database.read(read)

    def decide_due(self, limit: int = 500) -> Decided:
        """Decide about the slots that have come, and order their runs.

        Several processes may do this at the same time: each slot is decided once. A schedule whose
        slots cannot be told is paused, with the error; the others go on.

        Args:
            limit: Look at no more than so many schedules. Default: 500.

        Returns:
            What was done; `schedules` is 0 when nothing is left to do, or others are at it.
        """
        crash_point("scheduler.before_claim")

        def write(connection: sa.Connection) -> Decided:
            decided = _due_slots.decide(connection, limit)
            crash_point("scheduler.before_commit")
            return decided

        decided = self._database.write(write)
        crash_point("scheduler.after_commit")
        return decided

    def recheck(self) -> Rechecked:
        """Tell anew when the next slots come of schedules that other time zones were used for.

        Slots go by the zones that are in use here. A schedule whose zone is no more is paused, with
        the error.
        """
        return self._database.write(_recheck)


# --- Definitions ----------------------------------------------------------------------------------


def put(
    connection: sa.Connection,
    deployment: str,
    specs: Sequence[model.ScheduleSpec],
    *,
    prune: bool = True,
    spared: Collection[str] = (),
    actor: str = "",
) -> list[model.ScheduleRow]:
    """Give a deployment schedules; see `Schedules.put`. Those of names in `spared` stay."""
    names = [spec.name for spec in specs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise errors.ConfigError(
            f"Deployment {deployment!r} has two schedules with the name {twice!r}. Give each a "
            "name of its own."
        )
    _lock_deployment(connection, deployment)
    query = sa.select(_table).where(_table.c.deployment == deployment).order_by(_table.c.id)
    known = {row.name: row for row in connection.execute(query.with_for_update())}
    now = _clock.now(connection)
    events = []
    for spec in specs:
        row = known.get(spec.name)
        if row is None:
            made = _insert(connection, deployment, spec, now)
            events.append(
                _schedule_events.changed(made, spec.name, deployment, "made", actor=actor)
            )
        elif values := _change(connection, row, spec, now):
            events.append(_told(row, "changed", actor, generation=values.get("generation")))
    gone = sorted(known.keys() - {*names, *spared}) if prune else ()
    events += [_remove(connection, known[name], now, actor) for name in gone]
    _feed.append(connection, events)
    return _of(connection, deployment)


def by_hand(connection: sa.Connection, deployment: str) -> set[str]:
    """Return the names of schedules that a deployment has, and its version does not."""
    known = set(
        connection.execute(
            sa.select(_table.c.name).where(_table.c.deployment == deployment)
        ).scalars()
    )
    return known - _deployed(connection, deployment)


def _deployed(connection: sa.Connection, deployment: str) -> set[str]:
    """Return the names of the schedules of the version that a deployment uses."""
    query = sa.select(_versions.c.schedules).join_from(
        _deployments,
        _versions,
        sa.and_(
            _versions.c.deployment == _deployments.c.name,
            _versions.c.number == _deployments.c.version,
        ),
    )
    text = connection.execute(query.where(_deployments.c.name == deployment)).scalar()
    return {one["name"] for one in json.loads(text or "[]")}


def _refuse_deployed(connection: sa.Connection, deployment: str, name: str) -> None:
    if name in _deployed(connection, deployment):
        raise errors.ScheduleError(
            f"Schedule '{deployment}/{name}' is part of the deployment: change it where that is "
            f"deployed from. `raflow schedules pause {deployment}/{name}` has it start no runs; "
            "one made by hand needs another name."
        )


def _remove(connection: sa.Connection, row: sa.Row[Any], now: float, actor: str) -> model.Event:
    """Remove a schedule; return what is to be told."""
    _cancel_coming(connection, row, now, "its schedule was removed")
    connection.execute(sa.delete(_table).where(_table.c.id == row.id))
    return _told(row, "removed", actor)


def _lock_deployment(connection: sa.Connection, name: str) -> None:
    query = sa.select(_deployments.c.name).where(_deployments.c.name == name)
    if connection.execute(query.with_for_update()).first() is None:
        known = connection.execute(sa.select(_deployments.c.name)).scalars()
        raise errors.NotFoundError.of("deployment", name, known)


def _insert(
    connection: sa.Connection, deployment: str, spec: model.ScheduleSpec, now: float
) -> str:
    """Make a schedule; return its id."""
    schedule_id = new_id()
    values = {
        "id": schedule_id,
        "deployment": deployment,
        "name": _values.text(spec.name),
        "generation": 1,
        "active": spec.active,
        "cursor": now,
        "next_at": _next(spec, now) if spec.active else None,
        "error": "",
        "tzdata": zones_version(),
        "created_at": now,
        "updated_at": now,
    }
    values |= _schedule_rows.definition(spec) | _schedule_rows.handling(spec)
    connection.execute(sa.insert(_table).values(values))
    return schedule_id


def _change(
    connection: sa.Connection, row: sa.Row[Any], spec: model.ScheduleSpec, now: float
) -> dict[str, object]:
    """Make a schedule what a person wants; return the columns that have changed."""
    old = row._mapping
    values = {
        name: value
        for name, value in (_schedule_rows.definition(spec) | _schedule_rows.handling(spec)).items()
        if old[name] != value
    }
    has_other_slots = not values.keys().isdisjoint(_schedule_rows.definition(spec))
    # One that was paused because its slots could not be told goes on.
    active = spec.active and (row.active or bool(row.error))
    if has_other_slots:
        values["generation"] = row.generation + 1
        _cancel_coming(connection, row, now, "its schedule was changed")
    # Its deployment may have been removed meanwhile, so that it was not looked after.
    if has_other_slots or active != row.active or (active and row.next_at is None):
        values |= _from_now(spec, row.cursor, now, active=active)
    if active != row.active and not active:
        _cancel_coming(connection, row, now, "its schedule was paused")
    if values:
        _update(connection, row.id, {**values, "updated_at": now})
    return values


def _told(row: sa.Row[Any], what: str, actor: str, *, generation: object = None) -> model.Event:
    return _schedule_events.changed(
        row.id,
        row.name,
        row.deployment,
        what,
        actor=actor,
        generation=row.generation if generation is None else generation,
    )


def _from_now(
    spec: model.ScheduleSpec, cursor: float, now: float, *, active: bool
) -> dict[str, object]:
    """Return the columns of a schedule whose slots count from now on."""
    # A clock that was set back makes nothing come twice.
    cursor = max(cursor, now)
    next_at = _next(spec, cursor) if active else None
    return {
        "active": active,
        "cursor": cursor,
        "next_at": next_at,
        "error": "",
        "tzdata": zones_version(),
    }


def _next(spec: model.ScheduleSpec, cursor: float) -> float | None:
    found = spec.schedule.next_after(_schedule_rows.instant(cursor))
    return None if found is None else found.timestamp()


def _set_active(connection: sa.Connection, row: sa.Row[Any], *, active: bool) -> None:
    now = _clock.now(connection)
    if active:
        found = _schedule_rows.spec(row)
        values = _from_now(found, row.cursor, now, active=True)
    else:
        values = {"active": False, "next_at": None, "error": ""}
        _cancel_coming(connection, row, now, "its schedule was paused")
    _update(connection, row.id, {**values, "updated_at": now})


def _update(connection: sa.Connection, schedule_id: str, values: dict[str, object]) -> None:
    connection.execute(sa.update(_table).where(_table.c.id == schedule_id).values(values))


def _cancel_coming(connection: sa.Connection, row: sa.Row[Any], now: float, message: str) -> None:
    """Cancel the runs of a schedule that are ordered for a time to come."""
    coming = sa.or_(_runs.c.begins_at > now, _runs.c.slot > now)
    query = sa.select(_runs.c.id).join_from(_dispatches, _runs)
    query = query.where(_dispatches.c.schedule_id == row.id, coming)
    for run in connection.execute(query.order_by(_dispatches.c.flow_run)).scalars().all():
        _returns.cancel_waiting(connection, run, message=message)


def _locked(connection: sa.Connection, schedule_id: str) -> sa.Row[Any]:
    query = sa.select(_table).where(_table.c.id == schedule_id).with_for_update()
    row = connection.execute(query).first()
    if row is None:
        raise _unknown(schedule_id)
    return row


def _unknown(schedule_id: str) -> errors.NotFoundError:
    return errors.NotFoundError.of("schedule", schedule_id, ())


def _of(connection: sa.Connection, deployment: str | None) -> list[model.ScheduleRow]:
    query = sa.select(_table).order_by(_table.c.deployment, _table.c.name)
    if deployment is not None:
        query = query.where(_table.c.deployment == deployment)
    return [_schedule_rows.read(row) for row in connection.execute(query)]


# --- Other time zones -----------------------------------------------------------------------------


def _recheck(connection: sa.Connection) -> Rechecked:
    zones = zones_version()
    query = sa.select(_table).where(_table.c.tzdata != zones, _table.c.next_at.is_not(None))
    done = Rechecked([], [])
    for row in connection.execute(query.order_by(_table.c.id).with_for_update()).all():
        values: dict[str, object]
        try:
            next_at = _next(_schedule_rows.spec(row), row.cursor)
        except errors.ScheduleError as error:
            done.broken.append(row.id)
            text = _values.text(str(error))
            values = {"active": False, "next_at": None, "error": text}
            _feed.append(connection, [_schedule_events.broken(row, text)])
        else:
            values = {"next_at": next_at}
            if next_at != row.next_at:
                done.moved.append(row.id)
        _update(connection, row.id, {**values, "tzdata": zones})
    return done
