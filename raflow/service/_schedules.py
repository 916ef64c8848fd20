"""Schedules: looking at them and at their slots, pausing them."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from raflow import errors, model
from raflow.model.schedule import explain, fill_slot, zone
from raflow.service import _forms
from raflow.service._signals import Signals
from raflow.store import Store

_HORIZON: Final = timedelta(days=366 * 1000)


class NextSlot(NamedTuple):
    """A slot to come."""

    slot: float
    begins_at: float
    """When its run begins: the slot, and its jitter."""
    local: str
    """What clocks show in the zone of the schedule: `2026-03-29 03:00:00+02:00`."""
    words: str
    """What is special about it because clocks are changed; empty: nothing."""


class Schedules:
    """Schedules of deployments. Each method that takes an id raises `NotFoundError`."""

    def __init__(self, store: Store, signals: Signals, actor: str) -> None:
        self._store = store
        self._signals = signals
        self._actor = actor

    def all(self, deployment: str | None = None) -> list[model.ScheduleRow]:
        """Return the schedules of a deployment, or all, sorted by deployment and name."""
        return self._store.schedules.of(deployment)

    def get(self, schedule_id: str) -> model.ScheduleRow:
        """Return a schedule."""
        return self._store.schedules.get(schedule_id)

    def find(self, text: str) -> model.ScheduleRow:
        """Return the schedule that a person means.

        Args:
            text: `DEPLOYMENT/SCHEDULE`, or its id, or the name of a deployment that has only one.

        Raises:
            NotFoundError: There is none; names the closest.
        """
        found = self.all()
        mine = [row for row in found if text in {row.id, f"{row.deployment}/{row.name}"}]
        mine = mine or [row for row in found if row.deployment == text]
        if len(mine) == 1:
            return mine[0]
        if mine:
            names = ", ".join(f"{row.deployment}/{row.name}" for row in mine)
            raise errors.NotFoundError(
                f"Deployment {text!r} has {len(mine)} schedules. Name one of them: {names}."
            )
        known = [f"{row.deployment}/{row.name}" for row in found]
        raise errors.NotFoundError.of("schedule", text, known)

    def next(self, schedule_id: str, count: int = 20) -> list[NextSlot]:
        """Return the slots that come next, as they would if the schedule is not paused.

        Args:
            schedule_id: The schedule.
            count: How many, if there are so many. Default: 20.

        Raises:
            ScheduleError: They cannot be told here.
        """
        spec = self._spec(schedule_id)
        now = datetime.now(UTC)
        until = min(now + _HORIZON, datetime.max.replace(tzinfo=UTC))
        slots = itertools.islice(spec.schedule.slots(now, until), count)
        return [next_slot(schedule_id, spec, slot) for slot in slots]

    def slots(
        self, schedule_id: str, *, before: float | None = None, limit: int = 50
    ) -> list[model.SlotRecord]:
        """Return slots that were decided, the newest first; see `Store.schedules`."""
        self.get(schedule_id)
        return self._store.schedules.slots(schedule_id, before=before, limit=limit)

    def set(self, deployment: str, spec: model.ScheduleSpec) -> tuple[model.ScheduleRow, bool]:
        """Give a deployment a schedule by hand, or change one; return whether it was made.

        It stays when the deployment is deployed again.

        Raises:
            NotFoundError: There is no such deployment.
            ScheduleError: The version of the deployment has a schedule of that name, or it is no
                name.
            ParameterError: The flow does not take the parameters, or lacks one.
        """
        model.schedule_specs([spec])  # what is no name is refused
        version = self._store.deployments.version(deployment)
        given = fill_slot(
            {**version.spec.parameters, **spec.parameters},
            datetime.now(UTC),
            spec.schedule.rule.timezone,
        )
        found = _forms.faults(version.parameter_schema, given)
        if found:
            raise errors.ParameterError(
                f"Runs of schedule {spec.name!r} could not begin: {found[0].message}. Give "
                "parameters to the deployment or to the schedule."
            )
        done = self._store.schedules.set(deployment, spec, actor=self._actor)
        self._signals.wake("schedules", "feed")
        return done

    def remove(self, schedule_id: str) -> None:
        """Remove a schedule that was made by hand.

        Raises:
            ScheduleError: It is what the version of its deployment says.
        """
        self._store.schedules.remove(schedule_id, actor=self._actor)
        self._signals.wake("schedules", "feed")

    def pause(self, schedule_id: str) -> model.ScheduleRow:
        """Have a schedule start no runs; those that wait for a time to come are cancelled."""
        return self._set_active(schedule_id, active=False)

    def resume(self, schedule_id: str) -> model.ScheduleRow:
        """Let a schedule go on with its next slot from now.

        Raises:
            ScheduleError: Its slots cannot be told here.
        """
        return self._set_active(schedule_id, active=True)

    def _set_active(self, schedule_id: str, *, active: bool) -> model.ScheduleRow:
        row = self._store.schedules.set_active(schedule_id, active=active, actor=self._actor)
        self._signals.wake("schedules", "feed")
        return row

    def _spec(self, schedule_id: str) -> model.ScheduleSpec:
        row = self.get(schedule_id)
        if row.spec is None:
            raise errors.ScheduleError(row.error)
        return row.spec


def next_slot(schedule_id: str, spec: model.ScheduleSpec, slot: datetime) -> NextSlot:
    """Return a slot with what people want to know of it."""
    schedule = spec.schedule
    local = slot.astimezone(zone(schedule.rule.timezone))
    return NextSlot(
        slot=slot.timestamp(),
        begins_at=schedule.begins_at(schedule_id, slot).timestamp(),
        local=local.isoformat(sep=" ", timespec="seconds"),
        words=explain(schedule.rule, slot),
    )
