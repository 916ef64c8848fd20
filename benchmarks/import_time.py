"""Measure what `import raflow` costs, next to the packages it stands on.

Every import runs in a fresh interpreter; the time of an interpreter that imports nothing is
measured in the same round and taken off. The first round only fills the file cache.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROUNDS = 9
STATEMENTS = [
    "import raflow",
    "from raflow import flow, task",
    "import pydantic",
    "import sqlalchemy",
    "import ray",
]
PACKAGES = ["raflow", "pydantic", "sqlalchemy", "ray"]
RESULT = Path(__file__).parent / "results" / "import_time.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one import statement costs, in milliseconds over an empty interpreter."""

    statement: str
    median_ms: float
    least_ms: float
    most_ms: float
    modules: int


def seconds_of(statement: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - started


def modules_of(statement: str) -> int:
    script = f"import sys; before = len(sys.modules)\n{statement}\nprint(len(sys.modules) - before)"
    return int(subprocess.check_output([sys.executable, "-c", script]))


def measure() -> list[Cost]:
    rounds = [
        (seconds_of("pass"), {statement: seconds_of(statement) for statement in STATEMENTS})
        for _ in range(ROUNDS + 1)
    ][1:]
    costs = []
    for statement in STATEMENTS:
        over = [1000 * (taken[statement] - empty) for empty, taken in rounds]
        costs.append(
            Cost(
                statement=statement,
                median_ms=round(statistics.median(over), 1),
                least_ms=round(min(over), 1),
                most_ms=round(max(over), 1),
                modules=modules_of(statement),
            )
        )
    return costs


def show(costs: list[Cost]) -> None:
    table = Table("statement", title=f"import time, median of {ROUNDS} rounds")
    for column in ("median ms", "least", "most", "modules"):
        table.add_column(column, justify="right")
    for cost in costs:
        table.add_row(
            cost.statement,
            f"{cost.median_ms:.1f}",
            f"{cost.least_ms:.1f}",
            f"{cost.most_ms:.1f}",
            str(cost.modules),
        )
    Console().print(table)


def save(costs: list[Cost]) -> None:
    machine = {
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {package: metadata.version(package) for package in PACKAGES},
    }
    RESULT.parent.mkdir(exist_ok=True)
    figures = {"machine": machine, "rounds": ROUNDS, "costs": [asdict(cost) for cost in costs]}
    RESULT.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    results = measure()
    show(results)
    save(results)
