"""The same empty tasks in other orchestrators: a fan-out of 500 and a chain of 200.

Each peer has a program under `peer_programs/` and an environment of its own, which is installed
when it is first needed. The peers follow each other, so that none has to run beside Prefect's
server; a round starts one process per workload. "process" is from its start to its end. "flow" is
from the call of the flow to the moment when every task is in the peer's own record, after a warm-up
flow in the same process, so without imports and start-up. Every program counts the tasks in that
record, and the script ends if one is missing. The ratio says how many times as many tasks a second
raflow runs, on threads of its own process; the note says the same of raflow on Ray.

What is durable: raflow, Prefect, Dagster and Airflow each write SQLite. Dask writes nothing. Made
ready before the clock starts: all databases, and Prefect's server. Airflow and Prefect on Ray have
three rounds at most, as one process takes a minute and more.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import track

from benchmarks._charts import bars
from benchmarks._environments import python_of, version_of
from benchmarks._harness import Bench, Figure, Goal, Size, number, own_home

SIZES = {
    "fan_out": Size(500, 10, "tasks of the fan-out"),
    "chain": Size(200, 5, "tasks of the chain"),
}
PROGRAMS = Path(__file__).parent / "peer_programs"
WARM_UP = 3
LIMIT_SECONDS = 600
FASTEST, ON_RAY = "raflow, local", "raflow, Ray"


class Side(NamedTuple):
    """One row of the table."""

    peer: str
    """Name of its environment; raflow has this one."""
    name: str
    program: str
    kind: str = ""
    """First argument of the program, if it takes one."""
    most_rounds: int = 100


SIDES = (
    Side("raflow", FASTEST, "raflow_flows.py", "local"),
    Side("raflow", ON_RAY, "raflow_flows.py", "ray"),
    Side("prefect", "Prefect, threads", "prefect_flows.py", "threads"),
    Side("prefect", "Prefect, Ray", "prefect_flows.py", "ray", most_rounds=3),
    Side("dask", "Dask distributed", "dask_flows.py"),
    Side("dagster", "Dagster, in process", "dagster_flows.py"),
    Side("airflow", "Airflow, dag.test", "airflow_dags/flows.py", most_rounds=3),
)
PEERS = tuple(dict.fromkeys(side.peer for side in SIDES))


class Run(NamedTuple):
    """What one process took, in seconds."""

    process: float
    flow: float
    """Until the record was complete."""
    returned: float
    """Until the flow returned."""


def run(side: Side, workload: str, count: int, variables: Mapping[str, str]) -> Run:
    """Run a program once; end the script unless its record has all tasks."""
    python = sys.executable if side.peer == "raflow" else str(python_of(side.peer))
    command = [python, str(PROGRAMS / side.program), *filter(None, [side.kind]), workload]
    started = time.perf_counter()
    ended = subprocess.run(
        [*command, str(count)],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    process = time.perf_counter() - started
    if ended.returncode != 0:
        sys.exit(f"{side.name} failed:\n{ended.stdout[-2_000:]}\n{ended.stderr[-2_000:]}")
    said = json.loads(next(line for line in ended.stdout.splitlines() if line.startswith('{"sec')))
    if said["recorded"] != count:
        sys.exit(f"{side.name} has {said['recorded']} of {count} tasks of {workload} on record.")
    return Run(process, said["seconds"], said["returned"])


@contextlib.contextmanager
def ready(peer: str, home: Path) -> Iterator[dict[str, str]]:
    """Make what a peer needs before the clock starts; give the variables that tell it."""
    variables = {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DAGSTER_HOME": str(home),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROGRAMS / "airflow_dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
    }
    with contextlib.ExitStack() as stack:
        if peer == "dagster":
            (home / "dagster.yaml").touch()
        elif peer == "airflow":
            quietly(peer, ["airflow", "db", "migrate"], variables)
        elif peer == "prefect":
            quietly(peer, ["prefect", "server", "database", "upgrade", "--yes"], variables)
            variables["PREFECT_API_URL"] = stack.enter_context(prefect_server(variables))
        yield variables


def quietly(peer: str, command: list[str], variables: Mapping[str, str]) -> None:
    program, *arguments = command
    subprocess.run(
        [str(python_of(peer).parent / program), *arguments],
        env=os.environ | variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )


@contextlib.contextmanager
def prefect_server(variables: Mapping[str, str]) -> Iterator[str]:
    """Keep a server of Prefect while the block runs; give the address of its API."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [
            *(str(python_of("prefect").parent / "prefect"), "server", "start"),
            *("--host", "127.0.0.1", "--port", str(port)),
        ],
        env=os.environ | variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}/api"
    try:
        wait_for(f"{address}/health")
        yield address
    finally:
        server.terminate()
        server.wait(60)


def wait_for(url: str) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def measure(bench: Bench, sides: Sequence[Side]) -> dict[tuple[str, str], list[Run]]:
    """Run all programs, one peer after the other; return what they took, by workload and side."""
    taken: dict[tuple[str, str], list[Run]] = {
        (workload, side.name): [] for workload in SIZES for side in sides
    }
    for peer in dict.fromkeys(side.peer for side in sides):
        own = [side for side in sides if side.peer == peer]
        with own_home() as home, ready(peer, home) as variables:
            for side in own:
                run(side, "fan_out", WARM_UP, variables)
            for turn in track(range(bench.rounds), peer, console=Console(stderr=True)):
                for workload in SIZES:
                    for side in own[:: -1 if turn % 2 else 1]:
                        if turn < side.most_rounds:
                            done = run(side, workload, bench.size(workload), variables)
                            taken[workload, side.name].append(done)
    return taken


def report(bench: Bench, sides: Sequence[Side], taken: dict[tuple[str, str], list[Run]]) -> None:
    for workload in SIZES:
        count = bench.size(workload)
        for measured in ("process", "flow"):
            rates = {
                side.name: [count / getattr(one, measured) for one in taken[workload, side.name]]
                for side in sides
            }
            for name, values in rates.items():
                own = statistics.median(values)
                times = {
                    us: statistics.median(rates.get(us, [own])) / own for us in (FASTEST, ON_RAY)
                }
                ours = name in times
                bench.add(
                    Figure(
                        workload=f"{workload.replace('_', '-')} of {count}, {measured}",
                        side=name,
                        unit="tasks/s",
                        values=values,
                        ratio=None if ours else times[FASTEST],
                        goal=None if ours else Goal(at_least=50),
                        note="" if ours else note(bench, times[ON_RAY], taken[workload, name]),
                    )
                )


def note(bench: Bench, on_ray: float, runs: Sequence[Run]) -> str:
    said = [f"raflow on Ray {number(on_ray)} x"]
    if len(runs) < bench.rounds:
        said.append(f"{len(runs)} rounds")
    lag = statistics.median(one.flow - one.returned for one in runs)
    if lag > 0.1:
        said.append(f"record {lag:.1f} s late")
    return "; ".join(said)


def main() -> None:
    bench = Bench.from_command_line(__file__, __doc__, SIZES, sides=PEERS)
    sides = [side for side in SIDES if bench.wants(side.peer)]
    versions = {peer: version_of(peer) for peer in PEERS if peer != "raflow" and bench.wants(peer)}
    report(bench, sides, measure(bench, sides))
    bench.finish("raflow, local, x", versions_of_peers=versions)
    whole = [figure for figure in bench.figures if figure.workload.endswith("process")]
    bars(bench, whole, label="tasks per second, whole process", log=True)


if __name__ == "__main__":
    main()
