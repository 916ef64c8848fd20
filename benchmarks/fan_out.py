"""100,000 independent empty tasks, called one by one.

raflow records every call in SQLite before the flow returns; bare Ray runs one task per call,
records nothing, and fetches every value while it goes on submitting (`WINDOW` calls behind). Both
use one Ray, and take turns. A tenth of the calls on each side, which does not count, warms
everything up.

"raflow, not recorded" has no public switch. It replaces the two writing methods of
`raflow.store.Store`, so that what would be written is dropped where it would reach the database.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks._bare import bare_calls
from benchmarks._charts import bars
from benchmarks._harness import Bench, Figure, Goal, Size, check_record, one_ray
from raflow import flow, task
from raflow.store import Store

SIZES = {"tasks": Size(100_000, 500, "tasks of a run")}


@task
def recorded(value: int) -> int:
    return value


@flow
def fan_out(tasks: int) -> None:
    for number in range(tasks):
        recorded(number)


@contextlib.contextmanager
def nothing_written() -> Iterator[None]:
    apply, append_log = Store.apply, Store.append_log
    Store.apply = lambda *_: True  # type: ignore[method-assign]
    Store.append_log = lambda *_: ("", 0)  # type: ignore[method-assign]
    try:
        yield
    finally:
        Store.apply, Store.append_log = apply, append_log  # type: ignore[method-assign]


def unrecorded_fan_out(tasks: int) -> None:
    with nothing_written():
        fan_out(tasks)


def main() -> None:
    bench = Bench.from_command_line(__file__, __doc__, SIZES)
    tasks = bench.size("tasks")
    sides: dict[str, Callable[[int], object]] = {
        "bare Ray": bare_calls,
        "raflow": fan_out,
        "raflow, not recorded": unrecorded_fan_out,
        "raflow, local threads": fan_out.with_options(backend="local"),
    }
    with one_ray():
        for run in sides.values():
            run(tasks // 10)
        taken = bench.take_turns(
            {side: partial(run, tasks) for side, run in sides.items()}, warm_ups=0
        )
        check_record("fan_out", tasks, newest=2 * bench.rounds)
    bench.rates(
        f"{tasks:,} calls",
        dict.fromkeys(taken, tasks),
        taken,
        base="bare Ray",
        goals={"raflow": Goal(at_least=30)},
    )
    bars(bench, bench.figures, label="tasks per second", log=True)
    on_off = zip(taken["raflow"], taken["raflow, not recorded"], strict=True)
    bench.add(
        Figure(
            workload="cost of recording",
            side="raflow",
            unit="% of throughput",
            values=[100 * (1 - off / on) for on, off in on_off],
            goal=Goal(at_most=15),
        )
    )
    bench.finish("x bare Ray")


if __name__ == "__main__":
    main()
