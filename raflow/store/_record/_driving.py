"""Which process drives a flow run: what every write for the run checks, and what ends with it."""

from __future__ import annotations

from typing import Final, NamedTuple

import sqlalchemy as sa

from raflow import errors, model
from raflow._util import short_id
from raflow.store._database import _clock
from raflow.store._record import _tallies
from raflow.store._rows import _tables, _upserts, _values

FIRST_SECONDS: Final = 10.0
"""How long the process that recorded a flow run first drives it for sure, without renewing that."""

_runs = _tables.flow_runs
_leases = _tables.run_leases


class Standing(NamedTuple):
    """What must be known of a flow run before something is written for it."""

    number: int
    incarnation: int
    seq: int
    """Of the batch that its row came with."""
    state: model.StateName
    created_at: float
    flow: str
    deployment: str
    """Empty: it is none of a deployment."""
    pool: str
    """Whose workers drive it; empty: whoever began it."""

    @property
    def counted(self) -> _tallies.Counted:
        """What it counts as."""
        return _tallies.Counted(self.created_at, self.flow, self.deployment, self.state)


_COLUMNS: Final = (
    *(_runs.c.number, _runs.c.incarnation, _runs.c.seq, _runs.c.state),
    *(_runs.c.created_at, _runs.c.flow, _runs.c.deployment, _runs.c.pool),
)


def lock(connection: sa.Connection, flow_run_id: str, *, shared: bool = False) -> Standing | None:
    """Return how a flow run stands, and keep it so until the end of the transaction.

    Args:
        connection: One that writes.
        flow_run_id: The flow run.
        shared: Whether others may look at it in this way meanwhile; nobody may change it.
    """
    query = sa.select(*_COLUMNS).where(_runs.c.id == flow_run_id)
    row = connection.execute(query.with_for_update(read=shared, key_share=not shared)).first()
    if row is None:
        return None
    number, incarnation, seq, state, created_at, flow, deployment, pool = row
    return Standing(
        number,
        incarnation,
        seq,
        model.StateName(state),
        created_at,
        flow,
        deployment or "",
        pool or "",
    )


def known(connection: sa.Connection, flow_run_id: str, *, shared: bool = False) -> Standing:
    """Return what `lock` returns.

    Raises:
        NotFoundError: No such flow run was recorded.
    """
    standing = lock(connection, flow_run_id, shared=shared)
    if standing is None:
        raise errors.NotFoundError.of("flow run", flow_run_id, (), "See `raflow runs ls`.")
    return standing


def check(flow_run_id: str, incarnation: int, standing: Standing) -> None:
    """Refuse what an earlier process of the run still wants to write.

    Raises:
        FencedError: A later process has begun.
    """
    if incarnation < standing.incarnation:
        raise errors.FencedError(
            f"Flow run {short_id(flow_run_id)!r} is driven by another process by now: this "
            f"one began it as number {incarnation}, and number {standing.incarnation} has taken "
            "over. Nothing was written; what this process still does for the run is lost.",
            flow_run_id=flow_run_id,
            incarnation=incarnation,
            current=standing.incarnation,
        )


def advance(connection: sa.Connection, standing: Standing, incarnation: int) -> None:
    """Note that a process of the run has this number, if that is a new one."""
    if incarnation > standing.incarnation:
        update = sa.update(_runs).where(_runs.c.number == standing.number)
        connection.execute(update.values(incarnation=incarnation))


def begin_first(
    connection: sa.Connection, number: int, run: model.FlowRun, incarnation: int
) -> None:
    """Give the process that records a flow run first its lease, so that nobody else takes it.

    A subflow needs none: whoever drives its parent drives it.
    """
    if not run.pid or run.parent_id is not None or run.state.is_final:
        return
    now = _clock.now(connection)
    values = {
        "flow_run": number,
        "incarnation": incarnation,
        "host": _values.text(run.host),
        "pid": run.pid,
        "process_started": 0.0,
        "since": now,
        "renewed_at": now,
        "expires_at": now + FIRST_SECONDS,
        "token": "",
    }
    insert = _upserts.insert_into(_leases, connection.dialect.name).values(values)
    connection.execute(insert.on_conflict_do_nothing())


def end(connection: sa.Connection, number: int, flow_run_id: str, state: model.StateName) -> None:
    """Give back whatever a flow run that is over still has, and answer what was asked of it."""
    connection.execute(END_LEASE, {"run": number})
    outcome = f"the flow run ended: {state.value}"
    connection.execute(_ANSWER, {"run": number, "outcome": outcome})
    free(connection, flow_run_id)


def free(connection: sa.Connection, flow_run_id: str) -> None:
    """Give back the slots that a flow run holds or waits for, and the keys that it computes."""
    for statement in _FREE_RUN:
        connection.execute(statement, {"whose": flow_run_id})


def release(connection: sa.Connection, holder: str) -> None:
    """Give back the slots that a holder has or waits for, and the key that it computes."""
    for statement in _FREE_HOLDER:
        connection.execute(statement, {"whose": holder})


def _freeing(column: str) -> tuple[sa.TextClause, ...]:
    """Return what gives back everything of those with the value `whose` in a column."""
    # What was taken of a rate is nobody's then, and counts for its time.
    spend = (
        "UPDATE slot_leases SET holder = '' WHERE {} = :whose AND granted_at IS NOT NULL AND name "
        "IN (SELECT name FROM limits WHERE per_seconds > 0)"
    )
    give_back = "DELETE FROM slot_leases WHERE {} = :whose AND holder <> ''"
    forget = "DELETE FROM cache_claims WHERE {} = :whose"
    return tuple(sa.text(text.format(column)) for text in (spend, give_back, forget))


# As texts: the end of each short flow waits for them, and expressions take longer to be compiled
# than these to be carried out.
END_LEASE: Final = sa.text("DELETE FROM run_leases WHERE flow_run = :run")
_ANSWER: Final = sa.text(
    "UPDATE run_requests SET outcome = :outcome WHERE flow_run = :run AND outcome = ''"
)
_FREE_RUN: Final = _freeing("flow_run_id")
_FREE_HOLDER: Final = _freeing("holder")
