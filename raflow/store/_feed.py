"""The feed: everything that happens, in one order that no reader can miss a part of.

On PostgreSQL those who write put events into an outbox, so that their transactions share no row and
none waits for another; the number that orders an event is given to it after the commit. On SQLite
there is one writer at a time anyway, and it numbers its events itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from raflow import model
from raflow.store._database import _clock
from raflow.store._rows import _values

if TYPE_CHECKING:
    from raflow.store._database._engine import Database

_FIELDS: Final = (
    "kind",
    "at",
    "object",
    "flow_run_id",
    "flow",
    "deployment",
    "actor",
    "payload",
)
# Not the tables of the service, which whoever only writes an event need not load.
_events: Final = sa.table("events", sa.column("seq"), *map(sa.column, _FIELDS))
_PARAMETERS: Final = ", ".join(f":{name}" for name in _FIELDS)
_OF_ROW: Final = ("at", *(name for name in _FIELDS if name != "at"))
_NUMBERED: Final = (
    f"INSERT INTO events ({', '.join(_OF_ROW)}) "  # noqa: S608  # as below
    f"VALUES ({', '.join('?' * len(_OF_ROW))})"
)
# The time with the row: asking for it first would be another way to the server and back.
_PUT_OUT: Final = sa.text(
    f"INSERT INTO outbox ({', '.join(_FIELDS)}) VALUES ("  # noqa: S608  # made of constants
    + _PARAMETERS.replace(":at", "cast(extract(epoch FROM clock_timestamp()) AS double precision)")
    + ")"
)
_KEPT: Final = 100_000
"""So many events a database in a file keeps."""
_TRIM_EVERY: Final = 1000
_TRIM: Final = sa.text("DELETE FROM events WHERE seq <= :last")
PORTION: Final = 10_000
"""So many old events are deleted at once: others want to write, too."""
_LOCK: Final = 0x7261666C6F77
"""The advisory lock of whoever numbers events: `raflow` in ASCII."""
_MOVE: Final = sa.text(
    f"""
    WITH moved AS (
      DELETE FROM outbox WHERE id IN (SELECT id FROM outbox ORDER BY id LIMIT :limit)
      RETURNING id, {", ".join(_FIELDS)}
    )
    INSERT INTO events (seq, {", ".join(_FIELDS)})
    SELECT (SELECT coalesce(max(seq), 0) FROM events) + row_number() OVER (ORDER BY id),
      {", ".join(_FIELDS)} FROM moved
    """  # noqa: S608  # made of constants
)


class Feed:
    """Events in the order of their numbers: the order in which they were committed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def emit(self, events: Sequence[model.Event]) -> None:
        """Add events in a transaction of their own."""
        self._database.write(lambda c: append(c, events))

    def sequence(self, limit: int = 1000) -> int:
        """Number events that were committed meanwhile.

        Args:
            limit: At most so many. Default: 1000.

        Returns:
            How many there were; 0 on SQLite, where each is numbered as it is written, and while
            another server is at it.
        """
        if self._database.writer.dialect.name == "sqlite":
            return 0
        return self._database.write(lambda c: _sequence(c, limit))

    def after(
        self,
        seq: int,
        *,
        limit: int = 1000,
        kinds: Collection[str] = (),
        about: str | None = None,
        flow_run_id: str | None = None,
        seconds: float | None = None,
    ) -> list[model.Event]:
        """Return events with a higher number, in their order.

        Args:
            seq: The number of the last one that is known.
            limit: At most so many. Default: 1000.
            kinds: Only of these kinds; one that ends with `.*` stands for all that begin so.
                Default: all.
            about: Only those that happen to this object.
            flow_run_id: Only those that happen to this flow run or in it.
            seconds: How long the database may take over it. Default: as long as it takes.

        Raises:
            TooSlowError: It took longer.
        """
        query = sa.select(_events).where(_events.c.seq > seq)
        if kinds:
            query = query.where(sa.or_(*map(_is_kind, kinds)))
        if about is not None:
            query = query.where(_events.c.object == _values.text(about))
        if flow_run_id is not None:
            query = query.where(_events.c.flow_run_id == _values.text(flow_run_id))
        query = query.order_by(_events.c.seq).limit(limit)
        return self._database.read(
            lambda c: [_read(row) for row in c.execute(query)], seconds=seconds
        )

    def first(self) -> int:
        """Return the number of the oldest event that is kept; 0 if there was none yet."""
        query = sa.select(sa.func.coalesce(sa.func.min(_events.c.seq), 0))
        return int(self._database.read(lambda c: c.execute(query).scalar_one()))

    def lacks(self, seq: int) -> bool:
        """Whether events behind this one are not kept any more."""
        return self.first() > seq + 1

    def trim(self, *, seconds: float, most: int, limit: int = PORTION) -> int:
        """Delete old events, but never the newest: the numbers go on from it.

        Args:
            seconds: Older ones are deleted.
            most: So many are kept at most.
            limit: At most so many are deleted at once. Default: 10,000.

        Returns:
            How many were deleted; `limit`, if there may be more of them.
        """
        return self._database.write(lambda c: _trim(c, seconds, most, limit))

    def last(self) -> int:
        """Return the number of the newest event; 0 if there was none yet."""
        query = sa.select(sa.func.coalesce(sa.func.max(_events.c.seq), 0))
        return int(self._database.read(lambda c: c.execute(query).scalar_one()))


def _trim(connection: sa.Connection, seconds: float, most: int, limit: int) -> int:
    newest = connection.execute(sa.select(sa.func.max(_events.c.seq))).scalar_one()
    if newest is None:
        return 0
    # Their times go with their numbers, so that nobody looks further than where the first is kept.
    oldest = sa.select(_events.c.seq, _events.c.at).order_by(_events.c.seq).limit(limit).subquery()
    before = _clock.now(connection) - seconds
    is_old = sa.or_(oldest.c.at < before, oldest.c.seq <= newest - most)
    last = sa.select(sa.func.max(oldest.c.seq)).where(is_old, oldest.c.seq < newest)
    old = _events.c.seq <= last.scalar_subquery()
    return connection.execute(sa.delete(_events).where(old)).rowcount


def append(connection: sa.Connection, events: Sequence[model.Event]) -> None:
    """Add events as a part of the transaction in which they happen; their time is that of it."""
    if not events:
        return
    rows = [_row(event) for event in events]
    if connection.dialect.name != "sqlite":
        connection.execute(_PUT_OUT, rows)
        return
    now = _clock.now(connection)
    *others, newest = ((now, *row.values()) for row in rows)
    if others:
        connection.exec_driver_sql(_NUMBERED, others)
    seq = connection.exec_driver_sql(_NUMBERED, newest).lastrowid
    if seq // _TRIM_EVERY > (seq - len(rows)) // _TRIM_EVERY:
        connection.execute(_TRIM, {"last": seq - _KEPT})


def of_state(
    flow_run_id: str, flow: str, deployment: str | None, state: model.State
) -> model.Event:
    """Return the event that a flow run is in a state."""
    return model.Event(
        kind=model.EventKind.FLOW_RUN_STATE,
        object=f"flow_run:{flow_run_id}",
        at=0.0,
        flow_run_id=flow_run_id,
        flow=flow,
        deployment=deployment,
        payload={
            "state": state.name.value,
            "type": state.type.value,
            "message": state.message,
            "reason": state.reason,
        },
    )


def _row(event: model.Event) -> dict[str, object]:
    return {
        "kind": _values.text(event.kind),
        "object": _values.text(event.object),
        "flow_run_id": _maybe_text(event.flow_run_id),
        "flow": _maybe_text(event.flow),
        "deployment": _maybe_text(event.deployment),
        "actor": _values.text(event.actor),
        "payload": _values.to_json(event.payload),
    }


def _maybe_text(value: str | None) -> str | None:
    return None if value is None else _values.text(value)


def _sequence(connection: sa.Connection, limit: int) -> int:
    lock = sa.select(sa.func.pg_try_advisory_xact_lock(_LOCK))
    if not connection.execute(lock).scalar_one():
        return 0
    return connection.execute(_MOVE, {"limit": limit}).rowcount


def _is_kind(kind: str) -> sa.ColumnElement[bool]:
    column = _events.c.kind
    if not kind.endswith(".*"):
        return column == _values.text(kind)
    prefix = _values.text(kind[:-1])
    return sa.func.substr(column, 1, len(prefix)) == prefix


def _read(row: sa.Row[Any]) -> model.Event:
    return model.Event(
        seq=row.seq,
        kind=row.kind,
        at=row.at,
        object=row.object,
        flow_run_id=row.flow_run_id,
        flow=row.flow,
        deployment=row.deployment,
        actor=row.actor,
        payload=_values.from_json(row.payload),
    )
