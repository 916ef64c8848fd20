"""What tasks may ask of the machine they run on: cores, memory, and things with a name."""

from __future__ import annotations

import math
from typing import Annotated, TypedDict

import numpy as np
from pydantic import Field

from raflow import flow, task, unmapped


class Estimate(TypedDict):
    pi: float
    error: float
    points: int


@task(num_cpus=1, memory="100MB")
def throw(seed: int, points: int) -> int:
    """Throw points at a square and count those inside the circle: one core, 16 bytes a point."""
    x, y = np.random.default_rng(seed).random((2, points))
    return int(np.count_nonzero(x * x + y * y <= 1))


@task(num_cpus=0.1)
def estimate(hits: list[int], points: int) -> Estimate:
    """Turn the counts into π. Next to no work: ten such tasks may share a core."""
    everything = points * len(hits)
    pi = 4 * sum(hits) / everything
    return Estimate(pi=pi, error=abs(pi - math.pi), points=everything)


@task
def plot(result: Estimate) -> str:
    return f"π = {result['pi']:.4f}, on paper"


@flow
def estimate_pi(
    throws: Annotated[int, Field(ge=1)] = 8, points: int = 1_000_000, paper: bool = False
) -> Estimate | str:
    """Estimate π by throwing points at a square.

    Args:
        throws: Number of tasks.
        points: Points that each of them throws.
        paper: Plot the result, which needs a machine with a plotter.
    """
    # Hints stand on the task; with_options changes them where a call needs more, or less.
    sized = throw.with_options(memory=max(100_000_000, 32 * points))
    result = estimate(sized.map(range(throws), points=unmapped(points)), points)
    if paper:
        return plot.with_options(resources={"plotter": 1})(result)
    return result


if __name__ == "__main__":
    print(estimate_pi())
