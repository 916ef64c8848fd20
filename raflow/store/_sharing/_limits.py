"""Limits that all flow runs of a store share: the rows of those who hold slots are the truth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from raflow import errors, model
from raflow.store import _feed
from raflow.store._database import _clock
from raflow.store._record import _driving
from raflow.store._rows import _tables, _upserts, _values
from raflow.store._sharing import _slots
from raflow.store._sharing._slots import Claim

if TYPE_CHECKING:
    from raflow.store._database._engine import Database

_limits = _tables.limits
_table = _tables.slot_leases
_claims = _tables.cache_claims


class Limits:
    """Limits, who holds their slots, and who waits. Times are by the clock of the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def set(self, limit: model.Limit) -> None:
        """Set a limit, or change it; those who hold more than it allows now keep that.

        Args:
            limit: With 0 slots nobody is served until it is changed.

        Raises:
            ConfigError: Its name is empty, or a number is negative.
        """
        row = (_values.text(limit.name), limit.slots, limit.per_seconds)
        if not limit.name or limit.slots < 0:
            raise errors.ConfigError(
                f"Limit {limit.name!r} with {limit.slots} slots cannot be: it needs a name, and 0 "
                "slots or more."
            )
        if not 0 <= limit.per_seconds < math.inf:
            raise errors.ConfigError(
                f"Limit {limit.name!r} per {limit.per_seconds} s cannot be: write a positive "
                "number of seconds for a rate, 0 for slots that are given back."
            )

        def write(connection: sa.Connection) -> None:
            _upserts.upsert(connection, _limits, [row])
            told = {"slots": limit.slots, "per_seconds": limit.per_seconds}
            _tell(connection, limit.name, told)

        self._database.write(write)

    def remove(self, name: str) -> None:
        """Remove a limit, with those who hold or await its slots.

        Raises:
            UnknownLimitError: Nobody has set it.
        """
        self._database.write(lambda c: _remove(c, name))

    def all(self) -> list[model.LimitState]:
        """Return every limit with those who hold its slots and those in line, sorted by name.

        Of a rate, those who took a slot and have given it back are among the holders (nobody's,
        `holder` is empty) as long as it counts.
        """
        return self._database.read(_all)

    def acquire(
        self, request: model.SlotRequest, *, seconds: float
    ) -> model.Granted | model.Awaited:
        """Take slots: all that are wanted, or none, and a place in line for them.

        First come, first served, higher priority first; nobody overtakes within a limit. Asking
        again keeps the place in line, or renews what was granted.

        Args:
            request: Who wants how many slots of which limits.
            seconds: How long the slots, or the place in line, are the holder's without being
                renewed or asked for again.

        Raises:
            UnknownLimitError: Nobody has set one of the limits.
            InfeasibleResourcesError: A limit has fewer slots than are wanted of it.
        """
        return self._database.write(lambda c: _acquire(c, request, seconds))

    def renew(self, flow_run_id: str, *, seconds: float) -> frozenset[str]:
        """Renew all slots that a flow run holds, and the keys that it computes.

        Returns:
            The holders whose slots and keys are still theirs; others were too late, and what they
            held may be somebody else's.
        """
        return self._database.write(lambda c: _renew(c, flow_run_id, seconds))

    def release(self, holder: str) -> None:
        """Give back what a holder holds or waits for; nothing if it is given back already."""
        self._database.write(lambda c: _driving.release(c, holder))

    def release_all(self, flow_run_id: str) -> None:
        """Give back what a flow run holds or waits for."""
        self._database.write(lambda c: _driving.free(c, flow_run_id))


def _remove(connection: sa.Connection, name: str) -> None:
    if not connection.execute(sa.delete(_limits).where(_limits.c.name == name)).rowcount:
        raise _unknown(connection, name)
    _tell(connection, name, {"removed": True})


def _tell(connection: sa.Connection, name: str, payload: Mapping[str, Any]) -> None:
    event = model.Event(
        kind=model.EventKind.LIMIT_CHANGED, object=f"limit:{name}", at=0.0, payload=payload
    )
    _feed.append(connection, [event])


def _unknown(connection: sa.Connection, name: str) -> errors.UnknownLimitError:
    known = connection.execute(sa.select(_limits.c.name)).scalars()
    remedy = f"`raflow limits set {name} N` sets it to N slots."
    return errors.UnknownLimitError.of("limit", name, known, remedy)


# --- Taking slots ---------------------------------------------------------------------------------


def _acquire(
    connection: sa.Connection, request: model.SlotRequest, seconds: float
) -> model.Granted | model.Awaited:
    wanted = {name: amount for name, amount in request.amounts.items() if amount > 0}
    if not wanted:
        return model.Granted()
    limits = _lock(connection, request, wanted)
    now = _clock.now(connection)
    for limit in limits.values():
        _forget(connection, limit, now)
    claims = _read_claims(connection, _table.c.name.in_(wanted))
    own = {
        name: claim
        for name, its_claims in claims.items()
        for claim in its_claims
        if claim.holder == request.holder and claim.expires_at > now
    }
    missing = [name for name in wanted if name not in own or own[name].granted_at is None]
    if not missing:
        _extend(connection, _table.c.holder == request.holder, now, seconds)
        return model.Granted()
    asked = {
        name: _asked(request, name, claims.get(name, ()), own.get(name), now + seconds, now)
        for name in missing
    }
    reasons = [
        _slots.obstacle(limits[name], claims.get(name, ()), claim, now)
        for name, claim in asked.items()
    ]
    obstacles = [reason for reason in reasons if reason is not None]
    for name, claim in asked.items():
        served = claim if obstacles else claim._replace(granted_at=now)
        _write(connection, served, own.get(name), seconds)
    return model.Awaited("; ".join(obstacles)) if obstacles else model.Granted()


def _asked(
    request: model.SlotRequest,
    name: str,
    claims: Sequence[Claim],
    before: Claim | None,
    expires_at: float,
    now: float,
) -> Claim:
    """Return the row of a request in line for a limit, where it keeps the place that it had."""
    return Claim(
        name=name,
        ticket=before.ticket if before else 1 + max((c.ticket for c in claims), default=0),
        holder=request.holder,
        flow_run_id=request.flow_run_id,
        label=_values.text(request.label),
        amount=request.amounts[name],
        priority=request.priority,
        asked_at=before.asked_at if before else now,
        granted_at=None,
        expires_at=expires_at,
    )


def _lock(
    connection: sa.Connection, request: model.SlotRequest, wanted: Mapping[str, int]
) -> dict[str, model.Limit]:
    """Return limits, which nobody else can take slots of until the end of the transaction."""
    # In the order of names, so that two who want the same never wait for each other.
    query = sa.select(_limits).where(_limits.c.name.in_(wanted)).order_by(_limits.c.name)
    rows = connection.execute(query.with_for_update()).all()
    limits = {row[0]: _read_limit(row) for row in rows}
    for name, amount in wanted.items():
        if name not in limits:
            raise _unknown(connection, name)
        slots = limits[name].slots
        if 0 < slots < amount:
            raise errors.InfeasibleResourcesError(
                f"{request.label} wants {amount} slots of limit {name!r}, which has {slots}: it "
                f"would wait for ever. Ask for fewer, or `raflow limits set {name} {amount}`.",
                limit=name,
            )
    return limits


def _forget(connection: sa.Connection, limit: model.Limit, now: float) -> None:
    """Remove the claims on a limit that are over; see `_slots.is_over`."""
    over = [_table.c.name == limit.name, _table.c.expires_at <= now]
    if limit.per_seconds:
        over.append(
            sa.or_(_table.c.granted_at.is_(None), _table.c.granted_at <= now - limit.per_seconds)
        )
    # Rows that are being renewed or given back right now stay, and count: waiting for them here
    # could end in two that wait for each other.
    found = sa.select(_table.c.ticket).where(*over).with_for_update(skip_locked=True)
    connection.execute(
        sa.delete(_table).where(_table.c.name == limit.name, _table.c.ticket.in_(found))
    )


def _write(connection: sa.Connection, claim: Claim, before: Claim | None, seconds: float) -> None:
    if before is not None:
        changed = claim._replace(expires_at=0.0) != before._replace(expires_at=0.0)
        # Who asks often need not be written each time.
        if not changed and before.expires_at >= claim.expires_at - seconds / 2:
            return
        this = sa.and_(_table.c.name == claim.name, _table.c.ticket == claim.ticket)
        if connection.execute(sa.update(_table).where(this).values(claim._asdict())).rowcount:
            return
        # It was given back a moment ago, by somebody who did not know that it is asked for.
    connection.execute(sa.insert(_table).values(claim._asdict()))


# --- Keeping and giving back ----------------------------------------------------------------------


def _renew(connection: sa.Connection, flow_run_id: str, seconds: float) -> frozenset[str]:
    now = _clock.now(connection)
    of_run = sa.and_(_table.c.flow_run_id == flow_run_id, _table.c.granted_at.is_not(None))
    computed = (
        sa.update(_claims)
        .where(_claims.c.flow_run_id == flow_run_id, _claims.c.expires_at > now)
        .values(expires_at=now + seconds)
    )
    keys = connection.execute(computed.returning(_claims.c.holder)).scalars()
    return frozenset([*_extend(connection, of_run, now, seconds), *keys])


def _extend(
    connection: sa.Connection, whose: sa.ColumnElement[bool], now: float, seconds: float
) -> Iterable[str]:
    update = sa.update(_table).where(whose, _table.c.holder != "", _table.c.expires_at > now)
    update = update.values(expires_at=now + seconds)
    return connection.execute(update.returning(_table.c.holder)).scalars().all()


# --- Reading --------------------------------------------------------------------------------------


def _all(connection: sa.Connection) -> list[model.LimitState]:
    now = _clock.now(connection)
    limits = [
        _read_limit(row) for row in connection.execute(sa.select(_limits).order_by(_limits.c.name))
    ]
    claims = _read_claims(connection)
    return [_state(limit, claims.get(limit.name, ()), now) for limit in limits]


def _state(limit: model.Limit, claims: Iterable[Claim], now: float) -> model.LimitState:
    alive = [claim for claim in claims if not _slots.is_over(limit, claim, now)]
    return model.LimitState(
        limit=limit,
        holders=tuple(claim.lease(limit) for claim in _slots.taken(limit, alive, now)),
        waiters=tuple(claim.lease(limit) for claim in _slots.line(alive)),
    )


def _read_limit(row: Sequence[Any]) -> model.Limit:
    name, slots, per_seconds = row
    return model.Limit(name=name, slots=slots, per_seconds=per_seconds)


def _read_claims(
    connection: sa.Connection, *conditions: sa.ColumnElement[bool]
) -> dict[str, list[Claim]]:
    claims: dict[str, list[Claim]] = {}
    query = sa.select(_table).where(*conditions).order_by(_table.c.name, _table.c.ticket)
    for row in connection.execute(query):
        claim = Claim(*row)
        claims.setdefault(claim.name, []).append(claim)
    return claims
