"""What a run has of its own past, and how it makes sure of its present."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from raflow.model import TaskRunKey
from raflow.runtime.calls import Value
from raflow.runtime.recall import Recall, RerunRecall, Reuse


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a run has of its own past, and how it makes sure of its present."""

    recall: Recall | Reuse | RerunRecall | None
    """What earlier processes of the run, or another run, have left; None: there were none."""
    look_back: Callable[[], Future[Recall]]
    """Reads what is recorded of the run by now."""
    commit: Callable[[], None]
    """Waits until all that was recorded so far is on disk."""
    is_durable: bool
    """Whether nothing may start before the results that it needs are on disk."""
    values: dict[TaskRunKey, Value]
    """What an earlier attempt in this process has computed and not kept; taken once."""

    def make_sure(self) -> None:
        """See to it that what was recorded is on disk, if others may only then learn of it."""
        if self.is_durable:
            self.commit()
