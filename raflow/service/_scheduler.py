"""What starts the runs of schedules; any number of processes may do it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from raflow.store import Decided, Store

POLL_SECONDS: Final = 1.0
"""Who changes a schedule wakes the loop; if that is lost, this is how long it takes."""
_LEAST_SECONDS: Final = 0.02
"""While another process decides about what has come, it is not asked for without a pause."""

_log = logging.getLogger(__name__)


class Scheduler:
    """Decides about slots when they come, and has backfills go on.

    When that is, the clock of the database says; it is asked again at least each second, so that
    clocks may jump. Nothing is kept here: a process that dies leaves nothing behind, and several do
    not disturb each other.
    """

    def __init__(
        self,
        store: Store,
        *,
        wake: Callable[[str], None] = lambda _: None,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        """Take what it works on.

        Args:
            store: Where schedules and runs are.
            wake: Called after each commit that has decided something: with `pool:NAME` where runs
                wait, `run:ID` if something was asked of one, and `feed`. Default: nothing.
            poll_seconds: How long it is at most until it is to look again. Default: 1.
        """
        self._store = store
        self._wake = wake
        self._poll_seconds = poll_seconds
        self._has_rechecked = False

    def look(self) -> float:
        """Decide about slots that have come, or order runs of backfills, in one transaction.

        Returns:
            In how many seconds to look again; 0 if there may be more.

        Raises:
            StoreError: The database is not there. What comes meanwhile is caught up with as each
                schedule says.
        """
        if not self._has_rechecked:
            self._recheck()
        decided = self._store.schedules.decide_due()
        if decided.schedules:
            self._tell(decided)
            return 0.0
        taken = self._store.backfills.take()
        for pool in sorted(taken.pools):
            self._wake(f"pool:{pool}")
        if taken.more:
            return 0.0
        seconds = self._store.schedules.next_wake()
        if seconds is None:
            return self._poll_seconds
        return min(max(seconds, _LEAST_SECONDS), self._poll_seconds)

    def _tell(self, decided: Decided) -> None:
        for schedule in decided.broken:
            _log.error("Schedule %s is paused: its slots cannot be told", schedule)
        for pool in sorted(decided.pools):
            self._wake(f"pool:{pool}")
        for run in decided.asked:
            self._wake(f"run:{run}")
        self._wake("feed")

    def _recheck(self) -> None:
        moved, broken = self._store.schedules.recheck()
        for schedule in moved:
            _log.warning("The next slot of schedule %s is another by these time zones", schedule)
        for schedule in broken:
            _log.error("Schedule %s is paused: its time zone is no more", schedule)
        self._has_rechecked = True
