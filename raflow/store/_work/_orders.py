"""Ordering runs of deployments: a run, its place in the line and the key of its order at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Final

import sqlalchemy as sa

from raflow import errors, model
from raflow._util import short_id
from raflow.store import _feed
from raflow.store._database import _clock
from raflow.store._rows import _rows, _service_tables, _tables, _upserts, _values

_runs = _tables.flow_runs
_keys = _service_tables.idempotency
_SEQ: Final = -1
"""Before that of the first batch of whoever drives the run."""


def order(connection: sa.Connection, orders: Sequence[model.RunOrder]) -> list[model.Ordered]:
    """Order runs; see `Dispatches.order`."""
    now = _clock.now(connection)
    known = _take_keys(connection, orders, now)
    mine = [o for o in orders if o.key is None or known[o.key] == o.flow_run_id]
    _insert(connection, mine, now)
    return [
        model.Ordered(o.flow_run_id, is_new=True)
        if o.key is None or known[o.key] == o.flow_run_id
        else model.Ordered(known[o.key], is_new=False)
        for o in orders
    ]


def _take_keys(
    connection: sa.Connection, orders: Sequence[model.RunOrder], now: float
) -> dict[tuple[str, str], str]:
    """Return whose each key is by now: the first order's that came with it.

    Raises:
        ConflictError: A key belongs to an order of something else.
    """
    wanted: dict[tuple[str, str], model.RunOrder] = {}
    for one in orders:
        if one.key is not None and wanted.setdefault(one.key, one).digest != one.digest:
            raise _conflict(one.key, wanted[one.key].flow_run_id)
    rows: list[_values.Row] = [
        (*key, wanted[key].digest, wanted[key].flow_run_id, now) for key in sorted(wanted)
    ]
    _upserts.insert_new(connection, _keys, rows)
    if not wanted:
        return {}
    query = sa.select(_keys).where(sa.tuple_(_keys.c.scope, _keys.c.key).in_(list(wanted)))
    found: dict[tuple[str, str], str] = {}
    for scope, key, digest, flow_run_id, _ in connection.execute(query):
        found[scope, key] = flow_run_id
        if bytes(digest) != wanted[scope, key].digest:
            raise _conflict((scope, key), flow_run_id)
    return found


def forget_keys(connection: sa.Connection, seconds: float, limit: int) -> int:
    """Delete old keys; see `Dispatches.forget_keys`."""
    key = (_keys.c.scope, _keys.c.key)
    old = sa.select(*key).where(_keys.c.at < _clock.now(connection) - seconds)
    old = old.order_by(_keys.c.at).limit(limit)
    return connection.execute(sa.delete(_keys).where(sa.tuple_(*key).in_(old))).rowcount


def _conflict(key: tuple[str, str], flow_run_id: str) -> errors.ConflictError:
    return errors.ConflictError(
        f"The idempotency key {key[1]!r} was used for flow run {short_id(flow_run_id)!r}, with "
        "other parameters. Use a new key for a new run, or repeat the request as it was.",
        flow_run_id=flow_run_id,
    )


def _insert(connection: sa.Connection, orders: Sequence[model.RunOrder], now: float) -> None:
    """Write what the orders are; an order that was written before changes nothing."""
    if not orders:
        return
    _ensure(connection, orders, now)
    rows = [_run(one, now) for one in orders]
    fresh = _upserts.insert_fresh(connection, _runs, rows, found_by="id")
    numbers = _numbers(connection, fresh)
    new = {o.flow_run_id: o for o in orders if o.flow_run_id in numbers}
    states: list[_values.Row] = []
    places: list[_values.Row] = []
    tags: list[_values.Row] = []
    for one in new.values():
        number = numbers[one.flow_run_id]
        states.append((number, *_values.key(None), 0, *_values.state(_state(one, now))))
        places.append(_place(one, number, now))
        tags.extend((tag, now, number) for tag in sorted(set(map(_values.text, one.tags))))
    _upserts.upsert(connection, _tables.states, states)
    _upserts.upsert(connection, _service_tables.dispatches, places)
    _upserts.upsert(connection, _service_tables.run_tags, tags)
    _feed.append(connection, [_told(one, now) for one in new.values()])


def _numbers(connection: sa.Connection, ids: Sequence[str]) -> dict[str, int]:
    query = sa.select(_runs.c.id, _runs.c.number).where(_runs.c.id.in_(ids))
    return {row[0]: row[1] for row in connection.execute(query)}


def _ensure(connection: sa.Connection, orders: Iterable[model.RunOrder], now: float) -> None:
    """Make the rows that orders refer to, where nobody has yet."""
    ensure_pools(connection, {o.origin.pool for o in orders}, now)
    flows = sorted({_values.text(o.flow) for o in orders})
    _upserts.insert_new(connection, _tables.flows, [(flow,) for flow in flows])


def ensure_pools(connection: sa.Connection, names: Iterable[str], now: float) -> None:
    """Make the pools that nobody has made yet: without limits, for Ray."""
    kind = model.PoolKind.RAY.value
    rows: list[_values.Row] = [
        (_values.text(name), None, False, "", kind, now) for name in sorted(names)
    ]
    _upserts.insert_new(connection, _service_tables.pools, rows)


def _state(order: model.RunOrder, now: float) -> model.State:
    return model.State(name=model.StateName.SCHEDULED, at=now, reason=order.reason)


def _told(order: model.RunOrder, now: float) -> model.Event:
    origin = order.origin
    told = _feed.of_state(order.flow_run_id, order.flow, origin.deployment, _state(order, now))
    return dataclasses.replace(told, actor=origin.actor)


def _run(order: model.RunOrder, now: float) -> _values.Row:
    run = model.FlowRun(
        id=order.flow_run_id,
        flow=order.flow,
        fingerprint=order.fingerprint,
        name=order.name,
        state=_state(order, now),
        parameters=order.parameters,
        trigger=order.trigger,
        parent_id=order.parent_id,
        parent_node=order.parent_node,
        created_at=now,
        tags=order.tags,
        rerun_of=order.rerun_of,
    )
    return (*_rows.flow_run(run, _SEQ, 0), *_rows.origin(order.origin))


def _place(order: model.RunOrder, number: int, now: float) -> _values.Row:
    origin = order.origin
    return (
        number,
        _values.text(origin.pool),
        _values.text(origin.deployment),
        origin.schedule_id,
        origin.backfill_id,
        order.stage.value,
        model.Work.RUN.value,
        -origin.priority,
        now if origin.begins_at is None else _values.seconds(origin.begins_at),
        now,
        False,
        None,
        None,
        0,
        0,
        order.max_resumes,
        "",
        None if order.choice is None else _values.to_json(order.choice),
    )
