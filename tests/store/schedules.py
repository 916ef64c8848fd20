"""Deployments with schedules for tests, and a clock that tests set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from raflow import model
from raflow.model import ScheduleSpec
from raflow.model.schedule import Cron, Interval, Policy, Rule, Schedule
from raflow.store import Store
from raflow.store._database import _clock
from raflow.store._rows import _service_tables

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC).timestamp()


class Clock:
    """What the database says the time is; it stands still unless it is moved."""

    def __init__(self, at: float) -> None:
        self.at = at

    def __call__(self, connection: sa.Connection) -> float:
        return self.at

    def move(self, by: timedelta) -> None:
        self.at += by.total_seconds()


@contextmanager
def clock_at(at: float = NOON) -> Iterator[Clock]:
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(at)
        patch.setattr(_clock, "now", clock)
        yield clock


def deploy(store: Store, name: str = "nightly", *, version: int = 1, **spec: object) -> None:
    """Make a deployment, or another version of it."""
    made = {"flow": "etl", "entrypoint": "etl.py:etl", "parameters": {"day": 1}, **spec}
    deployment = {
        "name": name,
        "flow": "etl",
        "version": version,
        "paused": False,
        "pool": "default",
        "priority": 2,
        "concurrency": None,
        "revision": version,
        "created_at": 1.0,
        "updated_at": 1.0,
    }
    row = {
        "deployment": name,
        "number": version,
        "spec": json.dumps(made),
        "schedules": "[]",
        "digest": f"d{version}",
        "bundle": f"b{version}",
        "flow": "etl",
        "fingerprint": f"f{version}",
        "entrypoint": "etl.py:etl",
        "parameter_schema": "{}",
        "python": "3.12",
        "packages": "{}",
        "actor": "ann",
        "created_at": 1.0,
        "note": "",
    }

    def write(connection: sa.Connection) -> None:
        table = _service_tables.deployments
        if version == 1:
            connection.execute(sa.insert(table).values(deployment))
        else:
            update = sa.update(table).where(table.c.name == name)
            connection.execute(update.values(version=version))
        connection.execute(sa.insert(_service_tables.deployment_versions).values(row))

    store._database.write(write)


def change_deployment(store: Store, name: str = "nightly", **values: object) -> None:
    table = _service_tables.deployments
    update = sa.update(table).where(table.c.name == name).values(values)
    store._database.write(lambda c: c.execute(update))


def change_row(store: Store, schedule_id: str, **values: object) -> None:
    """Change the row of a schedule by hand."""
    table = _service_tables.schedules
    update = sa.update(table).where(table.c.id == schedule_id).values(values)
    store._database.write(lambda c: c.execute(update))


def spec(
    rule: Rule | None = None,
    *,
    name: str = "main",
    policy: Policy | None = None,
    jitter: timedelta = timedelta(0),
    active: bool = True,
    **parameters: object,
) -> ScheduleSpec:
    """A schedule, each hour unless it is told otherwise."""
    return ScheduleSpec(
        name=name,
        schedule=Schedule(rule=rule or Cron("0 * * * *"), jitter=jitter),
        policy=policy or Policy(),
        parameters=parameters,
        active=active,
    )


def put(store: Store, *specs: ScheduleSpec, deployment: str = "nightly") -> model.ScheduleRow:
    """Give a deployment schedules; return the first of them."""
    return store.schedules.put(deployment, specs or [spec()])[0]


def each_second(**more: object) -> ScheduleSpec:
    return spec(Interval(timedelta(seconds=1)), **more)  # type: ignore[arg-type]


def rewind(store: Store, schedule_id: str, seconds: float) -> tuple[float, list[float]]:
    """Have nobody looked at a schedule for a while; return since when, and its slots since then."""
    row = store.schedules.get(schedule_id)
    assert row.spec is not None
    cursor = row.cursor - seconds
    after, until = (datetime.fromtimestamp(at, UTC) for at in (cursor, row.cursor))
    slots = [at.timestamp() for at in row.spec.schedule.slots(after, until)]
    change_row(store, schedule_id, cursor=cursor, next_at=slots[0])
    return cursor, slots


def actions(store: Store, schedule_id: str) -> list[str]:
    """What was done about each slot, oldest first: `12:00 started`."""
    slots = reversed(store.schedules.slots(schedule_id, limit=1000))
    return [f"{datetime.fromtimestamp(s.instant, UTC):%H:%M} {s.action}" for s in slots]


def stages(store: Store) -> list[str]:
    """Where the runs that are not over stand, in the order in which they begin."""
    rows = store._database.read(
        lambda c: (
            c.execute(
                sa.select(_service_tables.dispatches.c.stage).order_by(
                    _service_tables.dispatches.c.begins_at, _service_tables.dispatches.c.flow_run
                )
            )
            .scalars()
            .all()
        )
    )
    return list(rows)
