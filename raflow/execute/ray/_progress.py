"""Finds out which calls of a batch were running when their process died."""

from __future__ import annotations

import logging
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

_log = logging.getLogger(__name__)


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
        try:
            return self._ask(session, batch, time.monotonic() + _MAX_SECONDS)
        except Exception as error:
            # Whatever it is: the batch has to end, with or without an answer.
            _log.debug("The nodes do not say which call was running: %r", error)
            return None

    def _ask(self, session: int, batch: int, deadline: float) -> Sequence[int] | None:
        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]][:_MAX_NODES]
        asked = [
            _READ.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
            ).remote(self.token, session, batch)
            for node in nodes
        ]
        try:
            while asked and (left := deadline - time.monotonic()) > 0:
                ready, asked = ray.wait(asked, num_returns=1, timeout=left)
                for answer in ready:
                    found = _answer(answer)
                    if found is not None:
                        return found
            return None
        finally:
            for unanswered in asked:
                ray.cancel(unanswered, force=True)


def _answer(answer: Any) -> Sequence[int] | None:
    try:
        found: Sequence[int] | None = ray.get(answer)
    except ray.exceptions.RayError:
        return None  # that node died meanwhile
    return found
