"""Finds out which calls of a batch were running when their process died."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any, Final

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raflow.execute.ray import _cells

_MAX_NODES: Final = 64
_MAX_SECONDS: Final = 5.0

_OPTIONS: Final[dict[str, Any]] = {"num_cpus": 0, "max_retries": 0, "enable_task_events": False}
_READ: Final[Any] = ray.remote(**_OPTIONS)(_cells.running)


class Progress:
    """Reads the cells that worker processes leave behind in the memory of their node."""

    def __init__(self, *, is_all_here: bool) -> None:
        """Prepare it.

        Args:
            is_all_here: Whether all worker processes are on this machine.
        """
        self.is_all_here = is_all_here
        self.token = secrets.token_hex(8)
        """The name under which the processes of the backend keep their cells."""

    def close(self) -> None:
        """Remove what the processes of this machine have left."""
        _cells.sweep(self.token)

    def here(self, session: int, batch: int) -> Sequence[int] | None:
        """Return the positions of the calls that ran; None if this machine does not know."""
        return _cells.running(self.token, session, batch)

    def elsewhere(self, session: int, batch: int) -> Sequence[int] | None:
        """Ask the nodes of the cluster; takes up to some seconds."""
        deadline = time.monotonic() + _MAX_SECONDS
        asked: list[Any] = []
        try:
            asked = [
                _READ.options(
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                ).remote(self.token, session, batch)
                for node in [node for node in ray.nodes() if node["Alive"]][:_MAX_NODES]
            ]
            while asked and (left := deadline - time.monotonic()) > 0:
                ready, asked = ray.wait(asked, num_returns=1, timeout=left)
                for answer in ready:
                    found = _answer(answer)
                    if found is not None:
                        return found
        except ray.exceptions.RayError:
            return None  # the cluster itself is gone
        finally:
            for unanswered in asked:
                ray.cancel(unanswered, force=True)
        return None


def _answer(answer: Any) -> Sequence[int] | None:
    try:
        found: Sequence[int] | None = ray.get(answer)
    except ray.exceptions.RayError:
        return None  # that node died meanwhile
    return found
