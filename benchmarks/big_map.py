"""1,000,000 empty tasks: as a map, as a map after a map, and called one by one in a loop.

Bare Ray runs `bare` tasks, and its rate is compared: a million take it ten minutes, and its cost
per task does not fall with their number. The growth of the driver is how far its resident memory
rose above where it stood before the run, at its highest (`VmHWM`, shared memory included). A small
run of each, which does not count, warms everything up.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

from benchmarks._bare import bare_calls
from benchmarks._charts import bars
from benchmarks._harness import Bench, Figure, Goal, Size, check_record, one_ray
from raflow import flow, task

WARM_UP = 2_000
SIZES = {
    "tasks": Size(1_000_000, 5_000, "items, and calls, of a run"),
    "bare": Size(20_000, 500, "tasks of bare Ray"),
}


@task
def recorded(value: int) -> int:
    return value


@flow
def one_map(tasks: int) -> None:
    recorded.map(range(tasks))


@flow
def map_after_map(tasks: int) -> None:
    recorded.map(recorded.map(range(tasks // 2)))


@flow
def calls(tasks: int) -> None:
    for number in range(tasks):
        recorded(number)


FLOWS = {"map": one_map, "map after map": map_after_map, "calls in a loop": calls}


def growth(run: Callable[[], object]) -> float:
    """Return how far the memory of this process rises while something runs, in MB."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = status("VmRSS")
    run()
    return status("VmHWM") - before


def status(name: str) -> float:
    """Return a size of this process, in MB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise LookupError(name)


def main() -> None:
    bench = Bench.from_command_line(__file__, __doc__, SIZES)
    tasks, bare_tasks = bench.size("tasks"), bench.size("bare")
    grown: dict[str, list[float]] = {name: [] for name in FLOWS}

    def watched(name: str) -> Callable[[], None]:
        return lambda: grown[name].append(growth(lambda: FLOWS[name](tasks)))

    with one_ray():
        bare_calls(WARM_UP)
        for flow_of in FLOWS.values():
            flow_of(WARM_UP)
        taken = bench.take_turns(
            {"bare Ray": lambda: bare_calls(bare_tasks), **{name: watched(name) for name in FLOWS}},
            warm_ups=0,
        )
        for flow_of in FLOWS.values():
            check_record(flow_of.name, tasks, newest=bench.rounds)
    for name in FLOWS:
        bench.rates(
            f"{name}, {tasks:,}",
            {"bare Ray": bare_tasks, "raflow": tasks},
            {"bare Ray": taken["bare Ray"], "raflow": taken[name]},
            base="bare Ray",
            goals={"raflow": Goal(at_least=100)} if name == "map" else {},
            notes={"bare Ray": f"of {bare_tasks:,} tasks"},
        )
    bars(bench, bench.figures, label="tasks per second", log=True)
    for name, values in grown.items():
        bench.add(
            Figure(
                workload=f"{name}, {tasks:,}",
                side="raflow, growth of the driver",
                unit="MB",
                values=values,
                goal=Goal(at_most=300),
            )
        )
    bench.finish("x bare Ray")


if __name__ == "__main__":
    main()
