"""The public Windmill workload: 40 light tasks in a row, fibonacci(10), and 10 long, fibonacci(33).

Every task starts when the one before has ended. "graph": the flow hands over all calls at once,
each after the one before. "loop": the flow waits for each value before it makes the next call
(light tasks only: beside a long one it does not show). The overhead of a task is the wall time of
the flow, record included, less the time inside the tasks, over their number. A first run of each,
which does not count, warms everything up; the published figures are without start-up too.
"""

from __future__ import annotations

import time
from functools import partial

from benchmarks._charts import bars
from benchmarks._harness import Bench, Figure, Goal, Size, check_record, one_ray
from raflow import Flow, TaskFuture, flow, task

SIZES = {
    "light": Size(40, 5, "light tasks"),
    "long": Size(10, 2, "long tasks"),
    "n": Size(33, 20, "fibonacci number of a long task"),
}
PUBLISHED = {
    "Hatchet 0.62": 28,
    "Windmill 1.483": 49,
    "Temporal 2.34": 66,
    "Prefect 2.14": 83,
    "Airflow 2.7.3": 2_600,
}
"""Milliseconds of overhead per light task on an AWS m4.large, from the page "Benchmarks" of
Windmill's documentation: total time less the share that it gives for execution, over the tasks."""


def fibonacci(n: int) -> int:
    return n if n <= 1 else fibonacci(n - 1) + fibonacci(n - 2)


@task
def compute(n: int) -> float:
    """Compute a number; return how long it took."""
    started = time.perf_counter()
    fibonacci(n)
    return time.perf_counter() - started


@flow
def graph(tasks: int, n: int) -> float:
    spent: list[TaskFuture[float]] = []
    for _ in range(tasks):
        spent.append(compute.submit(n, wait_for=spent[-1:]))
    return sum(future.result() for future in spent)


@flow
def loop(tasks: int, n: int) -> float:
    return sum(compute(n).result() for _ in range(tasks))


RUNS = (("light", "graph", graph), ("light", "loop", loop), ("long", "graph", graph))


def collect(spent: list[float], run: Flow[[int, int], float], tasks: int, n: int) -> None:
    spent.append(run(tasks, n))


def main() -> None:
    bench = Bench.from_command_line(__file__, __doc__, SIZES, rounds=5)
    workloads = {"light": (bench.size("light"), 10), "long": (bench.size("long"), bench.size("n"))}
    with one_ray():
        for kind, name, run in RUNS:
            tasks, n = workloads[kind]
            spent: list[float] = []
            walls = bench.take_turns(
                {name: partial(collect, spent, run, tasks, n)}, what=f"{kind} {name}"
            )[name]
            check_record(name, tasks, newest=bench.rounds)
            over = [wall - inside for wall, inside in zip(walls, spent[1:], strict=True)]
            add(bench, f"{tasks} x fibonacci({n})", f"raflow, {name}", tasks, walls, over)
    for side, milliseconds in PUBLISHED.items():
        bench.add(
            Figure(
                workload="published, 40 light",
                side=side,
                unit="ms",
                values=[milliseconds],
                note="overhead per task, as published, another machine",
            )
        )
    bench.finish()
    shown = [figure for figure in bench.figures if figure.unit == "ms"]
    bars(bench, shown, label="milliseconds of overhead per task", log=True)


def add(
    bench: Bench,
    workload: str,
    side: str,
    tasks: int,
    walls: list[float],
    overheads: list[float],
) -> None:
    bench.add(Figure(workload=workload, side=side, unit="s", values=walls, note="total"))
    bench.add(
        Figure(
            workload=workload,
            side=side,
            unit="ms",
            values=[1_000 * overhead / tasks for overhead in overheads],
            goal=Goal(at_most=5),
            note="overhead per task",
        )
    )


if __name__ == "__main__":
    main()
