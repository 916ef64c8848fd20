"""What becomes of the place of a run of a deployment when its state changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from raflow import model
from raflow.store import _feed
from raflow.store._database import _clock
from raflow.store._rows import _tables, _upserts, _values

_runs = _tables.flow_runs
_states = _tables.states

_PARK: Final = sa.text("UPDATE dispatches SET stage = 'parked' WHERE flow_run = :run")
_HAND_OVER: Final = sa.text(
    "UPDATE dispatches SET stage = 'waiting', kind = 'resume', worker_id = NULL, begins_at = :now, "
    "refusals = 0, message = '' WHERE flow_run = :run AND stage = 'running' AND claim IS NULL"
)
"""The claim of who has it was withdrawn: see `Dispatches.hand_over`."""
_BEGIN: Final = sa.text(
    "UPDATE dispatches SET stage = 'running', claim = coalesce(claim, '') "
    "WHERE flow_run = :run AND stage <> 'running'"
)
_LEAVE: Final = sa.text("DELETE FROM dispatches WHERE flow_run = :run RETURNING schedule_id")
_RELEASE: Final = sa.text(
    "UPDATE dispatches SET stage = 'waiting' WHERE stage = 'held' AND flow_run = ("
    "SELECT flow_run FROM dispatches WHERE schedule_id = :schedule AND stage = 'held' "
    "ORDER BY begins_at, flow_run LIMIT 1) AND NOT EXISTS ("
    "SELECT 1 FROM dispatches WHERE schedule_id = :schedule AND stage <> 'held')"
)


def follow(connection: sa.Connection, number: int, state: model.State) -> None:
    """Move a run of a deployment whose process has recorded a new state."""
    if state.is_final:
        leave(connection, number)
    elif state.name is not model.StateName.SUSPENDED:
        connection.execute(_BEGIN, {"run": number})
    elif not connection.execute(
        _HAND_OVER, {"run": number, "now": _clock.now(connection)}
    ).rowcount:
        connection.execute(_PARK, {"run": number})


def leave(connection: sa.Connection, number: int) -> None:
    """Forget the place of a run that is over; the next of its schedule may begin."""
    schedule = connection.execute(_LEAVE, {"run": number}).scalar()
    if schedule is not None:
        release(connection, schedule)


def release(connection: sa.Connection, schedule_id: str) -> int:
    """Let the first held run of a schedule begin if no other one is under way; return how many."""
    return connection.execute(_RELEASE, {"schedule": schedule_id}).rowcount


def enter(connection: sa.Connection, numbers: Sequence[int], state: model.State) -> None:
    """Note a state of flow runs that no process drives, in their rows and in their history."""
    if not numbers:
        return
    name, at, message, reason = _values.state(state)
    update = sa.update(_runs).where(_runs.c.number.in_(numbers))
    connection.execute(
        update.values(state=name, state_at=at, state_message=message, state_reason=reason)
    )
    last = sa.select(_states.c.flow_run, sa.func.max(_states.c.number))
    last = last.where(_states.c.flow_run.in_(numbers)).group_by(_states.c.flow_run)
    counted: dict[int, int] = {row[0]: row[1] for row in connection.execute(last)}
    rows: list[_values.Row] = [
        (number, *_values.key(None), counted.get(number, -1) + 1, name, at, message, reason)
        for number in sorted(numbers)
    ]
    _upserts.upsert(connection, _states, rows)
    entered = sa.select(_runs.c.id, _runs.c.flow, _runs.c.deployment)
    entered = entered.where(_runs.c.number.in_(numbers)).order_by(_runs.c.number)
    told = [_feed.of_state(*row, state) for row in connection.execute(entered)]
    _feed.append(connection, told)
