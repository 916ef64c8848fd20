"""Leases of flow runs: which process drives a run, since when, and whether it is still there."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from raflow import errors, model
from raflow._util import short_id
from raflow.model import FLOW_RUN_TRANSITIONS, FlowRunEvent, StateName
from raflow.store._database import _clock
from raflow.store._record import _driving
from raflow.store._rows import _rows, _service_tables, _tables, _upserts, _values
from raflow.store._steering import _requests

if TYPE_CHECKING:
    from raflow.store._database._engine import Database

_runs = _tables.flow_runs
_table = _tables.run_leases
_processes = _tables.run_processes
_dispatches = _service_tables.dispatches
_LEASE_COLUMNS: Final = (
    _runs.c.id,
    _table.c.incarnation,
    _table.c.host,
    _table.c.pid,
    _table.c.process_started,
    _table.c.renewed_at,
    _table.c.expires_at,
    _table.c.since,
)
_AT_ONCE: Final = 200
_UNDER_WAY: Final = [
    name.value
    for name in StateName
    if not name.type.is_final
    and name
    not in {StateName.SCHEDULED, StateName.LATE, StateName.AWAITING_SLOT, StateName.SUSPENDED}
]
"""States in which a flow run needs a process."""


class Leases:
    """Which process drives which flow run. Times are by the clock of the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin_incarnation(
        self,
        flow_run_id: str,
        *,
        host: str,
        pid: int,
        process_started: float,
        seconds: float,
        force: bool = False,
        gone: model.RunLease | None = None,
    ) -> int:
        """Let a process take over a flow run; from then on nobody else can write for it.

        Args:
            flow_run_id: A run that has begun and did not complete.
            host: Where the process is.
            pid: Its id.
            process_started: When it began: seconds since the Unix epoch.
            seconds: How long the run is its own without a renewal.
            force: Whether to take it even from a process whose lease is alive. Default: no.
            gone: A lease whose process is known to be dead: it counts as over. Not like `force`, as
                somebody else may have taken the run over since it was read.

        Returns:
            The number of the process among those of the run.

        Raises:
            NotFoundError: No such flow run was recorded.
            ResumeError: The run completed, or has not begun.
            RunIsAliveError: Another process drives it, or the run that it is a subflow of.
        """
        # What tells a commit whose answer was lost from the lease of somebody else.
        lease = model.RunLease(
            flow_run_id=flow_run_id,
            incarnation=0,
            host=_values.text(host),
            pid=pid,
            process_started=process_started,
            renewed_at=0.0,
            expires_at=0.0,
        )
        token = secrets.token_hex(8)
        return self._database.write(
            lambda c: _begin(c, lease, seconds=seconds, token=token, force=force, gone=gone)
        )

    def renew(
        self,
        flow_run_id: str,
        incarnation: int,
        *,
        seconds: float,
        host: str = "",
        pid: int = 0,
        process_started: float = 0.0,
    ) -> tuple[model.RunRequest, ...]:
        """Renew the lease of a process on its flow run, or make it if there is none.

        A run that is not recorded yet, or that is over, gets none.

        Args:
            flow_run_id: The flow run.
            incarnation: The number of the process.
            seconds: How long the run is its own without another renewal.
            host: Where the process is. Default: as before.
            pid: Its id; 0: as before.
            process_started: When it began: seconds since the Unix epoch.

        Returns:
            What others ask of the run and nobody has answered yet, oldest first.

        Raises:
            FencedError: Another process has taken over.
        """
        process = {"host": _values.text(host), "pid": pid, "process_started": process_started}
        return self._database.write(
            lambda c: _renew(c, flow_run_id, incarnation, seconds, process if pid else {})
        )

    def let_go(self, flow_run_id: str, incarnation: int) -> None:
        """Give a flow run back, and its slots, if the process with this number still has it."""
        self._database.write(lambda c: _let_go(c, flow_run_id, incarnation))

    def get(self, flow_run_id: str) -> model.RunLease | None:
        """Return who drives a flow run, or did last without giving it back; None: nobody.

        Whether the lease is alive tells `is_alive`.
        """
        return self._database.read(lambda c: read_lease(c, flow_run_id))

    def is_alive(self, flow_run_id: str) -> bool:
        """Tell whether a process drives a flow run, or the run that it is a subflow of."""
        return self._database.read(lambda c: bool(_living(c, flow_run_id, _clock.now(c))))

    def abandoned(self) -> list[model.FlowRun]:
        """Return flow runs that are under way and that no process drives, newest first.

        Runs that are suspended wait for nobody, those of deployments are given to workers; subflows
        live as long as the run above them.
        """
        return self._database.read(_abandoned)

    def of_host(self, host: str) -> list[model.RunLease]:
        """Return the leases of processes of a host, whether they are alive or not."""
        query = sa.select(*_LEASE_COLUMNS).join_from(_table, _runs).where(_table.c.host == host)
        rows = self._database.read(lambda c: c.execute(query.order_by(_table.c.since)).all())
        return [_read(row) for row in rows]

    def note_processes(
        self,
        flow_run_id: str,
        processes: Iterable[model.ProcessInfo],
        *,
        ended: Iterable[model.ProcessInfo] = (),
    ) -> None:
        """Note processes that work for a flow run, and might outlive the one that drives it.

        Args:
            flow_run_id: The flow run.
            processes: Those that are there, besides what was noted before.
            ended: Those that were noted, and have ended.

        Raises:
            NotFoundError: No such flow run was recorded.
        """
        noted, forgotten = tuple(processes), tuple(ended)
        self._database.write(lambda c: _note(c, flow_run_id, noted, forgotten))

    def processes(self, flow_run_id: str) -> list[model.ProcessInfo]:
        """Return the processes that were noted for a flow run, those that began first first."""
        table = _processes
        columns = (table.c.host, table.c.pid, table.c.started_at, table.c.role)
        query = sa.select(*columns).join_from(table, _runs).where(_runs.c.id == flow_run_id)
        query = query.order_by(table.c.started_at, table.c.host, table.c.pid)
        rows = self._database.read(lambda c: c.execute(query).all())
        return [
            model.ProcessInfo(host=host, pid=pid, started_at=started_at, role=role)
            for host, pid, started_at, role in rows
        ]


def read_lease(connection: sa.Connection, flow_run_id: str) -> model.RunLease | None:
    """Return who drives a flow run; see `Leases.get`."""
    query = sa.select(*_LEASE_COLUMNS).join_from(_table, _runs)
    row = connection.execute(query.where(_runs.c.id == flow_run_id)).first()
    return None if row is None else _read(row)


def _read(row: Sequence[Any]) -> model.RunLease:
    flow_run_id, incarnation, host, pid, process_started, renewed_at, expires_at, since = row
    return model.RunLease(
        flow_run_id=flow_run_id,
        incarnation=incarnation,
        host=host,
        pid=pid,
        process_started=process_started,
        renewed_at=renewed_at,
        expires_at=expires_at,
        since=since,
    )


# --- Taking over ----------------------------------------------------------------------------------


def _begin(
    connection: sa.Connection,
    lease: model.RunLease,
    *,
    seconds: float,
    token: str,
    force: bool,
    gone: model.RunLease | None,
) -> int:
    standing = _driving.known(connection, lease.flow_run_id)
    mine = sa.select(_table.c.token).where(_table.c.flow_run == standing.number)
    if connection.execute(mine.with_for_update()).scalar() == token:
        return standing.incarnation
    _check_state(lease.flow_run_id, standing)
    now = _clock.now(connection)
    if not force:
        _check_nobody_else(connection, lease, gone, now)
    _driving.advance(connection, standing, standing.incarnation + 1)
    row = (
        standing.number,
        standing.incarnation + 1,
        lease.host,
        lease.pid,
        lease.process_started,
        now,
        now,
        now + seconds,
        token,
    )
    _upserts.upsert(connection, _table, [row])
    return standing.incarnation + 1


def _check_state(flow_run_id: str, standing: _driving.Standing) -> None:
    if (standing.state, FlowRunEvent.RESUMED) in FLOW_RUN_TRANSITIONS:
        return
    name = standing.state.value
    raise errors.ResumeError(
        f"Flow run {short_id(flow_run_id)!r} is {name}: only a run that has begun and did not "
        "complete can be resumed. To make a new run that uses what this one has done, `raflow "
        f"rerun {short_id(flow_run_id)}`.",
        flow_run_id=flow_run_id,
        state=name,
    )


def _check_nobody_else(
    connection: sa.Connection, lease: model.RunLease, gone: model.RunLease | None, now: float
) -> None:
    """Refuse a run that is driven; whoever drives the parent may take up a subflow."""
    me = _process_of(lease)
    for other in _living(connection, lease.flow_run_id, now):
        if gone is not None and _lease_of(other) == _lease_of(gone):
            continue
        if other.flow_run_id == lease.flow_run_id or _process_of(other) != me:
            raise _is_alive(lease.flow_run_id, other, now)


def _process_of(lease: model.RunLease) -> tuple[str, int, float]:
    return lease.host, lease.pid, lease.process_started


def _lease_of(lease: model.RunLease) -> tuple[str, int, str, int]:
    return lease.flow_run_id, lease.incarnation, lease.host, lease.pid


def _living(connection: sa.Connection, flow_run_id: str, now: float) -> list[model.RunLease]:
    """Return the living leases of a flow run and of those above it, the own one first."""
    depth = sa.literal(0).label("depth")
    line = sa.select(_runs.c.number, _runs.c.parent_id, depth).where(_runs.c.id == flow_run_id)
    above = line.cte("above", recursive=True)
    above = above.union_all(
        sa.select(_runs.c.number, _runs.c.parent_id, above.c.depth + 1).where(
            _runs.c.id == above.c.parent_id
        )
    )
    query = (
        sa.select(*_LEASE_COLUMNS)
        .join_from(_table, _runs)
        .join(above, above.c.number == _table.c.flow_run)
        .where(_table.c.expires_at > now)
        .order_by(above.c.depth)
    )
    return [_read(row) for row in connection.execute(query)]


def _is_alive(flow_run_id: str, lease: model.RunLease, now: float) -> errors.RunIsAliveError:
    since = _clock.time_of_day(lease.since, now)
    left = lease.expires_at - now
    told = f"{now - lease.renewed_at:.0f} s ago"
    what = f"Flow run {short_id(flow_run_id)!r} is alive"
    if lease.flow_run_id != flow_run_id:
        whole = short_id(lease.flow_run_id)
        what = f"Flow run {short_id(flow_run_id)!r} is part of flow run {whole!r}, which is alive"
    return errors.RunIsAliveError(
        f"{what}: process {lease.pid} on host {lease.host!r} has driven it since {since}, and told "
        f"so {told}. If it is gone, wait {math.ceil(left)} s; if it will never do anything again, "
        "take the run over with --force.",
        flow_run_id=flow_run_id,
        host=lease.host,
        pid=lease.pid,
        since=lease.since,
        seconds_left=left,
    )


# --- Renewing and letting go ----------------------------------------------------------------------


def _renew(
    connection: sa.Connection,
    flow_run_id: str,
    incarnation: int,
    seconds: float,
    process: dict[str, object],
) -> tuple[model.RunRequest, ...]:
    now = _clock.now(connection)
    run = sa.select(_runs.c.number).where(_runs.c.id == flow_run_id).scalar_subquery()
    # As a rule the lease is there. Its number is the fence, so the run itself need not be locked,
    # which the recorder may keep for a while.
    update = sa.update(_table).where(_table.c.flow_run == run, _table.c.incarnation == incarnation)
    times = {"renewed_at": now, "expires_at": now + seconds}
    done = connection.execute(update.values(**times, **process))
    if not done.rowcount:
        standing = _driving.lock(connection, flow_run_id)
        if standing is None:
            return ()
        _driving.check(flow_run_id, incarnation, standing)
        if not standing.state.type.is_final:
            _driving.advance(connection, standing, incarnation)
            values = {"host": "", "pid": 0, "process_started": 0.0, **process, **times}
            row = {"flow_run": standing.number, "incarnation": incarnation, "since": now}
            connection.execute(sa.insert(_table).values(**row, **values, token=""))
    return _requests.unanswered(connection, flow_run_id)


def _let_go(connection: sa.Connection, flow_run_id: str, incarnation: int) -> None:
    run = sa.select(_runs.c.number).where(_runs.c.id == flow_run_id).scalar_subquery()
    own = sa.and_(_table.c.flow_run == run, _table.c.incarnation == incarnation)
    if connection.execute(sa.delete(_table).where(own)).rowcount:
        _driving.free(connection, flow_run_id)


# --- Runs without a process -----------------------------------------------------------------------


def _abandoned(connection: sa.Connection) -> list[model.FlowRun]:
    now = _clock.now(connection)
    alive = sa.select(_table.c.flow_run).where(_table.c.expires_at > now)
    # Together, as two conditions they would be looked for in every run there is.
    cared_for = sa.union(alive, sa.select(_dispatches.c.flow_run))
    seeds = sa.select(_runs.c.id).where(_runs.c.number.in_(cared_for))
    driven = seeds.cte("driven", recursive=True)
    below = sa.select(_runs.c.id).where(
        _runs.c.parent_id == driven.c.id, _runs.c.state.in_(_UNDER_WAY)
    )
    driven = driven.union(below)
    query = sa.select(_runs).where(
        _runs.c.state.in_(_UNDER_WAY), _runs.c.id.not_in(sa.select(driven.c.id))
    )
    query = query.order_by(_runs.c.created_at.desc(), _runs.c.id.desc())
    return [_rows.read_flow_run(row) for row in connection.execute(query)]


def _note(
    connection: sa.Connection,
    flow_run_id: str,
    processes: Iterable[model.ProcessInfo],
    ended: Sequence[model.ProcessInfo],
) -> None:
    run = _driving.known(connection, flow_run_id, shared=True).number
    table = _processes
    key = sa.tuple_(table.c.host, table.c.pid, table.c.started_at)
    for start in range(0, len(ended), _AT_ONCE):
        some = ended[start : start + _AT_ONCE]
        these = key.in_([(_values.text(p.host), p.pid, p.started_at) for p in some])
        connection.execute(sa.delete(table).where(table.c.flow_run == run, these))
    rows: list[_values.Row] = [
        (run, _values.text(p.host), p.pid, p.started_at, _values.text(p.role)) for p in processes
    ]
    _upserts.upsert(connection, _processes, sorted(rows, key=repr))
