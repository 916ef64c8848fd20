"""Where a run asks others: for slots of limits, for values that were computed before, for input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from raflow.model import FlowRun
from raflow.runtime.desk._cache import Cache
from raflow.runtime.desk._people import People
from raflow.runtime.desk._slots import Slots
from raflow.runtime.record import LazyStore, Recorder, Steward


class Desk:
    """What one run asks of the store; it never blocks the thread that drives the run."""

    def __init__(
        self,
        run: FlowRun,
        parameters: Mapping[str, Any],
        *,
        store: LazyStore,
        steward: Steward,
        recorder: Recorder,
        post: Callable[[Any], None],
        clock: Callable[[], float],
        refreshes: bool = False,
    ) -> None:
        """Open it for a run; answers come by `post`.

        With `refreshes` no value is looked for: all are computed, and kept for others.
        """
        self.slots = Slots(run, store=store, steward=steward)
        self.cache = Cache(
            run,
            parameters,
            store=store,
            steward=steward,
            recorder=recorder,
            post=post,
            clock=clock,
            refreshes=refreshes,
        )
        self.people = People(run, store=store, steward=steward, recorder=recorder, clock=clock)

    @property
    def holds_something(self) -> bool:
        """Whether there are slots, or claims, to renew."""
        return self.slots.is_in_use or self.cache.is_in_use

    def close(self) -> None:
        """Give back all that is held, once the steward has closed."""
        self.cache.close()
        self.slots.close()
