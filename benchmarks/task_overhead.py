"""Measure what a recorded task costs: raflow on Ray and on threads, next to bare Ray.

Empty tasks: `TASKS` calls in a row, a map of as many, and a chain of `CHAIN` in which each takes
the value of the one before. raflow records every run in SQLite (`synchronous=FULL`) before it
returns. All sides take turns in one process; a first round, not counted, warms everything up.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

os.environ["RAFLOW_HOME"] = tempfile.mkdtemp()

import ray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from raflow import config, flow, runtime, task

ROUNDS = 5
TASKS = 1_000
CHAIN = 200
RESULT = Path(__file__).parent / "results" / "task_overhead.json"


@ray.remote(max_retries=0)
def bare(value: int) -> int:
    return value


@task
def recorded(value: int) -> int:
    return value


@flow
def independent() -> None:
    for number in range(TASKS):
        recorded(number)


@flow
def mapped() -> None:
    recorded.map(range(TASKS))


@flow
def chained() -> int:
    value = recorded(0)
    for _ in range(CHAIN - 1):
        value = recorded(value)
    return value.result()


def bare_independent() -> None:
    ray.get([bare.remote(number) for number in range(TASKS)])


def bare_chained() -> None:
    value = bare.remote(0)
    for _ in range(CHAIN - 1):
        value = bare.remote(value)
    ray.get(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What one task of a workload costs on one side."""

    workload: str
    side: str
    median_us: float
    least_us: float
    most_us: float
    ratio: float
    """Against bare Ray in the same workload."""


def workloads() -> dict[tuple[str, str], tuple[int, Callable[[], object]]]:
    return {
        ("calls", "bare Ray"): (TASKS, bare_independent),
        ("calls", "raflow, ray"): (TASKS, independent),
        ("calls", "raflow, local"): (TASKS, independent.with_options(backend="local")),
        ("map", "bare Ray"): (TASKS, bare_independent),
        ("map", "raflow, ray"): (TASKS, mapped),
        ("map", "raflow, local"): (TASKS, mapped.with_options(backend="local")),
        ("chain", "bare Ray"): (CHAIN, bare_chained),
        ("chain", "raflow, ray"): (CHAIN, chained),
        ("chain", "raflow, local"): (CHAIN, chained.with_options(backend="local")),
    }


def measure() -> list[Figure]:
    taken: dict[tuple[str, str], list[float]] = {}
    for _ in track(range(ROUNDS + 1), description="rounds"):
        for key, (count, run) in workloads().items():
            started = time.perf_counter()
            run()
            taken.setdefault(key, []).append((time.perf_counter() - started) / count * 1e6)
    medians = {key: statistics.median(times[1:]) for key, times in taken.items()}
    return [
        Figure(
            workload=workload,
            side=side,
            median_us=round(medians[workload, side]),
            least_us=round(min(times[1:])),
            most_us=round(max(times[1:])),
            ratio=round(medians[workload, side] / medians[workload, "bare Ray"], 2),
        )
        for (workload, side), times in taken.items()
    ]


def show(figures: list[Figure]) -> None:
    table = Table("workload", "side", title=f"cost of a task, median of {ROUNDS} rounds")
    for column in ("median µs", "least", "most", "to bare Ray"):
        table.add_column(column, justify="right")
    for figure in figures:
        table.add_row(
            figure.workload,
            figure.side,
            f"{figure.median_us:.0f}",
            f"{figure.least_us:.0f}",
            f"{figure.most_us:.0f}",
            f"{figure.ratio:.2f} x",
        )
    Console().print(table)


def save(figures: list[Figure]) -> None:
    machine = {
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {name: metadata.version(name) for name in ("raflow", "ray", "sqlalchemy")},
    }
    RESULT.parent.mkdir(exist_ok=True)
    report = {"machine": machine, "rounds": ROUNDS, "figures": [asdict(f) for f in figures]}
    RESULT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    runtime.open_backend("ray", config.load())
    results = measure()
    show(results)
    save(results)
    runtime.shutdown()
