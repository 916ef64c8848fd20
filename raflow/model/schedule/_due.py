"""What is to be done about the slots of a schedule that have come: run, wait, skip."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from raflow import errors
from raflow.model.schedule._schedule import Schedule

_MOST: Final = 10_000
_LONGEST: Final = timedelta(days=366)
_TICK: Final = timedelta(microseconds=1)


class Overlap(enum.StrEnum):
    """What becomes of a slot that comes while runs of its schedule are not over."""

    SKIP = "skip"
    """It starts no run."""
    BUFFER_ONE = "buffer_one"
    """Its run waits for them; of several such slots only the first does."""
    BUFFER_ALL = "buffer_all"
    """Its run waits for its turn."""
    CANCEL_OTHER = "cancel_other"
    """They are cancelled, and its run starts when they have ended."""
    ALLOW_ALL = "allow_all"
    """Its run starts beside them."""


class CatchUp(enum.StrEnum):
    """Which of the slots that came while nobody was there to start runs still do."""

    ALL = "all"
    """Those within the window, oldest first."""
    LATEST = "latest"
    """The last one within the window."""
    NONE = "none"
    """None; a slot is missed if it came more than a minute ago."""


class Action(enum.StrEnum):
    """What is done about a slot."""

    START = "start"
    """Its run starts."""
    WAIT = "wait"
    """Its run starts when those before it have ended."""
    REPLACE = "replace"
    """The runs before it are cancelled; it starts when they have ended."""
    SKIP = "skip"
    """No run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a schedule deals with what does not go by plan."""

    overlap: Overlap = Overlap.SKIP
    catch_up: CatchUp = CatchUp.ALL
    window: timedelta = timedelta(hours=1)
    """How long after its instant a slot may still start its run, if nobody was there earlier; at
    most 366 days. Default: an hour."""
    at_most: int = 100
    """How many runs wait at the same time; later slots are skipped. 1 to 10,000. Default: 100."""

    def __post_init__(self) -> None:
        if not timedelta(0) < self.window <= _LONGEST:
            raise errors.ScheduleError("The catch-up window is more than zero and up to 366 days.")
        if not 1 <= self.at_most <= _MOST:
            raise errors.ScheduleError(f"at_most is a number from 1 to {_MOST}.")


@dataclass(frozen=True, slots=True)
class SlotPlan:
    """What is to be done about one slot."""

    slot: datetime
    action: Action
    reason: str = ""
    """Why it does not simply start."""


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done about a schedule now."""

    plans: tuple[SlotPlan, ...]
    """One for each slot that has come, oldest first, but for those that are too old."""
    missed: tuple[datetime, datetime] | None
    """Slots after the first of these instants and before the second are too old, if there are any;
    None: there are none."""
    cursor: datetime
    """Everything up to here has been dealt with."""
    next_at: datetime | None
    """When to look again; None: never."""


def due(
    schedule: Schedule,
    policy: Policy,
    *,
    cursor: datetime,
    now: datetime,
    active: int,
    waiting: int = 0,
    most: int = _MOST,
) -> Due:
    """Decide about the slots after `cursor` that have come by `now`.

    A clock that was set back makes nothing come twice: `cursor` never goes back. Deals with as many
    slots at a time as may wait; if there are more, `next_at` is not after `now`.

    Args:
        schedule: When there are slots.
        policy: What to do where it does not go by plan.
        cursor: What was dealt with before.
        now: The time, in UTC.
        active: How many runs of the schedule have started and are not over.
        waiting: How many wait for those.
        most: Deal with at most so many slots at a time, even if more may wait.
    """
    most = min(most, policy.at_most)
    oldest = max(cursor, now - _window(policy) - _TICK)
    missed = _missed(schedule, cursor, oldest)
    slots = list(islice(_slots(schedule, policy, oldest, now), most))
    plans = tuple(_plans(slots, policy, active, waiting))
    done = slots[-1] if len(slots) == most else max(cursor, now)
    return Due(plans, missed, done, schedule.next_after(done))


def due_on_time(
    schedule: Schedule,
    policy: Policy,
    *,
    cursor: datetime,
    now: datetime,
    slot: datetime,
    active: int,
    waiting: int = 0,
) -> Due | None:
    """Decide what `due` does, in a third of the time, where one slot has come and is not old.

    Args:
        schedule: As for `due`; so are the others.
        policy: What to do where it does not go by plan.
        cursor: What was dealt with before.
        now: The time, in UTC.
        slot: The first slot after `cursor`.
        active: How many runs of the schedule have started and are not over.
        waiting: How many wait for those.

    Returns:
        None if that is not how it is: ask `due`.
    """
    if not cursor < slot <= now or cursor < now - _window(policy) - _TICK:
        return None
    following = schedule.next_after(slot)
    if following is not None and following <= now:
        return None
    plan = SlotPlan(slot, *_decide(policy, active, waiting))
    # As there, whoever deals with so many at a time comes back for more.
    done = slot if policy.at_most == 1 else now
    return Due((plan,), None, done, following)


def _window(policy: Policy) -> timedelta:
    on_time = timedelta(minutes=1)
    return min(policy.window, on_time) if policy.catch_up is CatchUp.NONE else policy.window


def _missed(
    schedule: Schedule, cursor: datetime, oldest: datetime
) -> tuple[datetime, datetime] | None:
    if oldest <= cursor:
        return None
    first = schedule.next_after(cursor)
    return (cursor, oldest) if first is not None and first <= oldest else None


def _slots(
    schedule: Schedule, policy: Policy, oldest: datetime, now: datetime
) -> Iterator[datetime]:
    if policy.catch_up is not CatchUp.LATEST:
        return schedule.slots(oldest, now)
    latest = _latest(schedule, oldest, now)
    return iter(() if latest is None else (latest,))


def _latest(schedule: Schedule, oldest: datetime, now: datetime) -> datetime | None:
    """Return the last slot after an instant and not after another; None: there is none."""
    back, start = timedelta(seconds=1), now
    while start > oldest:
        start = max(oldest, now - back)
        found = None
        for found in schedule.slots(start, now):  # noqa: B007 - the last one is what is wanted
            pass
        if found is not None:
            return found
        back *= 2
    return None


def _plans(slots: list[datetime], policy: Policy, active: int, waiting: int) -> Iterator[SlotPlan]:
    for number, slot in enumerate(slots):
        action, reason = _decide(policy, active, waiting)
        if action is Action.REPLACE and number < len(slots) - 1:
            action, reason = Action.SKIP, "a later slot replaces it"
        active += action is Action.START
        waiting += action in {Action.WAIT, Action.REPLACE}
        yield SlotPlan(slot, action, reason)


def _decide(policy: Policy, active: int, waiting: int) -> tuple[Action, str]:
    if policy.overlap is Overlap.ALLOW_ALL or not active + waiting:
        return Action.START, ""
    busy = f"{active} run(s) of the schedule are not over"
    match policy.overlap:
        case Overlap.CANCEL_OTHER:
            return Action.REPLACE, busy
        case Overlap.BUFFER_ONE if not waiting:
            return Action.WAIT, busy
        case Overlap.BUFFER_ALL if waiting < policy.at_most:
            return Action.WAIT, busy
        case Overlap.SKIP:
            return Action.SKIP, busy
    return Action.SKIP, f"{busy}, and {waiting} wait for them"
