"""Arrays of a gigabyte between tasks: wall time, and how much of Ray's object store they need.

- passed on: a task makes an array, and five tasks, one after the other, return the array they get;
- read: a task makes an array, and five tasks read it;
- steps: twenty tasks, one after the other, each make a new array of half a gigabyte out of the one
  they get.

The memory of a store is the most it has ever held: the blocks of its file in /dev/shm that were
ever touched, in a Ray of its own for each workload and side. An array that a task gets is "shared"
if it lies in that file and not in a copy. Wall times are taken in turn on one Ray, after a first
round that does not count.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import psutil
import ray

from benchmarks._charts import bars
from benchmarks._harness import Bench, Figure, Goal, Size, check_record, one_ray
from raflow import Flow, flow, task

SIZES = {
    "megabytes": Size(1_000, 10, "size of the array that is passed on and read, in MB"),
    "step_megabytes": Size(500, 10, "size of the array of the twenty steps, in MB"),
}
READERS = 5
STEPS = 20
STORE = "/dev/shm/plasma"

Array: TypeAlias = npt.NDArray[np.float64]


def make(megabytes: int) -> Array:
    return np.ones(megabytes * 125_000)


def same(array: Array) -> Array:
    return array


def add_one(array: Array) -> Array:
    return array + 1.0


def is_shared(array: Array) -> bool:
    """Return whether an array lies in the object store, and not in a copy."""
    address = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        start, _, rest = line.partition("-")
        if int(start, 16) <= address < int(rest.split()[0], 16):
            return STORE in line
    return False


bare: Any = ray.remote(max_retries=0)
bare_make, bare_same, bare_add_one, bare_is_shared = map(bare, (make, same, add_one, is_shared))
made, passed, added, read = task(make), task(same), task(add_one), task(is_shared)


@flow
def pass_on(megabytes: int) -> int:
    array = made(megabytes)
    for _ in range(READERS):
        array = passed(array)
    return int(read(array).result())


@flow
def read_by_many(megabytes: int) -> int:
    array = made(megabytes)
    return sum(future.result() for future in [read(array) for _ in range(READERS)])


@flow
def steps(megabytes: int) -> int:
    array = made(megabytes)
    for _ in range(STEPS):
        array = added(array)
    return int(read(array).result())


def bare_pass_on(megabytes: int) -> int:
    array = bare_make.remote(megabytes)
    for _ in range(READERS):
        array = bare_same.remote(array)
    return int(ray.get(bare_is_shared.remote(array)))


def bare_read_by_many(megabytes: int) -> int:
    array = bare_make.remote(megabytes)
    return sum(ray.get([bare_is_shared.remote(array) for _ in range(READERS)]))


def bare_steps(megabytes: int) -> int:
    array = bare_make.remote(megabytes)
    for _ in range(STEPS):
        array = bare_add_one.remote(array)
    return int(ray.get(bare_is_shared.remote(array)))


Sides: TypeAlias = dict[str, Callable[[int], int]]

WORKLOADS: dict[str, tuple[Callable[[int], int], Flow[[int], int], str]] = {
    "passed on": (bare_pass_on, pass_on, "megabytes"),
    "read": (bare_read_by_many, read_by_many, "megabytes"),
    "steps": (bare_steps, steps, "step_megabytes"),
}
TASKS = {"passed on": READERS + 2, "read": READERS + 1, "steps": STEPS + 2}
READS = {"passed on": 1, "read": READERS, "steps": 1}


def store_peak() -> float:
    """Return the most that the object store of this machine's Ray ever held, in MB."""
    for process in psutil.Process().children(recursive=True):
        if process.name() == "raylet":
            for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
                if os.readlink(descriptor).startswith(STORE):
                    return descriptor.stat().st_blocks * 512 / 1e6
    raise LookupError("There is no raylet with an object store below this process.")


def main() -> None:
    bench = Bench.from_command_line(__file__, __doc__, SIZES)
    for name, (plain, recorded, size) in WORKLOADS.items():
        megabytes = bench.size(size)
        sides: Sides = {"bare Ray": plain, "raflow": recorded}
        bench.times(
            f"{name}, {megabytes:,} MB",
            wall_times(bench, name, sides, megabytes),
            base="bare Ray",
            goals={} if name == "steps" else {"raflow": Goal(at_most=1.05)},
        )
        for side, run in sides.items():
            peak, shared = in_own_ray(run, megabytes)
            bench.add(
                Figure(
                    workload=f"{name}, store",
                    side=side,
                    unit="arrays",
                    values=[peak / megabytes],
                    goal=Goal(at_most=3) if side == "raflow" and name == "steps" else None,
                    note=f"{peak:,.0f} MB; {shared} of {READS[name]} arrays read were shared",
                )
            )
    bench.finish("of bare Ray", packages=("raflow", "ray", "numpy"))
    bars(bench, [figure for figure in bench.figures if figure.unit == "s"], label="seconds")


def wall_times(bench: Bench, name: str, sides: Sides, megabytes: int) -> dict[str, list[float]]:
    with one_ray():
        taken = bench.take_turns(
            {side: partial(run, megabytes) for side, run in sides.items()}, what=name
        )
        check_record(WORKLOADS[name][1].name, TASKS[name])
    return taken


def in_own_ray(run: Callable[[int], int], megabytes: int) -> tuple[float, int]:
    """Return what the store held at most, in MB, and how many arrays were shared."""
    with one_ray():
        shared = run(megabytes)
        return store_peak(), shared


if __name__ == "__main__":
    main()
