"""From `raflow resume` to the first new task of a run with 10,000 finished ones.

Its process is killed when all of them are on record and the last task has begun. Then each round
types `raflow resume`, waits until that task begins anew, and kills the process again. What was
computed twice is counted by the tasks themselves. The first round, which does not count, fills the
file cache.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import ray

from benchmarks._charts import bars
from benchmarks._harness import Bench, Figure, Goal, Size, one_ray, own_home

SIZES = {"tasks": Size(10_000, 200, "finished tasks")}
PATIENCE = 120.0


class Victim:
    """A run that is killed and resumed, again and again."""

    def __init__(self, kind: str, tasks: int, home: Path, environment: Mapping[str, str]) -> None:
        self.tasks = tasks
        self.journal, self.told = home / "journal", home / "told"
        changed = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": tempfile.gettempdir()}
        self.environment = {**os.environ, **changed, **environment}
        parameters = {"tasks": tasks, "journal": self.journal, "told": self.told}
        given = [f"--param={name}={value}" for name, value in parameters.items()]
        self.kill(self.start("run", f"benchmarks._deaths:{kind}", *given))

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start raflow, and wait until the last task has begun."""
        self.told.unlink(missing_ok=True)
        command = [sys.executable, "-m", "raflow", *arguments, "--quiet"]
        process = subprocess.Popen(command, env=self.environment, start_new_session=True)
        deadline = time.monotonic() + PATIENCE
        while not (self.told.exists() and self.told.read_text(encoding="utf-8")):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                sys.exit(f"{' '.join(command)} did not come to its last task.")
            time.sleep(0.01)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill it as soon as all is on record."""
        time.sleep(1.0)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def resume(self) -> float:
        """Return the seconds from the start of a process to the beginning of the new task."""
        started = time.time()
        process = self.start("resume", "latest")
        begun = float(self.told.read_text(encoding="utf-8"))
        self.kill(process)
        return begun - started

    @property
    def recomputed(self) -> int:
        return self.journal.stat().st_size - self.tasks


@contextlib.contextmanager
def surroundings(where: str) -> Iterator[Mapping[str, str]]:
    """Give the variables of processes that run tasks there."""
    if where == "a running Ray":
        with one_ray():
            yield {"RAFLOW_RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    else:
        with own_home():
            yield {"RAFLOW_BACKEND": "local" if where == "local" else "ray"}


def measure(bench: Bench, kind: str, where: str) -> Figure:
    with surroundings(where) as environment:
        home = Path(os.environ["RAFLOW_HOME"])
        victim = Victim(kind, bench.size("tasks"), home, environment)
        values = [victim.resume() for _ in range(bench.rounds + 1)][1:]
        recomputed = victim.recomputed
    return Figure(
        workload=f"{victim.tasks:,} {kind}",
        side=f"raflow, {where}",
        unit="s",
        values=values,
        goal=Goal(at_most=5.0),
        note=f"{recomputed} recomputed",
    )


def main() -> None:
    bench = Bench.from_command_line(__file__, __doc__, SIZES)
    for kind in ("calls", "items"):
        for where in ("local", "Ray", "a running Ray"):
            bench.add(measure(bench, kind, where))
    bench.finish()
    bars(bench, bench.figures, label="seconds from `raflow resume` to the first new task")


if __name__ == "__main__":
    main()
