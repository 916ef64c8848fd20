"""Tasks of one length: 600 of 10 ms, 60 of 100 ms, 10 of 1 s, against the best possible wall time.

The best is the work over the cores. "spin" uses its core for the given processor time, so what the
driver, Ray and the recorder use comes on top. "sleep" only waits, in as many places as there are
cores: what is left is what the scheduling itself loses. A few tasks on each side, which do not
count, warm everything up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import ray

from benchmarks._charts import bars
from benchmarks._harness import Bench, Figure, Goal, Size, check_record, one_ray
from benchmarks._work import spin
from raflow import Flow, flow, task

SIZES = {"scale": Size(1.0, 0.04, "share of the tasks to run")}
WORKLOADS = {"600 x 10 ms": (600, 0.01), "60 x 100 ms": (60, 0.1), "10 x 1 s": (10, 1.0)}


@ray.remote(max_retries=0)
def bare_spin(seconds: float) -> None:
    spin(seconds)


@ray.remote(max_retries=0)
def bare_sleep(seconds: float) -> None:
    time.sleep(seconds)


@task
def recorded_spin(seconds: float) -> None:
    spin(seconds)


@task
def recorded_sleep(seconds: float) -> None:
    time.sleep(seconds)


@flow
def spinning(tasks: int, seconds: float) -> None:
    for _ in range(tasks):
        recorded_spin(seconds)


@flow
def sleeping(tasks: int, seconds: float) -> None:
    for _ in range(tasks):
        recorded_sleep(seconds)


def bare_spinning(tasks: int, seconds: float) -> None:
    ray.get([bare_spin.remote(seconds) for _ in range(tasks)])


def bare_sleeping(tasks: int, seconds: float) -> None:
    ray.get([bare_sleep.remote(seconds) for _ in range(tasks)])


KINDS: dict[str, tuple[Callable[[int, float], None], Flow[[int, float], None]]] = {
    "spin": (bare_spinning, spinning),
    "sleep": (bare_sleeping, sleeping),
}


def main() -> None:
    bench = Bench.from_command_line(__file__, __doc__, SIZES)
    with one_ray() as cores:
        for kind, (bare, recorded) in KINDS.items():
            for name, (count, seconds) in WORKLOADS.items():
                tasks = max(cores, round(count * bench.sizes["scale"]))
                sides = {
                    "bare Ray": partial(bare, tasks, seconds),
                    "raflow": partial(recorded, tasks, seconds),
                }
                bare(2 * cores, seconds)
                recorded(2 * cores, seconds)
                taken = bench.take_turns(sides, warm_ups=0, what=f"{kind} {name}")
                check_record(recorded.name, tasks, newest=bench.rounds)
                best = -(-tasks // cores) * seconds
                add(bench, f"{kind}, {tasks} x {name.partition(' x ')[2]}", taken, best)
    bench.finish()
    bars(bench, bench.figures, label="share of the best possible wall time")


def add(bench: Bench, workload: str, taken: dict[str, list[float]], best: float) -> None:
    for side, walls in taken.items():
        bench.add(
            Figure(
                workload=workload,
                side=side,
                unit="of the best",
                values=[best / wall for wall in walls],
                goal=Goal(at_least=0.95) if side == "raflow" else None,
                note=f"the best is {best:.2f} s",
            )
        )


if __name__ == "__main__":
    main()
