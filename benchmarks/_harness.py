"""What the benchmarks share: the command line, rounds that take turns, the table and the JSON."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import gc
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from rich.console import Console
from rich.progress import track
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


class Size(NamedTuple):
    """A number on the command line: how large a workload is."""

    full: float
    quick: float
    """With `--quick`."""
    help: str


class Goal(NamedTuple):
    """What a figure should reach: its ratio, or its median if it has none."""

    at_least: float | None = None
    at_most: float | None = None

    def reached(self, value: float) -> bool:
        enough = self.at_least is None or value >= self.at_least
        return enough and (self.at_most is None or value <= self.at_most)

    def __str__(self) -> str:
        if self.at_least is not None:
            return f"≥ {number(self.at_least)}"
        return f"≤ {number(self.at_most or 0.0)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What was measured of one side of a workload."""

    workload: str
    side: str
    unit: str
    values: Sequence[float]
    """One a round."""
    ratio: float | None = None
    """What it is a ratio of stands in the head of the table."""
    goal: Goal | None = None
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def reached(self) -> bool | None:
        if self.goal is None:
            return None
        return self.goal.reached(self.median if self.ratio is None else self.ratio)

    def as_json(self) -> dict[str, object]:
        return {
            "workload": self.workload,
            "side": self.side,
            "unit": self.unit,
            "median": self.median,
            "least": min(self.values),
            "most": max(self.values),
            "values": list(self.values),
            "ratio": self.ratio,
            "goal": str(self.goal) if self.goal else None,
            "reached": self.reached,
            "note": self.note,
        }


NO_GOALS: Mapping[str, Goal] = MappingProxyType({})
NO_NOTES: Mapping[str, str] = MappingProxyType({})


@dataclass(slots=True)
class Bench:
    """One script: what it was asked for, and what it found."""

    name: str
    title: str
    rounds: int
    sizes: Mapping[str, float]
    out: Path | None
    """Where the JSON and the plots go."""
    only: Sequence[str] = ()
    """Sides that were asked for; all if there are none."""
    figures: list[Figure] = field(default_factory=list)
    load_before: float = field(default_factory=lambda: os.getloadavg()[0])

    @classmethod
    def from_command_line(
        cls,
        file: str,
        doc: str | None,
        sizes: Mapping[str, Size],
        *,
        rounds: int = 5,
        sides: Sequence[str] = (),
    ) -> Bench:
        """Read `--quick`, `--rounds`, `--out`, the sizes and the sides to run.

        Args:
            file: The script.
            doc: Its docstring: what `--help` says.
            sizes: Options of its own, with a default for the full run and one for `--quick`.
            rounds: Default of `--rounds`.
            sides: What can be run alone. Default: it is all or nothing.
        """
        title, _, _ = (doc or "").partition("\n")
        parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{Path(file).stem}")
        parser.description = doc
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.add_argument("--quick", action="store_true", help="small, one round, no files")
        parser.add_argument("--rounds", type=int, help=f"rounds that count; default {rounds}")
        parser.add_argument("--out", type=Path, help="for JSON and plots; default: results/")
        for name, size in sizes.items():
            parser.add_argument(
                f"--{name.replace('_', '-')}",
                type=type(size.full),
                help=f"{size.help}; default {size.full:,}",
            )
        if sides:
            parser.add_argument("only", nargs="*", choices=[*sides, []], help="default: all")
        given = parser.parse_args()
        return cls(
            name=Path(file).stem,
            title=title.rstrip("."),
            rounds=given.rounds or (1 if given.quick else rounds),
            sizes={
                name: getattr(given, name) or (size.quick if given.quick else size.full)
                for name, size in sizes.items()
            },
            out=given.out or (None if given.quick else RESULTS),
            only=given.only if sides else (),
        )

    def size(self, name: str) -> int:
        return int(self.sizes[name])

    def wants(self, side: str) -> bool:
        return not self.only or side in self.only

    def take_turns(
        self,
        sides: Mapping[str, Callable[[], object]],
        *,
        warm_ups: int = 1,
        what: str = "",
    ) -> dict[str, list[float]]:
        """Run every side once a round and return their seconds.

        Every other round goes backwards, so that no side always follows the same other one.
        """
        taken: dict[str, list[float]] = {side: [] for side in sides}
        rounds = range(-warm_ups, self.rounds)
        for turn in track(rounds, description=what or self.name, console=Console(stderr=True)):
            for side in list(sides)[:: -1 if turn % 2 else 1]:
                seconds = timed(sides[side])
                if turn >= 0:
                    taken[side].append(seconds)
        return taken

    def rates(
        self,
        workload: str,
        tasks: Mapping[str, int],
        taken: Mapping[str, Sequence[float]],
        *,
        base: str,
        goals: Mapping[str, Goal] = NO_GOALS,
        notes: Mapping[str, str] = NO_NOTES,
    ) -> None:
        """Add how many tasks a second each side ran; the ratio is the side's to that of `base`."""
        values = {side: [tasks[side] / seconds for seconds in taken[side]] for side in taken}
        self._compare(workload, values, "tasks/s", base, goals, notes)

    def times(
        self,
        workload: str,
        taken: Mapping[str, Sequence[float]],
        *,
        base: str,
        goals: Mapping[str, Goal] = NO_GOALS,
        notes: Mapping[str, str] = NO_NOTES,
    ) -> None:
        """Add how long each side took; the ratio is the side's to that of `base`."""
        self._compare(workload, taken, "s", base, goals, notes)

    def _compare(
        self,
        workload: str,
        values: Mapping[str, Sequence[float]],
        unit: str,
        base: str,
        goals: Mapping[str, Goal],
        notes: Mapping[str, str],
    ) -> None:
        for side in values:
            self.add(
                Figure(
                    workload=workload,
                    side=side,
                    unit=unit,
                    values=values[side],
                    ratio=statistics.median(values[side]) / statistics.median(values[base]),
                    goal=goals.get(side),
                    note=notes.get(side, ""),
                )
            )

    def add(self, figure: Figure) -> None:
        self.figures.append(figure)

    def finish(
        self, ratio: str = "", *, packages: Sequence[str] = ("raflow", "ray"), **more: object
    ) -> None:
        """Print the table and write `<name>.json`.

        Args:
            ratio: What the ratios mean, if there are any.
            packages: Whose versions matter.
            **more: Whatever else was found.
        """
        self._show(ratio)
        if self.out is not None:
            self._save(self.out, {"ratio": ratio, "machine": self._machine(packages), **more})

    def _show(self, ratio: str) -> None:
        table = Table(title=f"{self.title} (median of {self.rounds})", title_justify="left")
        for column in ("workload", "side"):
            table.add_column(column)
        for column in ("median", "least", "most"):
            table.add_column(column, justify="right")
        for column in ("unit", *([ratio] if ratio else []), "goal", "note"):
            table.add_column(column)
        for figure in self.figures:
            mark = {None: "", True: " ✓", False: " ✗"}[figure.reached]
            shown = [] if not ratio else ["" if figure.ratio is None else number(figure.ratio)]
            table.add_row(
                figure.workload,
                figure.side,
                number(figure.median),
                number(min(figure.values)),
                number(max(figure.values)),
                figure.unit,
                *shown,
                f"{figure.goal}{mark}" if figure.goal else "",
                figure.note,
            )
        Console(width=None if sys.stdout.isatty() else 150).print(table)

    def _machine(self, packages: Sequence[str]) -> dict[str, object]:
        return machine(packages) | {"load_before": round(self.load_before, 2)}

    def _save(self, out: Path, more: Mapping[str, object]) -> None:
        out.mkdir(parents=True, exist_ok=True)
        report = {
            "script": self.name,
            "title": self.title,
            "command": f"python -m benchmarks.{self.name} {' '.join(_shown(sys.argv[1:]))}".strip(),
            "taken_on": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "rounds": self.rounds,
            "sizes": dict(self.sizes),
            "figures": [figure.as_json() for figure in self.figures],
            **more,
        }
        text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
        (out / f"{self.name}.json").write_text(text, encoding="utf-8")


def timed(run: Callable[[], object]) -> float:
    """Return how many seconds something takes; garbage left by others is collected before."""
    gc.collect()
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def number(value: float) -> str:
    """Write a number with three digits that matter."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}" if value else "0"


def machine(packages: Sequence[str]) -> dict[str, object]:
    return {
        "cpus": os.cpu_count(),
        "processor": processor(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages},
    }


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


@contextlib.contextmanager
def own_home() -> Iterator[Path]:
    """Let raflow keep its record, in SQLite as always, in a directory that goes away afterwards."""
    with tempfile.TemporaryDirectory(prefix="raflow-benchmark-") as home:
        os.environ["RAFLOW_HOME"] = home
        os.environ.pop("RAFLOW_DATABASE_URL", None)
        yield Path(home)


@contextlib.contextmanager
def one_ray() -> Iterator[int]:
    """Start the Ray that both sides use, and the home of raflow's record; give its cores."""
    import ray

    from raflow import config, runtime

    with own_home():
        runtime.open_backend("ray", config.load())
        try:
            yield int(ray.cluster_resources()["CPU"])
        finally:
            runtime.shutdown()


def check_record(flow: str, tasks: int, *, newest: int | None = None) -> None:
    """End the script unless the record of each run of a flow has all its task runs, completed.

    Args:
        flow: Name of the flow.
        tasks: How many task runs each has.
        newest: Look at so many of the newest runs. Default: all.
    """
    from raflow import config
    from raflow.model import StateType
    from raflow.store import Store

    settings = config.load()
    with Store.open(settings.database, log_dir=settings.logs) as store:
        runs = store.flow_runs(flow=flow, limit=newest)
        if not runs:
            sys.exit(f"There is no record of a run of {flow!r}.")
        for run in runs:
            counts = store.task_run_counts(run.id).values()
            completed = sum(states.get(StateType.COMPLETED, 0) for states in counts)
            if completed != tasks:
                sys.exit(f"{run.id} of {flow!r} has {completed:,} of {tasks:,} tasks on record.")


def _shown(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of a command without the directory that the results go to."""
    left = list(arguments)
    if "--out" in left:
        at = left.index("--out")
        del left[at : at + 2]
    return left
