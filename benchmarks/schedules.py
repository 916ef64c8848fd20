"""Slots of many schedules that come at the same minute, and schedules that have nothing to do.

Deciding is what the loop of a server does: slots, runs, places in line and history are written in
transactions of up to 500 schedules. Each round has its own slots, of schedules that go by the
minute and were last looked at a minute ago; the database is on this machine. "A look" is what the
loop does each second while nothing has come, whatever the number of schedules.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from benchmarks._harness import Bench, Figure, Goal, Size
from raflow.model import (
    Bundle,
    DeploymentSpec,
    DeploymentVersion,
    FlowVersion,
    ScheduleSpec,
)
from raflow.model.schedule import Cron, Overlap, Policy, Schedule
from raflow.store import Store

SIZES: Mapping[str, Size] = {
    "due": Size(10_000, 500, "schedules that are due on one minute"),
    "idle": Size(100_000, 1_000, "schedules that are not due"),
}
DIGEST = "0" * 64
BUNDLE = Bundle(digest=DIGEST, size=1, files=1, unpacked=1, url="", manifest=b"")
PER_DEPLOYMENT = 100


def deploy(store: Store, name: str, schedules: tuple[ScheduleSpec, ...]) -> None:
    version = DeploymentVersion(
        number=0,
        spec=DeploymentSpec(flow="etl", entrypoint="etl.py:etl"),
        digest="",
        bundle=DIGEST,
        fingerprint="f",
        schedules=schedules,
    )
    store.deployments.put(name, version, FlowVersion(flow="etl", fingerprint="f", created_at=1.0))


def schedules(number: int, expression: str) -> tuple[ScheduleSpec, ...]:
    made = Schedule(rule=Cron(expression, timezone="Europe/Paris"))
    policy = Policy(overlap=Overlap.ALLOW_ALL)
    names = (f"s{n}" for n in range(number))
    return tuple(ScheduleSpec(name=name, schedule=made, policy=policy) for name in names)


@contextmanager
def store_of(number: int, expression: str) -> Iterator[Store]:
    """A database with so many schedules."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Store.open(f"sqlite:///{folder}/raflow.db", log_dir=Path(folder)) as store,
    ):
        store.deployments.keep_bundle(BUNDLE)
        left = number
        for n in itertools.count():
            deploy(store, f"d{n}", schedules(min(left, PER_DEPLOYMENT), expression))
            left -= PER_DEPLOYMENT
            if left <= 0:
                break
        yield store


def come_due(store: Store) -> None:
    """Have the minute before have been looked at, and no run be there."""
    now = time.time()
    minute = now // 60 * 60
    rewind = sa.text("UPDATE schedules SET cursor = :cursor, next_at = :slot")
    tables = ("slots", "dispatches", "states", "flow_runs")

    def write(connection: sa.Connection) -> None:
        for table in tables:
            connection.execute(sa.text(f"DELETE FROM {table}"))
        connection.execute(rewind, {"cursor": minute - 1, "slot": minute})

    store._database.write(write)


def main() -> None:
    bench = Bench.from_command_line(__file__, __doc__, SIZES)
    due, idle = bench.size("due"), bench.size("idle")
    with store_of(due, "* * * * *") as busy, store_of(idle, "0 0 1 1 *") as quiet:

        def decided() -> float:
            come_due(busy)
            # What waits for the end of the minute would be two.
            while time.time() % 60 > 50:
                time.sleep(0.1)
            begun = time.perf_counter()
            runs = 0
            while decided := busy.schedules.decide_due():
                if not decided.schedules:
                    break
                runs += len(decided.runs)
            assert runs == due
            return time.perf_counter() - begun

        def looked() -> float:
            begun = time.process_time()
            for _ in range(100):
                assert not quiet.schedules.decide_due().schedules
                quiet.backfills.take()
                quiet.schedules.next_wake()
            return (time.process_time() - begun) / 100

        rounds = bench.rounds
        bench.add(
            Figure(
                workload=f"{due:,} slots on one minute",
                side="decided, SQLite",
                unit="s",
                values=[decided() for _ in range(rounds)],
                goal=Goal(at_most=1.0),
            )
        )
        bench.add(
            Figure(
                workload=f"{idle:,} schedules",
                side="a look, SQLite",
                unit="s",
                values=[looked() for _ in range(rounds)],
                goal=Goal(at_most=0.02),
            )
        )
    bench.finish(packages=("raflow", "sqlalchemy"))


if __name__ == "__main__":
    main()
