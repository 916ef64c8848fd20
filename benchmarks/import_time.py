"""What `import raflow` costs, next to the packages it stands on.

Every import runs in a fresh interpreter; the time of an interpreter that imports nothing is
measured in the same round and taken off. The first round, which does not count, fills the file
cache.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from functools import partial

from benchmarks._charts import bars
from benchmarks._harness import Bench, Figure, Size

STATEMENTS = (
    "import raflow",
    "from raflow import flow, task",
    "import pydantic",
    "import sqlalchemy",
    "import ray",
)
SIZES: Mapping[str, Size] = {}


def start(statement: str) -> None:
    subprocess.run([sys.executable, "-c", statement], check=True)


def modules_of(statement: str) -> int:
    script = f"import sys; before = len(sys.modules)\n{statement}\nprint(len(sys.modules) - before)"
    return int(subprocess.check_output([sys.executable, "-c", script]))


def main() -> None:
    bench = Bench.from_command_line(__file__, __doc__, SIZES, rounds=9)
    taken = bench.take_turns({name: partial(start, name) for name in ("pass", *STATEMENTS)})
    for statement in STATEMENTS:
        bench.add(
            Figure(
                workload="import",
                side=statement,
                unit="ms",
                values=[
                    1_000 * (with_it - without)
                    for with_it, without in zip(taken[statement], taken["pass"], strict=True)
                ],
                note=f"{modules_of(statement):,} modules",
            )
        )
    bench.finish(packages=("raflow", "pydantic", "sqlalchemy", "ray"))
    bars(bench, bench.figures, label="milliseconds over an empty interpreter")


if __name__ == "__main__":
    main()
