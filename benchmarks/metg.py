"""METG(50 %): the task length at which the cores are still half busy.

The measure and the graphs are those of Task Bench (Slaughter et al., SC 2020). A graph has `width`
columns and as many rows as there are `steps`; a task takes values of the row before, as its pattern
says, and uses its core for a given processor time. Efficiency is the sum of those times over wall
time and cores; the wall time is that of the whole flow, record included.

For each system and pattern the task length is doubled until the efficiency passes 50 %, and the two
lengths around that are then run in turn, `rounds` times; the crossing between them (on a line over
the logarithm of the length) is the METG of that round. Dask runs in an environment of its own,
after Ray has ended, one process a core; it gets its graph at once.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import ray
from rich.console import Console
from rich.progress import track

from benchmarks._charts import bars, curves
from benchmarks._environments import python_of
from benchmarks._harness import Bench, Figure, Goal, Size, one_ray, timed
from benchmarks._work import PATTERNS, inputs, spin
from raflow import flow, task

SIZES = {
    "width": Size(32, 4, "columns"),
    "steps": Size(150, 3, "rows for raflow"),
    "few": Size(25, 3, "rows for the others, which take longer"),
}
SIDES = ("raflow", "ray", "dask")
SHORTEST, LONGEST = 8e-6, 33e-3
PATIENCE_SECONDS = 30.0
"""No longer length is tried after so long: a machine with other work to do is never half busy."""
BEYOND = 2
"""How many more lengths are tried once the cores are half busy, for the plot."""

Run = Callable[[str, int, int, float], object]
"""Runs a graph: pattern, width, steps, seconds of a task."""


@ray.remote(max_retries=0)
def bare(seconds: float, *_: float) -> float:
    spin(seconds)
    return seconds


@task
def recorded(seconds: float, values: list[float]) -> float:  # noqa: ARG001 - it waits for them
    spin(seconds)
    return seconds


@flow
def graph(pattern: str, width: int, steps: int, seconds: float) -> None:
    row = [recorded(seconds, []) for _ in range(width)]
    for step in range(1, steps):
        row = [
            recorded(seconds, [row[at] for at in inputs(pattern, step, column, width)])
            for column in range(width)
        ]


def bare_graph(pattern: str, width: int, steps: int, seconds: float) -> None:
    made = row = [bare.remote(seconds) for _ in range(width)]
    for step in range(1, steps):
        row = [
            bare.remote(seconds, *[row[at] for at in inputs(pattern, step, column, width)])
            for column in range(width)
        ]
        made = made + row
    ray.get(made)


class Found(NamedTuple):
    """What was found for one system and pattern."""

    crossings: list[float]
    """METG of each round, in seconds."""
    curve: list[tuple[float, float]]
    """Task length and efficiency of the sweep."""

    @property
    def note(self) -> str:
        longest = self.curve[-1][0]
        reached = any(efficiency >= 0.5 for _, efficiency in self.curve)
        return "" if reached else f"never half busy up to {1e3 * longest:.0f} ms"


@contextlib.contextmanager
def dask_graph(cores: int) -> Iterator[Run]:
    """Keep a Dask cluster in a process of its own; a line of JSON asks it for a run."""
    command = [str(python_of("dask")), "-m", "benchmarks.peer_programs.dask_graphs", str(cores)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asking, answers = process.stdin, process.stdout

        def run(pattern: str, width: int, steps: int, seconds: float) -> None:
            print(json.dumps([pattern, width, steps, seconds]), file=asking, flush=True)
            done = json.loads(answers.readline())
            if done != width * steps:
                raise RuntimeError(f"Dask ran {done} tasks of {width * steps}.")

        yield run
        asking.close()


def measure(bench: Bench, cores: int, run: Run, pattern: str, steps: int) -> Found:
    """Find the METG of one system and pattern."""
    width = bench.size("width")

    def efficiency(seconds: float) -> float:
        wall = timed(lambda: run(pattern, width, steps, seconds))
        return width * steps * seconds / (wall * cores)

    curve = sweep(efficiency)
    half = next((at for at, point in enumerate(curve) if point[1] >= 0.5), None)
    if half is None:
        return Found([curve[-1][0]], curve)
    (short, _), (long, _) = curve[max(half - 1, 0)], curve[half]
    crossings = [
        crossing((short, efficiency(short)), (long, efficiency(long))) for _ in range(bench.rounds)
    ]
    return Found(crossings, curve)


def sweep(efficiency: Callable[[float], float]) -> list[tuple[float, float]]:
    """Double the length until the cores are more than half busy, and `BEYOND` times more."""
    efficiency(SHORTEST)  # warms up
    curve: list[tuple[float, float]] = []
    seconds, busy, started = SHORTEST, 0, time.monotonic()
    while seconds <= LONGEST and busy <= BEYOND and time.monotonic() < started + PATIENCE_SECONDS:
        curve.append((seconds, efficiency(seconds)))
        busy += curve[-1][1] >= 0.5
        seconds *= 2
    return curve


def crossing(shorter: tuple[float, float], longer: tuple[float, float]) -> float:
    """Return where the line through two `(length, efficiency)` is at one half.

    If both are on the same side of it: not below half of the shorter, nor above twice the longer.
    """
    (low, below), (high, above) = shorter, longer
    if above <= below:
        return high
    share = min(max((0.5 - below) / (above - below), -1.0), 2.0)
    return float(low * (high / low) ** share)


def main() -> None:
    bench = Bench.from_command_line(__file__, __doc__, SIZES, sides=SIDES)
    few, many = bench.size("few"), bench.size("steps")
    found: dict[tuple[str, str], Found] = {}
    with one_ray() as cores:
        for pattern in track(PATTERNS, "raflow, ray", console=Console(stderr=True)):
            if bench.wants("raflow"):
                found[pattern, "raflow"] = measure(bench, cores, graph, pattern, many)
            if bench.wants("ray"):
                found[pattern, "bare Ray"] = measure(bench, cores, bare_graph, pattern, few)
    if bench.wants("dask"):
        with dask_graph(cores) as dask:
            for pattern in track(PATTERNS, "dask", console=Console(stderr=True)):
                found[pattern, "Dask"] = measure(bench, cores, dask, pattern, few)
    report(bench, found)


def report(bench: Bench, found: Mapping[tuple[str, str], Found]) -> None:
    for pattern in PATTERNS:
        lines = {side: what for (where, side), what in found.items() if where == pattern}
        for side, what in lines.items():
            goal = Goal(at_most=100 if pattern == "trivial" else 500)
            bench.add(
                Figure(
                    workload=pattern,
                    side=side,
                    unit="µs",
                    values=[1e6 * seconds for seconds in what.crossings],
                    goal=goal if side == "raflow" else None,
                    note=what.note,
                )
            )
    bench.finish(
        curves=[{"pattern": p, "side": s, "points": f.curve} for (p, s), f in found.items()]
    )
    bars(bench, bench.figures, label="METG(50 %), microseconds: shorter is better", log=True)
    curves(
        bench,
        "metg_curves",
        {
            pattern: {side: what.curve for (where, side), what in found.items() if where == pattern}
            for pattern in PATTERNS
        },
        title="Task Bench",
        labels=("length of a task", "share of the cores that is busy"),
        level=0.5,
    )


if __name__ == "__main__":
    main()
