"""Backfills: runs of deployments for slots of the past."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from raflow import errors, model
from raflow.model.schedule import fill_slot
from raflow.service import _forms
from raflow.service._signals import Signals
from raflow.store import Store

_LEAST: Final = 6


class Backfills:
    """Backfills. Each method that takes an id raises `NotFoundError`."""

    def __init__(self, store: Store, signals: Signals, actor: str) -> None:
        self._store = store
        self._signals = signals
        self._actor = actor

    def preview(self, wanted: model.BackfillOrder) -> model.BackfillPreview:
        """Return what a backfill would do.

        Raises:
            NotFoundError: There is no such deployment or schedule.
            ScheduleError: Its range is none, or has too many slots.
            ParameterError: The flow does not take the parameters.
        """
        preview = self._store.backfills.preview(wanted)
        self._check(wanted)
        return preview

    def create(self, wanted: model.BackfillOrder) -> model.Backfill:
        """Begin a backfill; a server orders its runs.

        Raises:
            NotFoundError: There is no such deployment or schedule.
            ScheduleError: Its range is none, or has no slots, or too many.
            ParameterError: The flow does not take the parameters.
        """
        self.preview(wanted)
        return self._told(self._store.backfills.create(wanted, actor=self._actor))

    def get(self, backfill_id: str) -> model.Backfill:
        """Return a backfill."""
        return self._store.backfills.get(backfill_id)

    def find(self, text: str) -> model.Backfill:
        """Return the backfill that a person means: by its id, or the end of it (six letters).

        Raises:
            NotFoundError: There is none, or several.
        """
        known = self.all(limit=1000)
        found = [
            one for one in known if one.id == text or (len(text) > 5 and one.id.endswith(text))
        ]
        if len(found) != 1:
            raise errors.NotFoundError.of("backfill", text, [one.id for one in known])
        return found[0]

    def all(self, *, deployment: str | None = None, limit: int = 50) -> list[model.Backfill]:
        """Return backfills, the newest first, at most so many."""
        return self._store.backfills.all(deployment=deployment, limit=limit)

    def slots(
        self,
        backfill_id: str,
        *,
        outcome: model.BackfillOutcome | None = None,
        after: float | None = None,
        limit: int = 100,
    ) -> list[model.BackfillSlot]:
        """Return slots of a backfill, the oldest first; see `Store.backfills`."""
        self.get(backfill_id)
        return self._store.backfills.slots(backfill_id, outcome=outcome, after=after, limit=limit)

    def pause(self, backfill_id: str) -> model.Backfill:
        """Order no more runs of a backfill; those that were go on."""
        paused = self._store.backfills.set_paused(backfill_id, paused=True, actor=self._actor)
        return self._told(paused)

    def resume(self, backfill_id: str) -> model.Backfill:
        """Let a backfill go on that is paused."""
        going_on = self._store.backfills.set_paused(backfill_id, paused=False, actor=self._actor)
        return self._told(going_on)

    def cancel(self, backfill_id: str) -> model.Backfill:
        """Cancel a backfill with its runs."""
        cancelled, asked = self._store.backfills.cancel(backfill_id, actor=self._actor)
        self._signals.wake(*(f"run:{run}" for run in asked))
        return self._told(cancelled)

    def retry_failed(self, backfill_id: str) -> model.Backfill:
        """Have a backfill run those slots again whose runs did not complete."""
        return self._told(self._store.backfills.retry_failed(backfill_id, actor=self._actor))

    def _told(self, backfill: model.Backfill) -> model.Backfill:
        self._signals.wake("schedules", "feed")
        return backfill

    def _check(self, wanted: model.BackfillOrder) -> None:
        version = self._store.deployments.version(wanted.deployment)
        parameters = {**version.spec.parameters}
        zone = "UTC"
        for row in self._store.schedules.of(wanted.deployment):
            if row.name == wanted.schedule and row.spec is not None:
                parameters |= row.spec.parameters
                zone = row.spec.schedule.rule.timezone
        slot = datetime.fromtimestamp(wanted.since, UTC)
        given = fill_slot({**parameters, **wanted.parameters}, slot, zone)
        found = _forms.faults(version.parameter_schema, given)
        if found:
            raise errors.ParameterError(
                f"Runs of deployment {wanted.deployment!r} could not begin: {found[0].message}. "
                "Give other parameters."
            )
