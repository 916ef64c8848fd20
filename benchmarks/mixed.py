"""5,000 tasks of very different lengths: log-normal, from 0.1 ms to 2 s, in random order.

The makespan is compared to its lower bound, the larger of work over cores and the longest task.
Tasks use processor time (see `_work.spin`), about a minute of it in all with the median of 1.6 ms
and the sigma of 2 that is set here; the seed makes them the same in every run. The first round,
which does not count, warms everything up, for raflow on a tenth of the tasks only: no length is
known in advance.
"""

from __future__ import annotations

import math
import random

import ray

from benchmarks._charts import bars
from benchmarks._harness import Bench, Figure, Goal, Size, check_record, one_ray
from benchmarks._work import spin
from raflow import flow, task

SIZES = {"tasks": Size(5_000, 60, "tasks")}
SEED = 8
MEDIAN, SIGMA = 1.6e-3, 2.0
SHORTEST, LONGEST = 1e-4, 2.0


@ray.remote(max_retries=0)
def bare(seconds: float) -> None:
    spin(seconds)


@task
def recorded(seconds: float) -> None:
    spin(seconds)


@flow
def mixed(lengths: list[float]) -> None:
    for seconds in lengths:
        recorded(seconds)


def bare_mixed(lengths: list[float]) -> None:
    ray.get([bare.remote(seconds) for seconds in lengths])


def draw(count: int) -> list[float]:
    source = random.Random(SEED)
    drawn = [source.lognormvariate(math.log(MEDIAN), SIGMA) for _ in range(count)]
    return [min(max(seconds, SHORTEST), LONGEST) for seconds in drawn]


def main() -> None:
    bench = Bench.from_command_line(__file__, __doc__, SIZES)
    lengths = draw(bench.size("tasks"))
    few = lengths[: len(lengths) // 10]
    with one_ray() as cores:
        bare_mixed(few)
        mixed(few)
        taken = bench.take_turns(
            {"bare Ray": lambda: bare_mixed(lengths), "raflow": lambda: mixed(lengths)}, warm_ups=0
        )
        check_record("mixed", len(lengths), newest=bench.rounds)
    bound = max(sum(lengths) / cores, *lengths)
    for side, walls in taken.items():
        bench.add(
            Figure(
                workload=f"{len(lengths):,} tasks, {sum(lengths):.0f} s of work",
                side=side,
                unit="x lower bound",
                values=[wall / bound for wall in walls],
                goal=Goal(at_most=1.1) if side == "raflow" else None,
                note=f"the bound is {bound:.1f} s, the longest task {max(lengths):.2f} s",
            )
        )
    bench.finish(lower_bound=bound)
    bars(bench, bench.figures, label="makespan over its lower bound")


if __name__ == "__main__":
    main()
