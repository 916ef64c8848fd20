"""The same calls on bare Ray: one task per call."""

from __future__ import annotations

from typing import Any, Final

import ray

WINDOW: Final = 5_000
"""So many more are submitted before the results of those before are fetched. Ray takes more memory,
and more time for each, the more tasks it holds."""


@ray.remote(max_retries=0)
def bare(value: int) -> int:
    return value


def bare_calls(tasks: int) -> None:
    pending: list[Any] = []
    for start in range(0, tasks, WINDOW):
        submitted = [bare.remote(number) for number in range(start, min(start + WINDOW, tasks))]
        ray.get(pending)
        pending = submitted
    ray.get(pending)
