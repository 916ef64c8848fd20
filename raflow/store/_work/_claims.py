"""Handing out runs of deployments to workers: who gets which, and how many at the same time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from raflow import errors, model
from raflow.store._database import _clock
from raflow.store._reading import _recall
from raflow.store._record import _moves
from raflow.store._rows import _rows, _service_tables, _tables, _upserts, _values

_runs = _tables.flow_runs
_table = _service_tables.dispatches
_pools = _service_tables.pools
_deployments = _service_tables.deployments

_PAGES: Final = 5
_PAGE: Final = 16
_ORDER: Final = (_table.c.rank, _table.c.begins_at, _table.c.flow_run)
_UNDER_WAY: Final = (model.Stage.CLAIMED.value, model.Stage.RUNNING.value)
# What only brings a dead run to its end is not held up by runs that live.
_COUNTS: Final = _table.c.kind != model.Work.END.value


class _Candidate(NamedTuple):
    number: int
    deployment: str
    kind: str
    rank: int
    begins_at: float


def claim(
    connection: sa.Connection, pool: str, worker_id: str, *, most: int, seconds: float, token: str
) -> list[model.Claim]:
    """Give waiting runs of a pool to a worker; see `Dispatches.claim`."""
    row = _lock_pool(connection, pool)
    # The same claim again: its answer was lost.
    claimed = _claimed(connection, worker_id, token)
    if claimed or row.paused:
        return claimed
    now = _clock.now(connection)
    rooms = _Rooms(connection, row)
    chosen = _choose(connection, pool, rooms, most, now)
    if chosen:
        _take(connection, chosen, worker_id, token, now, seconds)
        claimed = _claimed(connection, worker_id, token)
    return claimed


def _lock_pool(connection: sa.Connection, name: str) -> sa.Row[Any]:
    """Return a pool, whose runs nobody else hands out until the end of the transaction."""
    query = sa.select(_pools).where(_pools.c.name == name).with_for_update()
    row = connection.execute(query).first()
    if row is None:
        known = connection.execute(sa.select(_pools.c.name)).scalars()
        raise errors.NotFoundError.of("work pool", name, known)
    return row


class _Rooms:
    """How many runs may still begin: of the pool, and of the deployments that have a limit."""

    def __init__(self, connection: sa.Connection, pool: sa.Row[Any]) -> None:
        self._connection = connection
        self._of_pool: int | None = None
        if pool.concurrency is not None:
            under_way = _count(_table.c.pool == pool.name)
            self._of_pool = pool.concurrency - connection.execute(under_way).scalar_one()
        self._of: dict[str, int | None] = {}

    @property
    def is_full(self) -> bool:
        """Whether the pool has no room at all."""
        return self._of_pool is not None and self._of_pool <= 0

    def full_deployments(self) -> list[str]:
        """Return deployments that have no room, by a look that locks nothing."""
        active = _table.join(_deployments, _deployments.c.name == _table.c.deployment)
        query = sa.select(_deployments.c.name).select_from(active)
        query = query.where(_deployments.c.concurrency.is_not(None), *_active())
        query = query.group_by(_deployments.c.name, _deployments.c.concurrency)
        full = query.having(sa.func.count() >= _deployments.c.concurrency)
        none = sa.select(_deployments.c.name).where(_deployments.c.concurrency <= 0)
        return [
            *self._connection.execute(full).scalars(),
            *self._connection.execute(none).scalars(),
        ]

    def look_up(self, names: Collection[str]) -> None:
        """Find out how many runs of deployments may begin, and keep that so."""
        unknown = sorted(set(names) - self._of.keys())
        if not unknown:
            return
        self._of.update(dict.fromkeys(unknown))
        query = sa.select(_deployments.c.name, _deployments.c.concurrency)
        query = query.where(_deployments.c.name.in_(unknown), _deployments.c.concurrency >= 0)
        # In the order of names, so that two who want the same never wait for each other.
        limited = self._connection.execute(query.order_by(_deployments.c.name).with_for_update())
        for name, concurrency in limited.all():
            under_way = self._connection.execute(_count(_table.c.deployment == name)).scalar_one()
            self._of[name] = concurrency - under_way

    def take(self, candidate: _Candidate) -> bool:
        """Take room for a run, if there is any."""
        if candidate.kind == model.Work.END.value:
            return True
        left = self._of.get(candidate.deployment)
        if self.is_full or (left is not None and left <= 0):
            return False
        if left is not None:
            self._of[candidate.deployment] = left - 1
        if self._of_pool is not None:
            self._of_pool -= 1
        return True

    def exhausted(self) -> set[str]:
        """Return the deployments that have no room left."""
        return {name for name, left in self._of.items() if left is not None and left <= 0}

    def give_back(self, candidate: _Candidate) -> None:
        """Give back the room of a run that somebody else has got hold of."""
        if candidate.kind == model.Work.END.value:
            return
        left = self._of.get(candidate.deployment)
        if left is not None:
            self._of[candidate.deployment] = left + 1
        if self._of_pool is not None:
            self._of_pool += 1


def _active() -> tuple[sa.ColumnElement[bool], ...]:
    return _table.c.stage.in_(_UNDER_WAY), _COUNTS


def _count(whose: sa.ColumnElement[bool]) -> sa.Select[int]:
    return sa.select(sa.func.count()).select_from(_table).where(whose, *_active())


# --- Choosing -------------------------------------------------------------------------------------


def _choose(
    connection: sa.Connection, pool: str, rooms: _Rooms, most: int, now: float
) -> dict[int, model.Work]:
    """Return runs to hand out, and lock them: higher priority first, then what is due first."""
    waiting = [_table.c.pool == pool, _table.c.stage == model.Stage.WAITING.value]
    query = sa.select(
        _table.c.flow_run, _table.c.deployment, _table.c.kind, _table.c.rank, _table.c.begins_at
    )
    query = query.where(*waiting, _table.c.begins_at <= now)
    if paused := _paused(connection):
        # What has begun goes on.
        begins = _table.c.kind == model.Work.RUN.value
        query = query.where(~sa.and_(begins, _table.c.deployment.in_(paused)))
    query = query.order_by(*_ORDER).limit(max(_PAGE, 4 * most))
    full = set(rooms.full_deployments())
    chosen: dict[int, model.Work] = {}
    for _ in range(_PAGES):
        fits = sa.false() if rooms.is_full else _table.c.deployment.not_in(sorted(full))
        page = [_Candidate(*row) for row in connection.execute(query.where(sa.or_(~_COUNTS, fits)))]
        rooms.look_up({candidate.deployment for candidate in page})
        _choose_of(connection, page, rooms, most, chosen)
        if len(chosen) >= most or not page:
            break
        full |= rooms.exhausted()
        last = page[-1]
        query = query.where(sa.tuple_(*_ORDER) > (last.rank, last.begins_at, last.number))
    return chosen


def _paused(connection: sa.Connection) -> Sequence[str]:
    query = sa.select(_deployments.c.name).where(_deployments.c.paused)
    return connection.execute(query.order_by(_deployments.c.name)).scalars().all()


def _choose_of(
    connection: sa.Connection,
    page: Iterable[_Candidate],
    rooms: _Rooms,
    most: int,
    chosen: dict[int, model.Work],
) -> None:
    """Choose among candidates, best first; those that somebody else has hold of are left out."""
    left = iter(page)
    while len(chosen) < most:
        fitting = []
        for candidate in left:
            if rooms.take(candidate):
                fitting.append(candidate)
            if len(chosen) + len(fitting) == most:
                break
        if not fitting:
            return
        locked = _lock(connection, [candidate.number for candidate in fitting])
        for candidate in fitting:
            if candidate.number in locked:
                chosen[candidate.number] = model.Work(candidate.kind)
            else:
                rooms.give_back(candidate)


def _lock(connection: sa.Connection, numbers: Sequence[int]) -> set[int]:
    """Lock runs; return those that still wait."""
    query = sa.select(_runs.c.number).where(_runs.c.number.in_(numbers))
    query = query.with_for_update(key_share=True, skip_locked=True)
    locked = connection.execute(query).scalars().all()
    # Looked at again: somebody may have cancelled them before they were locked.
    still = sa.select(_table.c.flow_run).where(_table.c.flow_run.in_(locked))
    still = still.where(_table.c.stage == model.Stage.WAITING.value)
    return set(connection.execute(still).scalars())


# --- Taking ---------------------------------------------------------------------------------------


def _take(
    connection: sa.Connection,
    chosen: dict[int, model.Work],
    worker_id: str,
    token: str,
    now: float,
    seconds: float,
) -> None:
    numbers = sorted(chosen)
    update = sa.update(_runs).where(_runs.c.number.in_(numbers))
    update = update.values(incarnation=_runs.c.incarnation + 1)
    rows = connection.execute(update.returning(_runs.c.number, _runs.c.incarnation)).all()
    leases: list[_values.Row] = [
        (number, incarnation, "", 0, 0.0, now, now, now + seconds, token)
        for number, incarnation in sorted(map(tuple, rows))
    ]
    _upserts.upsert(connection, _tables.run_leases, leases)
    begins = [number for number, work in chosen.items() if work is model.Work.RUN]
    _moves.enter(connection, begins, model.State(name=model.StateName.SUBMITTED, at=now))
    moved = sa.update(_table).where(_table.c.flow_run.in_(numbers))
    stage = model.Stage.CLAIMED.value
    connection.execute(moved.values(stage=stage, worker_id=worker_id, claim=token, late=False))


def _claimed(connection: sa.Connection, worker_id: str, token: str) -> list[model.Claim]:
    """Return what a worker has got by a claim, and not begun."""
    query = sa.select(_table.c.kind, _table.c.choice, _runs).join_from(_table, _runs)
    query = query.where(_table.c.worker_id == worker_id, _table.c.claim == token)
    query = query.where(_table.c.stage == model.Stage.CLAIMED.value)
    rows = connection.execute(query.order_by(*_ORDER)).all()
    if not rows:
        return []
    runs = [(kind, choice, _rows.read_flow_run(row)) for kind, choice, *row in rows]
    numbers = _recall.read_all_numbers(connection, _runs.c.id.in_([run.id for *_, run in runs]))
    return [
        model.Claim(
            flow_run=run,
            work=model.Work(kind),
            incarnation=run.incarnation,
            numbers=numbers[run.id],
            choice=None if choice is None else _values.from_json(choice),
        )
        for kind, choice, run in runs
    ]
