"""Runs that come back from workers: given back, or left by a process that died; and those ended."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

from raflow import errors, model
from raflow._util import short_id
from raflow.model import FLOW_RUN_TRANSITIONS, FlowRunEvent, StateName
from raflow.store._database import _clock
from raflow.store._record import _driving, _moves, _tallies
from raflow.store._rows import _service_tables, _tables, _values
from raflow.store._steering import _requests

MOST_REFUSALS: Final = 10
"""So often a run is given back before it counts as failed."""
_LONGEST_PAUSE: Final = 60.0
_NOBODYS: Final = (model.Stage.PARKED.value, model.Stage.WAITING.value)

_runs = _tables.flow_runs
_leases = _tables.run_leases
_table = _service_tables.dispatches


def give_back(
    connection: sa.Connection,
    flow_run_id: str,
    incarnation: int,
    *,
    message: str,
    permanent: bool,
) -> bool:
    """Put a run back that its worker has not begun; see `Dispatches.give_back`."""
    found = find(connection, flow_run_id)
    if found is None:
        return False
    standing, place = found
    if standing.incarnation != incarnation or place.stage != model.Stage.CLAIMED.value:
        return False
    _refuse(connection, flow_run_id, standing, place, message, permanent=permanent)
    return True


def put_back(
    connection: sa.Connection, flow_run_id: str, *, message: str, died: int | None
) -> bool:
    """Put a run back whose process is gone; see `Dispatches.put_back`."""
    found = find(connection, flow_run_id)
    if found is None:
        return False
    standing, place = found
    if place.stage not in {model.Stage.CLAIMED.value, model.Stage.RUNNING.value}:
        return False
    if died is None:
        lease = sa.select(_leases.c.expires_at).where(_leases.c.flow_run == standing.number)
        expires_at = connection.execute(lease).scalar()
        if expires_at is not None and expires_at > _clock.now(connection):
            return False
    elif died != standing.incarnation:
        return False
    # To end a run is tried as often as to begin one, however far that came.
    if place.stage == model.Stage.CLAIMED.value or place.kind == model.Work.END.value:
        _refuse(connection, flow_run_id, standing, place, message, permanent=False)
    else:
        _go_on_elsewhere(connection, flow_run_id, standing, place, message)
    return True


def find(
    connection: sa.Connection, flow_run_id: str
) -> tuple[_driving.Standing, sa.Row[Any]] | None:
    """Return how a flow run stands, and its place; keep both until the end of the transaction."""
    standing = _driving.lock(connection, flow_run_id)
    if standing is None:
        return None
    query = sa.select(_table).where(_table.c.flow_run == standing.number)
    place = connection.execute(query).first()
    return None if place is None else (standing, place)


def _refuse(
    connection: sa.Connection,
    flow_run_id: str,
    standing: _driving.Standing,
    place: sa.Row[Any],
    message: str,
    *,
    permanent: bool,
) -> None:
    """Put a run back that was not begun, for a while, or for good if that was too often."""
    refusals = place.refusals + 1
    begins = place.kind == model.Work.RUN.value
    if permanent or refusals > MOST_REFUSALS:
        name = StateName.FAILED if begins else StateName.CRASHED
        end(connection, flow_run_id, standing, name, message)
        return
    now = _clock.now(connection)
    _shut_out(connection, standing)
    if begins:
        state = model.State(name=StateName.SCHEDULED, at=now, reason=message)
        _moves.enter(connection, [standing.number], state)
    _move(
        connection,
        standing,
        refusals=refusals,
        begins_at=now + min(2.0**refusals, _LONGEST_PAUSE),
        message=_values.text(message),
    )


def _go_on_elsewhere(
    connection: sa.Connection,
    flow_run_id: str,
    standing: _driving.Standing,
    place: sa.Row[Any],
    message: str,
) -> None:
    """Have another worker go on with a run, or end it if it has gone on too often."""
    now = _clock.now(connection)
    _shut_out(connection, standing)
    _driving.free(connection, flow_run_id)
    work, resumes = model.Work.END, place.resumes
    if not _is_to_end(connection, flow_run_id, standing) and resumes < place.max_resumes:
        work, resumes = model.Work.RESUME, resumes + 1
        following = FLOW_RUN_TRANSITIONS.get((standing.state, FlowRunEvent.RETRY_PLANNED))
        if following is not None:
            reason = f"it goes on when a worker of pool {place.pool} takes it"
            state = model.State(name=following, at=now, message=message, reason=reason)
            _moves.enter(connection, [standing.number], state)
    _move(
        connection,
        standing,
        kind=work.value,
        resumes=resumes,
        begins_at=now,
        message=_values.text(message),
    )


def _is_to_end(connection: sa.Connection, flow_run_id: str, standing: _driving.Standing) -> bool:
    """Whether somebody has cancelled a run, even if its process died before it took notice."""
    asked = _requests.unanswered(connection, flow_run_id)
    is_asked_to = any(one.kind is model.RequestKind.CANCEL for one in asked)
    return is_asked_to or standing.state is StateName.CANCELLING


def hand_over(connection: sa.Connection, flow_run_id: str, *, by: str, message: str) -> None:
    """Have a worker give up a run that it has begun; see `Dispatches.hand_over`."""
    _requests.ask(connection, flow_run_id, model.RequestKind.SUSPEND, by, message)
    this = sa.select(_runs.c.number).where(_runs.c.id == flow_run_id).scalar_subquery()
    update = sa.update(_table).where(_table.c.flow_run == this)
    running = _table.c.stage == model.Stage.RUNNING.value
    connection.execute(update.where(running).values(claim=None))


def _shut_out(connection: sa.Connection, standing: _driving.Standing) -> None:
    """Let the process that had a run write nothing more for it."""
    _driving.advance(connection, standing, standing.incarnation + 1)
    connection.execute(_driving.END_LEASE, {"run": standing.number})


def _move(connection: sa.Connection, standing: _driving.Standing, **values: object) -> None:
    """Have a run wait for a worker."""
    update = sa.update(_table).where(_table.c.flow_run == standing.number)
    stage = model.Stage.WAITING.value
    connection.execute(update.values(stage=stage, worker_id=None, claim=None, late=False, **values))


# --- By a person ----------------------------------------------------------------------------------


def cancel_waiting(connection: sa.Connection, flow_run_id: str, *, message: str) -> bool:
    """Cancel a run that has not begun; see `Dispatches.cancel_waiting`."""
    found = find(connection, flow_run_id)
    if found is None:
        return False
    standing, place = found
    if place.kind != model.Work.RUN.value or place.stage == model.Stage.RUNNING.value:
        return False
    if place.stage == model.Stage.PARKED.value:
        return False
    end(connection, flow_run_id, standing, StateName.CANCELLED, message)
    return True


def cancel(
    connection: sa.Connection, flow_run_id: str, *, by: str, message: str
) -> model.RunRequest:
    """Cancel a run, or ask whoever has it to; see `Dispatches.cancel`."""
    asked = _requests.ask(connection, flow_run_id, model.RequestKind.CANCEL, by, message)
    told = f"cancelled by {by}{': ' if message else ''}{message}"
    if not cancel_waiting(connection, flow_run_id, message=told):
        found = find(connection, flow_run_id)
        if found is not None and found[1].stage in _NOBODYS:
            # No process is there to hear it; its hooks need its code.
            _move(connection, found[0], kind=model.Work.END.value, begins_at=0.0, refusals=0)
    return asked


def end(
    connection: sa.Connection,
    flow_run_id: str,
    standing: _driving.Standing,
    name: StateName,
    message: str,
) -> None:
    """Bring a run to its end that no process can; what its process still wrote is refused."""
    _moves.leave(connection, standing.number)
    _shut_out(connection, standing)
    if standing.state.type.is_final:
        return
    now = _clock.now(connection)
    state = model.State(name=name, at=now, message=message)
    _moves.enter(connection, [standing.number], state)
    connection.execute(
        sa.update(_runs).where(_runs.c.number == standing.number).values(ended_at=now)
    )
    _driving.end(connection, standing.number, flow_run_id, name)
    _tallies.move(
        connection, standing.number, standing.counted, standing.counted._replace(state=name)
    )


def requeue(
    connection: sa.Connection, flow_run_id: str, *, kind: model.Work, max_resumes: int
) -> None:
    """Have a worker go on with a run, or end it; see `Dispatches.requeue`."""
    standing = _driving.known(connection, flow_run_id)
    now = _clock.now(connection)
    query = sa.select(_table).where(_table.c.flow_run == standing.number)
    place = connection.execute(query).first()
    if place is None:
        _check_resumable(flow_run_id, standing)
        _insert_again(connection, standing, kind, max_resumes, now)
    elif place.stage in {model.Stage.CLAIMED.value, model.Stage.RUNNING.value}:
        raise errors.RunIsAliveError(
            f"Flow run {short_id(flow_run_id)!r} is {place.stage} by a worker of pool "
            f"{place.pool!r}. If that is gone, another one goes on with the run by itself.",
            flow_run_id=flow_run_id,
        )
    elif place.stage == model.Stage.PARKED.value or place.kind != model.Work.RUN.value:
        values = {"resumes": 0, "refusals": 0, "begins_at": now, "message": ""}
        _move(connection, standing, kind=kind.value, **values)


def _check_resumable(flow_run_id: str, standing: _driving.Standing) -> None:
    can = (standing.state, FlowRunEvent.RESUMED) in FLOW_RUN_TRANSITIONS
    if can and standing.pool:
        return
    why = "it completed" if standing.pool else "no worker has its code"
    raise errors.ResumeError(
        f"Flow run {short_id(flow_run_id)!r} is {standing.state.value} and cannot go on in a pool: "
        f"{why}. Only runs of deployments that did not complete can.",
        flow_run_id=flow_run_id,
        state=standing.state.value,
    )


def _insert_again(
    connection: sa.Connection,
    standing: _driving.Standing,
    kind: model.Work,
    max_resumes: int,
    now: float,
) -> None:
    """Give a run that was over a place in the line."""
    row = connection.execute(sa.select(_runs).where(_runs.c.number == standing.number)).one()
    values = {
        "flow_run": standing.number,
        "pool": row.pool,
        "deployment": row.deployment,
        "schedule_id": row.schedule_id,
        "backfill_id": row.backfill_id,
        "stage": model.Stage.WAITING.value,
        "kind": kind.value,
        "rank": -row.priority,
        "begins_at": now,
        "ordered_at": now,
        "late": False,
        "refusals": 0,
        "resumes": 0,
        "max_resumes": max_resumes,
        "message": "",
    }
    connection.execute(sa.insert(_table).values(values))
