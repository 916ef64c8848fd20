"""Values that were computed, under the keys of their inputs, and who computes one right now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from raflow import model
from raflow.store._database import _clock
from raflow.store._rows import _tables, _upserts, _values

if TYPE_CHECKING:
    from raflow.store._database._engine import Database

_AT_ONCE: Final = 500
_entries = _tables.cache_entries
_claims = _tables.cache_claims


class Cache:
    """Values that were computed, and who computes one. Times are by the clock of the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, keys: Iterable[str]) -> dict[str, model.CacheEntry]:
        """Return what is there under these keys, without what has expired, by key."""
        wanted = list(dict.fromkeys(keys))
        return self._database.read(lambda c: _find(c, wanted))

    def keep(self, entries: Iterable[model.CacheEntry]) -> None:
        """Keep values, instead of what was there under their keys."""
        # Sorted, so that two transactions never wait for each other's rows.
        rows = sorted(map(_row, entries), key=lambda row: str(row[0]))
        self._database.write(lambda c: _upserts.upsert(c, _entries, rows))

    def entries(
        self, *, task: str | None = None, limit: int | None = 100
    ) -> list[model.CacheEntry]:
        """Return what is kept, expired or not, newest first.

        Args:
            task: Only values of the task with this name.
            limit: At most so many; None: all. Default: 100.
        """
        query = sa.select(_entries).order_by(_entries.c.created_at.desc(), _entries.c.key)
        if task is not None:
            query = query.where(_entries.c.task == task)
        rows = self._database.read(lambda c: c.execute(query.limit(limit)).all())
        return [_read(row) for row in rows]

    def clear(
        self,
        *,
        key: str | None = None,
        task: str | None = None,
        older_than: float | None = None,
    ) -> int:
        """Forget values; their results are still those of the runs that computed them.

        Args:
            key: Only the one under this key.
            task: Only values of the task with this name.
            older_than: Only those that were computed more than so many seconds ago.

        Returns:
            How many there were.
        """
        return self._database.write(lambda c: _clear(c, key, task, older_than))

    def withdraw(self, flow_run_id: str, runs: Iterable[model.TaskRunKey]) -> int:
        """Forget what some task runs of a flow run have computed: it was undone.

        Returns:
            How many values there were.
        """
        keys = [tuple(key) for key in runs]
        return self._database.write(lambda c: _withdraw(c, flow_run_id, keys))

    def claim(
        self, key: str, holder: str, *, seconds: float, flow_run_id: str = "", label: str = ""
    ) -> model.Granted | model.Awaited:
        """Let one holder at a time compute the value of a key.

        `Limits.release` ends the claim, and `Limits.renew` renews those of a flow run.

        Args:
            key: The key.
            holder: Who wants to compute it; asking again renews the claim.
            seconds: How long the claim counts without being renewed.
            flow_run_id: The flow run that the holder belongs to.
            label: Who it is, for people: `load-0 of run etl-41fc`.
        """
        return self._database.write(
            lambda c: _claim(c, key, holder, seconds, flow_run_id, label or holder)
        )


def _withdraw(connection: sa.Connection, flow_run_id: str, keys: Sequence[tuple[int, ...]]) -> int:
    which, found = sa.tuple_(_entries.c.node, _entries.c.map_index), 0
    for start in range(0, len(keys), _AT_ONCE):
        these = which.in_(keys[start : start + _AT_ONCE])
        delete = sa.delete(_entries).where(_entries.c.flow_run_id == flow_run_id, these)
        found += connection.execute(delete).rowcount
    return found


def _find(connection: sa.Connection, keys: Sequence[str]) -> dict[str, model.CacheEntry]:
    now = _clock.now(connection)
    alive = sa.or_(_entries.c.expires_at.is_(None), _entries.c.expires_at > now)
    found: dict[str, model.CacheEntry] = {}
    for start in range(0, len(keys), _AT_ONCE):
        some = keys[start : start + _AT_ONCE]
        query = sa.select(_entries).where(_entries.c.key.in_(some), alive)
        found.update((row.key, _read(row)) for row in connection.execute(query))
    return found


def _row(entry: model.CacheEntry) -> _values.Row:
    return (
        entry.key,
        entry.flow_run_id,
        *entry.run,
        _values.text(entry.task),
        _values.seconds(entry.created_at),
        _values.maybe_seconds(entry.expires_at),
        *_values.result(entry.result),
    )


def _read(row: Sequence[Any]) -> model.CacheEntry:
    key, flow_run_id, node, map_index, task, created_at, expires_at, *kept = row
    result = _values.read_result(kept)
    assert result is not None, "every entry has a result"
    return model.CacheEntry(
        key=key,
        result=result,
        flow_run_id=flow_run_id,
        run=model.TaskRunKey(node, map_index),
        task=task,
        created_at=created_at,
        expires_at=expires_at,
    )


def _clear(
    connection: sa.Connection, key: str | None, task: str | None, older_than: float | None
) -> int:
    delete = sa.delete(_entries)
    if key is not None:
        delete = delete.where(_entries.c.key == key)
    if task is not None:
        delete = delete.where(_entries.c.task == task)
    if older_than is not None:
        delete = delete.where(_entries.c.created_at < _clock.now(connection) - older_than)
    return connection.execute(delete).rowcount


def _claim(
    connection: sa.Connection, key: str, holder: str, seconds: float, flow_run_id: str, label: str
) -> model.Granted | model.Awaited:
    now = _clock.now(connection)
    insert = _upserts.insert_into(_claims, connection.dialect.name).values(
        key=key,
        holder=holder,
        flow_run_id=flow_run_id,
        label=_values.text(label),
        since=now,
        expires_at=now + seconds,
    )
    is_free = sa.or_(_claims.c.expires_at <= now, _claims.c.holder == holder)
    claimed = insert.on_conflict_do_update(
        index_elements=["key"],
        set_={
            column.name: insert.excluded[column.name]
            for column in _claims.columns
            if not column.primary_key
        },
        where=is_free,
    )
    if connection.execute(claimed.returning(_claims.c.key)).first() is not None:
        return model.Granted()
    row = connection.execute(
        sa.select(_claims.c.label, _claims.c.since).where(_claims.c.key == key)
    ).first()
    if row is None:
        return model.Awaited("the same value was computed just now")
    since = _clock.time_of_day(row.since, now)
    return model.Awaited(f"{row.label} computes the same value since {since}")
