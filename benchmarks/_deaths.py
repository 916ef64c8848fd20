"""The flows of `resume.py`, by themselves: a process that runs them imports no more.

Their last task tells when it began, and waits to be killed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from raflow import flow, task

FOREVER = 3600.0


@task
def counted(n: int, journal: str) -> int:
    """Leave a byte, so that what is computed twice is seen."""
    file = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, b".")
    os.close(file)
    return n


@task
def go_on(total: int, told: str) -> int:
    Path(told).write_text(str(time.time()), encoding="utf-8")
    time.sleep(FOREVER)
    return total


@flow
def calls(tasks: int, journal: str, told: str) -> None:
    """Single calls; the body looks at every value."""
    made = [counted(n, journal) for n in range(tasks)]
    go_on(sum(future.result() for future in made), told)


@flow
def items(tasks: int, journal: str, told: str) -> None:
    """A map; the body looks at every value."""
    go_on(sum(counted.map(range(tasks), [journal] * tasks).result()), told)
