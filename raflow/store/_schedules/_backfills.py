"""Backfills: what is kept of them, and how people steer them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from raflow import errors, model
from raflow._util import crash_point, new_id
from raflow.model import BackfillOutcome, BackfillState
from raflow.model.schedule import Interval, Schedule
from raflow.store import _feed
from raflow.store._database import _clock
from raflow.store._rows import _service_tables, _tables, _upserts, _values
from raflow.store._schedules import _backfill_steps, _due_slots, _schedule_rows
from raflow.store._schedules._backfill_steps import Taken

if TYPE_CHECKING:
    from raflow.store._database._engine import Database

MOST_SLOTS: Final = 10_000
"""So many slots a backfill has at most."""
_SHOWN: Final = 5
_UNDER_WAY: Final = (BackfillState.RUNNING.value, BackfillState.PAUSED.value)

_table = _service_tables.backfills
_parts = _service_tables.backfill_slots
_deployments = _service_tables.deployments
_schedules = _service_tables.schedules
_slots = _service_tables.slots
_dispatches = _service_tables.dispatches
_runs = _tables.flow_runs


class Backfills:
    """Runs of deployments for slots of the past. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def preview(self, wanted: model.BackfillOrder) -> model.BackfillPreview:
        """Return what a backfill would do.

        Raises:
            NotFoundError: There is no such deployment or schedule.
            ScheduleError: Its range is none, or has too many slots.
        """
        return self._database.read(lambda c: _preview(c, wanted))

    def create(self, wanted: model.BackfillOrder, *, actor: str = "") -> model.Backfill:
        """Begin a backfill; its runs are ordered by whoever calls `take`.

        Args:
            wanted: What is wanted.
            actor: Who wants it.

        Raises:
            NotFoundError: There is no such deployment or schedule.
            ScheduleError: Its range is none, or has no slots, or too many.
        """

        def write(connection: sa.Connection) -> model.Backfill:
            backfill = _create(connection, wanted, actor)
            crash_point("backfill.before_commit")
            return backfill

        backfill = self._database.write(write)
        crash_point("backfill.after_commit")
        return backfill

    def get(self, backfill_id: str) -> model.Backfill:
        """Return a backfill.

        Raises:
            NotFoundError: There is no such backfill.
        """
        return self._database.read(lambda c: _get(c, backfill_id))

    def all(self, *, deployment: str | None = None, limit: int = 50) -> list[model.Backfill]:
        """Return backfills, the newest first, at most so many."""
        query = sa.select(_table).order_by(_table.c.created_at.desc(), _table.c.id.desc())
        if deployment is not None:
            query = query.where(_table.c.deployment == deployment)
        return self._database.read(lambda c: _read(c, c.execute(query.limit(limit)).all()))

    def slots(
        self,
        backfill_id: str,
        *,
        outcome: BackfillOutcome | None = None,
        after: float | None = None,
        limit: int = 100,
    ) -> list[model.BackfillSlot]:
        """Return slots of a backfill, the oldest first.

        Args:
            backfill_id: The backfill.
            outcome: Only those of which this became.
            after: Only those after this instant, that of the last one of a page.
            limit: At most so many. Default: 100.
        """
        query = sa.select(_parts).where(_parts.c.backfill_id == backfill_id)
        if outcome is not None:
            query = query.where(_parts.c.outcome == outcome.value)
        if after is not None:
            query = query.where(_parts.c.instant > after)
        query = query.order_by(_parts.c.instant).limit(limit)
        return self._database.read(lambda c: [_read_slot(row) for row in c.execute(query)])

    def set_paused(self, backfill_id: str, *, paused: bool, actor: str = "") -> model.Backfill:
        """Order no more runs of a backfill, or go on; one that is over stays so.

        Raises:
            NotFoundError: There is no such backfill.
        """
        states = (BackfillState.RUNNING, BackfillState.PAUSED)
        before, after = states if paused else states[::-1]

        def write(connection: sa.Connection) -> model.Backfill:
            if _backfill_steps.locked(connection, backfill_id).state == before:
                _backfill_steps.enter(connection, backfill_id, after, actor=actor)
            return _get(connection, backfill_id)

        return self._database.write(write)

    def cancel(self, backfill_id: str, *, actor: str = "") -> tuple[model.Backfill, list[str]]:
        """Cancel a backfill with its runs; one that is over stays as it is.

        Returns:
            The backfill, and the runs that have begun, which were asked to cancel themselves.

        Raises:
            NotFoundError: There is no such backfill.
        """

        def write(connection: sa.Connection) -> tuple[model.Backfill, list[str]]:
            asked: list[str] = []
            if _backfill_steps.locked(connection, backfill_id).state in _UNDER_WAY:
                asked = _cancel(connection, backfill_id, actor)
            return _get(connection, backfill_id), asked

        return self._database.write(write)

    def retry_failed(self, backfill_id: str, *, actor: str = "") -> model.Backfill:
        """Have a backfill run those slots again whose runs did not complete.

        Raises:
            NotFoundError: There is no such backfill.
        """

        def write(connection: sa.Connection) -> model.Backfill:
            row = _backfill_steps.locked(connection, backfill_id)
            _backfill_steps.settle(connection, row)
            failed = _parts.c.outcome == BackfillOutcome.FAILED.value
            update = sa.update(_parts).where(_parts.c.backfill_id == backfill_id, failed)
            waiting = update.values(
                outcome=BackfillOutcome.WAITING.value, attempt=_parts.c.attempt + 1
            )
            again = connection.execute(waiting).rowcount
            if again and row.state != BackfillState.RUNNING:
                _backfill_steps.enter(connection, backfill_id, BackfillState.RUNNING, actor=actor)
            return _get(connection, backfill_id)

        return self._database.write(write)

    def take(self) -> Taken:
        """Order the next runs of backfills, as many as each may have at the same time.

        Several processes may do this at the same time.
        """
        living = sa.select(_table.c.id).where(_table.c.ended_at.is_(None)).limit(1)
        if self._database.read(lambda c: c.execute(living).first()) is None:
            return Taken()

        def write(connection: sa.Connection) -> Taken:
            taken = _backfill_steps.take(connection)
            crash_point("backfill.before_commit")
            return taken

        taken = self._database.write(write)
        crash_point("backfill.after_commit")
        return taken


# --- Reading --------------------------------------------------------------------------------------


def _get(connection: sa.Connection, backfill_id: str) -> model.Backfill:
    found = connection.execute(sa.select(_table).where(_table.c.id == backfill_id)).all()
    if not found:
        raise errors.NotFoundError.of("backfill", backfill_id, ())
    return _read(connection, found)[0]


def _read(connection: sa.Connection, rows: Sequence[sa.Row[Any]]) -> list[model.Backfill]:
    counts = _backfill_steps.counts(connection, [row.id for row in rows])
    return [
        model.Backfill(
            id=row.id,
            deployment=row.deployment,
            schedule_id=row.schedule_id,
            since=row.since,
            until=row.until,
            state=BackfillState(row.state),
            concurrency=row.concurrency,
            reprocess=model.Reprocess(row.reprocess),
            backwards=row.backwards,
            parameters=_values.from_json(row.parameters),
            total=row.total,
            counts=counts.get(row.id, {}),
            actor=row.actor,
            created_at=row.created_at,
            ended_at=row.ended_at,
        )
        for row in rows
    ]


def _read_slot(row: sa.Row[Any]) -> model.BackfillSlot:
    return model.BackfillSlot(
        instant=row.instant,
        outcome=BackfillOutcome(row.outcome),
        flow_run_id=row.flow_run_id,
        attempt=row.attempt,
    )


# --- Which slots ----------------------------------------------------------------------------------


def _preview(connection: sa.Connection, wanted: model.BackfillOrder) -> model.BackfillPreview:
    schedule_id, instants = _instants(connection, wanted)
    known = {} if schedule_id is None else _known(connection, schedule_id, wanted)
    runs = [at for at in instants if _backfill_steps.runs_again(known.get(at), wanted.reprocess)]
    return model.BackfillPreview(
        slots=len(instants),
        already=dict(sorted(Counter(known[at] for at in instants if at in known).items())),
        runs=len(runs),
        first=tuple(instants[:_SHOWN]),
        last=tuple(instants[-_SHOWN:]),
    )


def _instants(
    connection: sa.Connection, wanted: model.BackfillOrder
) -> tuple[str | None, list[float]]:
    """Return the slots of a backfill, and whose they are."""
    _check_deployment(connection, wanted.deployment)
    since, until = (datetime.fromtimestamp(at, UTC) for at in (wanted.since, wanted.until))
    if wanted.until > _clock.now(connection) or since > until:
        raise errors.ScheduleError(
            f"A backfill is of the past: {since.isoformat()} to {until.isoformat()} is not."
        )
    if bool(wanted.schedule) is (wanted.every > 0):
        raise errors.ScheduleError(
            "A backfill is of the slots of a schedule, or goes by `every`. Give one of them."
        )
    schedule_id, schedule = None, None
    if wanted.schedule:
        row = _schedule(connection, wanted)
        schedule_id, schedule = row.id, _schedule_rows.schedule(row)
    else:
        schedule = Schedule(rule=Interval(timedelta(seconds=wanted.every), anchor=since))
    found = schedule.slots(since - timedelta(microseconds=1), until)
    instants = [at.timestamp() for at in islice(found, MOST_SLOTS + 1)]
    if len(instants) > MOST_SLOTS:
        raise errors.ScheduleError(
            f"{since.isoformat()} to {until.isoformat()} has more than {MOST_SLOTS:,} slots. Make "
            "several backfills of shorter ranges."
        )
    return schedule_id, instants


def _check_deployment(connection: sa.Connection, name: str) -> None:
    living = sa.select(_deployments.c.name).where(_deployments.c.deleted_at.is_(None))
    known = set(connection.execute(living).scalars())
    if name not in known:
        raise errors.NotFoundError.of("deployment", name, sorted(known))


def _schedule(connection: sa.Connection, wanted: model.BackfillOrder) -> sa.Row[Any]:
    query = sa.select(_schedules).where(_schedules.c.deployment == wanted.deployment)
    rows = {row.name: row for row in connection.execute(query)}
    if wanted.schedule not in rows:
        raise errors.NotFoundError.of("schedule", wanted.schedule, sorted(rows))
    return rows[wanted.schedule]


def _known(
    connection: sa.Connection, schedule_id: str, wanted: model.BackfillOrder
) -> Mapping[float, str]:
    """Return the states of the runs that slots have."""
    query = sa.select(_slots.c.instant, _runs.c.state)
    query = query.join_from(_slots, _runs, _runs.c.id == _slots.c.flow_run_id)
    query = query.where(
        _slots.c.schedule_id == schedule_id, _slots.c.instant.between(wanted.since, wanted.until)
    )
    rows = connection.execute(query.order_by(_slots.c.decided_at))
    return {row.instant: row.state for row in rows}


# --- Changing -------------------------------------------------------------------------------------


def _create(connection: sa.Connection, wanted: model.BackfillOrder, actor: str) -> model.Backfill:
    if wanted.concurrency < 1:
        raise errors.ScheduleError("concurrency is 1 or more: so many runs go on at once.")
    schedule_id, instants = _instants(connection, wanted)
    if not instants:
        raise errors.ScheduleError("There is no slot in this range. Look at it with --dry-run.")
    backfill_id, now = new_id(), _clock.now(connection)
    connection.execute(
        sa.insert(_table).values(
            id=backfill_id,
            deployment=wanted.deployment,
            schedule_id=schedule_id,
            since=wanted.since,
            until=wanted.until,
            state=BackfillState.RUNNING.value,
            concurrency=wanted.concurrency,
            reprocess=wanted.reprocess.value,
            backwards=wanted.backwards,
            parameters=_values.to_json(dict(wanted.parameters)),
            cursor=wanted.since,
            total=len(instants),
            actor=_values.text(actor),
            created_at=now,
        )
    )
    waiting = BackfillOutcome.WAITING.value
    parts: list[_values.Row] = [(backfill_id, at, None, 0, waiting) for at in instants]
    _upserts.insert_new(connection, _parts, parts)
    _feed.append(connection, [_backfill_steps.told(connection, backfill_id, actor=actor)])
    return _get(connection, backfill_id)


def _cancel(connection: sa.Connection, backfill_id: str, actor: str) -> list[str]:
    waiting = _parts.c.outcome == BackfillOutcome.WAITING.value
    update = sa.update(_parts).where(_parts.c.backfill_id == backfill_id, waiting)
    connection.execute(update.values(outcome=BackfillOutcome.CANCELLED.value))
    query = sa.select(_runs.c.id, _dispatches.c.stage).join_from(_dispatches, _runs)
    query = query.where(_dispatches.c.backfill_id == backfill_id).order_by(_dispatches.c.flow_run)
    rows = [(run, stage) for run, stage in connection.execute(query)]
    asked = _due_slots.cancel(connection, rows, by=actor, message="its backfill was cancelled")
    _backfill_steps.enter(connection, backfill_id, BackfillState.CANCELLED, actor=actor)
    return asked
