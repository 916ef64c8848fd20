"""Work of a known length, and the graphs of Task Bench. Standard library only: peers use it too."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence

PATTERNS = ("trivial", "stencil", "tree", "fft", "random-nearest")
RADIUS = 1
CONNECTED = 0.25


def spin(seconds: float) -> None:
    """Use a core for so long.

    Counts processor time, not time on the clock: a task that has to share its core takes longer,
    so that what the system itself uses is never taken for work.
    """
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def inputs(pattern: str, step: int, column: int, width: int) -> Sequence[int]:
    """Return the columns of the step before whose values a task takes, as Task Bench has them.

    Args:
        pattern: One of `PATTERNS`.
        step: Row of the task, from 0; the first has no inputs.
        column: Column of the task.
        width: Columns of a row.
    """
    if step == 0 or pattern == "trivial":
        return ()
    if pattern == "tree":
        return (column // 2,)
    if pattern == "fft":
        stages = max(1, math.ceil(math.log2(width)))
        distance = 1 << (step + stages - 1) % stages
        wanted: Sequence[int] = (column - distance, column, column + distance)
    else:
        wanted = range(column - RADIUS, column + RADIUS + 1)
    near = [at for at in wanted if 0 <= at < width]
    if pattern != "random-nearest":
        return near
    chance = random.Random(f"{step} {column}")
    return [at for at in near if at == column or chance.random() < CONNECTED]
