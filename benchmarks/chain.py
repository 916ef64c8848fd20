"""1,000 empty tasks, each of which takes the value of the one before.

Bare Ray gets the whole chain of references at once and fetches the last value; raflow records every
task before it returns the last value. The first round, which does not count, warms everything up.
"""

from __future__ import annotations

import ray

from benchmarks._charts import bars
from benchmarks._harness import Bench, Goal, Size, check_record, one_ray
from raflow import flow, task

SIZES = {"tasks": Size(1_000, 50, "tasks of a chain")}


@ray.remote(max_retries=0)
def bare(value: int) -> int:
    return value + 1


@task
def recorded(value: int) -> int:
    return value + 1


@flow
def chain(tasks: int) -> int:
    value = recorded(0)
    for _ in range(tasks - 1):
        value = recorded(value)
    return value.result()


def bare_chain(tasks: int) -> int:
    value = bare.remote(0)
    for _ in range(tasks - 1):
        value = bare.remote(value)
    last: int = ray.get(value)
    return last


def main() -> None:
    bench = Bench.from_command_line(__file__, __doc__, SIZES, rounds=7)
    tasks = bench.size("tasks")
    local = chain.with_options(backend="local")
    with one_ray():
        taken = bench.take_turns(
            {
                "bare Ray": lambda: bare_chain(tasks),
                "raflow": lambda: chain(tasks),
                "raflow, local threads": lambda: local(tasks),
            }
        )
        check_record("chain", tasks)
    bench.times(f"chain of {tasks:,}", taken, base="bare Ray", goals={"raflow": Goal(at_most=0.5)})
    bench.finish("of bare Ray")
    bars(bench, bench.figures, label="seconds")


if __name__ == "__main__":
    main()
