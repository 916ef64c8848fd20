"""Looking after runs that nobody looks after: late, dead, or waiting for an answer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

from raflow import errors
from raflow.store import Store

LATE_SECONDS: Final = 15.0
_EVERY_SECONDS: Final = 1.0
_SILENCE: Final = 10.0
"""After so long without a look nobody can have renewed anything: nobody is judged at once."""


class Reaper:
    """Looks after runs of deployments. Several may do so at the same time, over one store."""

    def __init__(
        self,
        store: Store,
        *,
        wake: Callable[[str], None] = lambda _: None,
        late_seconds: float = LATE_SECONDS,
    ) -> None:
        """Take what it works on.

        Args:
            store: The record.
            wake: Called with `pool:NAME` when runs of a pool may be taken. Default: nothing.
            late_seconds: How long after its time a run is late that no worker has taken.
        """
        self._store = store
        self._wake = wake
        self._late_seconds = late_seconds

    def look(self) -> float:
        """Look once.

        Returns:
            In how many seconds to look again.

        Raises:
            StoreError: The database is not there; what was done counts.
        """
        if self._store.work.forgive(silence=_SILENCE):
            return _EVERY_SECONDS
        self._take_from_the_dead()
        self._give_default_answers()
        self._store.work.release_held()
        self._store.work.mark_late(seconds=self._late_seconds)
        return _EVERY_SECONDS

    def _take_from_the_dead(self) -> None:
        for worker in self._store.work.lost_workers():
            if self._store.work.worker_gone(worker.id):
                self._wake(f"pool:{worker.pool}")
        for dead in self._store.work.dead():
            message = f"its process on worker {dead.worker_id!r} has not been heard of"
            if self._store.work.put_back(dead.flow_run_id, message=message):
                self._wake(f"pool:{dead.pool}")

    def _give_default_answers(self) -> None:
        for question in self._store.work.due_questions():
            run = question.flow_run_id
            # Somebody may be faster.
            with contextlib.suppress(
                errors.AlreadyAnsweredError, errors.RunHasEndedError, errors.RunIsAliveError
            ):
                if question.default is None:
                    self._store.work.requeue(run)
                else:
                    self._store.requests.answer_person(
                        run, question.number, answer=question.default, by=""
                    )
            place = self._store.work.dispatch(run)
            if place is not None:
                self._wake(f"pool:{place.pool}")
