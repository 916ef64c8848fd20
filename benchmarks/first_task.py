"""From the start of a process to the end of its first task.

Each round starts a new Python, which imports raflow and runs a flow of one empty task, recorded as
always; the task reports when it ended. "local" runs it on a thread, "Ray" starts a Ray for it, and
"a running Ray" joins one that is there. The first round, which does not count, fills the file cache
and makes the database.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping

import ray

from benchmarks._charts import bars
from benchmarks._harness import Bench, Figure, Goal, Size, one_ray, own_home

PROGRAM = """
import time
from raflow import flow, task

@task
def first() -> float:
    return time.time()

@flow
def one_task() -> float:
    return first()

print(one_task())
"""
SIZES: Mapping[str, Size] = {}


def seconds_to_first_task(**environment: str) -> float:
    """Return how long it took from here to the end of the task, in seconds."""
    # With bytecode, as an installed package has it, also where a variable keeps Python from writing
    # any; the first round, which does not count, makes it.
    changed = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": tempfile.gettempdir()}
    started = time.time()
    output = subprocess.check_output(
        [sys.executable, "-c", PROGRAM], env=os.environ | changed | environment, text=True
    )
    return float(output) - started


def repeated(bench: Bench, measure: Callable[[], float]) -> list[float]:
    return [1_000 * measure() for _ in range(bench.rounds + 1)][1:]


def main() -> None:
    bench = Bench.from_command_line(__file__, __doc__, SIZES)
    with own_home():
        local = repeated(bench, lambda: seconds_to_first_task(RAFLOW_BACKEND="local"))
        alone = repeated(bench, lambda: seconds_to_first_task(RAFLOW_BACKEND="ray"))
    with one_ray():
        address = ray.get_runtime_context().gcs_address
        joined = repeated(bench, lambda: seconds_to_first_task(RAFLOW_RAY_ADDRESS=address))
    for side, values in {"local": local, "Ray": alone, "a running Ray": joined}.items():
        goal = Goal(at_most=300) if side == "local" else None
        bench.add(
            Figure(
                workload="first task", side=f"raflow, {side}", unit="ms", values=values, goal=goal
            )
        )
    bench.finish()
    bars(bench, bench.figures, label="milliseconds from the start of the process")


if __name__ == "__main__":
    main()
