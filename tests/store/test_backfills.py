"""Backfills: each slot of a range of the past has one run, as many at a time as wanted."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from raflow import errors
from raflow.model import (
    Backfill,
    BackfillOrder,
    BackfillOutcome,
    BackfillState,
    Reprocess,
    SlotAction,
    StateName,
    Trigger,
)
from raflow.model.schedule import Overlap, Policy
from raflow.store import Store
from tests.store.orders import claim, record, state_of
from tests.store.schedules import (
    HOUR,
    NOON,
    Clock,
    change_deployment,
    clock_at,
    deploy,
    put,
    spec,
)

WANTED = BackfillOrder(
    deployment="nightly", schedule="main", since=NOON - 5 * 3600, until=NOON - 3600
)
"""Five slots: 7:00 to 11:00."""


@pytest.fixture
def clock(store: Store) -> Iterator[Clock]:
    """Noon, in the store of the test."""
    with clock_at(NOON) as clock:
        deploy(store)
        yield clock


def hours(slots: object) -> list[int]:
    assert isinstance(slots, list)
    return [datetime.fromtimestamp(slot.instant, UTC).hour for slot in slots]


def drive(store: Store, name: StateName = StateName.COMPLETED) -> list[str]:
    """Run all that waits to its end."""
    done = []
    for one in claim(store, most=100):
        assert record(store, one, StateName.RUNNING)
        assert record(store, one, name, ahead=1)
        done.append(one.flow_run.id)
    return done


def finish(store: Store, name: StateName = StateName.COMPLETED) -> list[str]:
    """Have backfills go on until nothing is left to do."""
    done = []
    while store.backfills.take().runs:
        done += drive(store, name)
    return done


def counts(store: Store, backfill: Backfill) -> dict[str, int]:
    return {outcome.value: n for outcome, n in store.backfills.get(backfill.id).counts.items()}


def test_each_slot_has_one_run_and_so_many_at_a_time(store: Store, clock: Clock) -> None:
    row = put(store, spec(region="{slot:%H}"))
    made = store.backfills.create(
        replace(WANTED, concurrency=2, parameters={"more": 1}), actor="ann"
    )
    assert (made.state, made.total, made.actor) == (BackfillState.RUNNING, 5, "ann")
    taken = store.backfills.take()
    assert (len(taken.runs), list(taken.pools)) == (2, ["default"])
    assert store.backfills.take().runs == ()
    run = store.find_flow_run(taken.runs[0])
    assert (run.trigger, run.parameters) == (
        Trigger.BACKFILL,
        {"day": 1, "region": "07", "more": 1},
    )
    origin = run.origin
    assert origin is not None
    assert (origin.backfill_id, origin.slot, origin.schedule_id) == (
        made.id,
        WANTED.since,
        None,
    )
    drive(store)
    assert len(store.backfills.take().runs) == 2
    finish(store)
    drive(store)
    finish(store)
    ended = store.backfills.get(made.id)
    assert (ended.state, ended.ended_at) == (BackfillState.COMPLETED, clock.at)
    assert counts(store, made) == {"completed": 5}
    slots = store.schedules.slots(row.id)
    assert hours(slots[::-1]) == [7, 8, 9, 10, 11]
    assert {slot.action for slot in slots} == {SlotAction.BACKFILLED}
    assert len({slot.flow_run_id for slot in slots}) == 5
    # The schedule itself has gone no further.
    assert store.schedules.get(row.id) == row
    store.feed.sequence()
    told = [event.payload["state"] for event in store.feed.after(0, kinds=["backfill.state"])]
    assert told == ["running", "completed"]


def test_the_newest_first(store: Store, clock: Clock) -> None:
    put(store)
    made = store.backfills.create(replace(WANTED, backwards=True, concurrency=2))
    store.backfills.take()
    running = store.backfills.slots(made.id, outcome=BackfillOutcome.RUNNING)
    assert hours(running) == [10, 11]


def test_slots_that_have_a_run_keep_it(store: Store, clock: Clock) -> None:
    row = put(store, spec(policy=Policy(overlap=Overlap.ALLOW_ALL)))
    for name in (StateName.COMPLETED, StateName.FAILED):
        clock.move(HOUR)
        store.schedules.decide_due()
        drive(store, name)
    clock.move(HOUR)
    [running] = store.schedules.decide_due().runs
    wanted = replace(WANTED, since=NOON, until=NOON + 3 * 3600, concurrency=10)
    for reprocess, runs in ((Reprocess.NONE, 1), (Reprocess.FAILED, 2), (Reprocess.COMPLETED, 3)):
        preview = store.backfills.preview(replace(wanted, reprocess=reprocess))
        assert (preview.slots, preview.runs) == (4, runs)
        assert preview.already == {"Completed": 1, "Failed": 1, "Scheduled": 1}
    made = store.backfills.create(replace(wanted, reprocess=Reprocess.FAILED))
    store.backfills.take()
    assert counts(store, made) == {"kept": 2, "running": 2}
    newest = {slot.instant: slot for slot in store.schedules.slots(row.id)}
    assert newest[NOON + 3 * 3600].flow_run_id == running
    assert newest[NOON + 2 * 3600].action is SlotAction.BACKFILLED
    again = store.backfills.create(wanted)
    store.backfills.take()
    assert counts(store, again) == {"kept": 4}
    assert store.backfills.take().runs == ()
    assert store.backfills.get(again.id).state is BackfillState.COMPLETED


def test_a_slot_of_a_backfill_is_not_run_again_by_its_schedule(store: Store, clock: Clock) -> None:
    row = put(store)
    clock.move(HOUR)
    store.backfills.create(replace(WANTED, since=NOON, until=clock.at, concurrency=10))
    assert len(store.backfills.take().runs) == 2
    # It was nobody's turn to decide until now.
    assert store.schedules.decide_due().runs == ()
    assert [slot.action for slot in store.schedules.slots(row.id)] == [SlotAction.BACKFILLED] * 2


def test_several_take_each_slot_once(store: Store, clock: Clock) -> None:
    put(store)
    for _ in range(2):
        store.backfills.create(replace(WANTED, since=NOON - 30 * 3600, concurrency=7))
    taken: list[str] = []
    with ThreadPoolExecutor(4) as pool:
        for _ in range(6):
            for done in pool.map(lambda _: store.backfills.take(), range(4)):
                taken += done.runs
            drive(store)
    slots = [store.find_flow_run(run).origin for run in taken]
    assert sorted(origin.slot or 0 for origin in slots if origin) == [
        NOON - n * 3600 for n in range(30, 0, -1)
    ]


def test_what_failed_is_tried_again(store: Store, clock: Clock) -> None:
    put(store)
    made = store.backfills.create(replace(WANTED, concurrency=5))
    store.backfills.take()
    first = claim(store, most=2)
    for one in first:
        record(store, one, StateName.RUNNING)
        record(store, one, StateName.FAILED, ahead=1)
    finish(store)
    drive(store)
    finish(store)
    assert counts(store, made) == {"completed": 3, "failed": 2}
    again = store.backfills.retry_failed(made.id, actor="ann")
    assert (again.state, again.ended_at) == (BackfillState.RUNNING, None)
    runs = finish(store)
    assert len(runs) == 2
    assert counts(store, made) == {"completed": 5}
    assert [slot.attempt for slot in store.backfills.slots(made.id)] == [1, 1, 0, 0, 0]
    assert store.backfills.retry_failed(made.id).state is BackfillState.COMPLETED


def test_a_backfill_is_paused_resumed_and_cancelled(store: Store, clock: Clock) -> None:
    put(store)
    made = store.backfills.create(replace(WANTED, concurrency=2))
    store.backfills.take()
    [begun] = claim(store, most=1)
    record(store, begun, StateName.RUNNING)
    assert store.backfills.set_paused(made.id, paused=True).state is BackfillState.PAUSED
    record(store, begun, StateName.COMPLETED, ahead=1)
    assert store.backfills.take().runs == ()
    assert counts(store, made) == {"completed": 1, "running": 1, "waiting": 3}
    store.backfills.set_paused(made.id, paused=False)
    [run] = store.backfills.take().runs
    [begun] = claim(store, most=1)
    record(store, begun, StateName.RUNNING)
    cancelled, asked = store.backfills.cancel(made.id, actor="ann")
    assert (cancelled.state, cancelled.ended_at) == (BackfillState.CANCELLED, None)
    assert asked == [begun.flow_run.id]
    assert state_of(store, run) is StateName.CANCELLED
    store.backfills.take()
    assert counts(store, made) == {"completed": 1, "running": 1, "failed": 1, "cancelled": 2}
    record(store, begun, StateName.CANCELLED, ahead=1)
    assert store.backfills.take().runs == ()
    ended = store.backfills.get(made.id)
    assert (ended.state, ended.ended_at) == (BackfillState.CANCELLED, clock.at)
    assert store.backfills.cancel(made.id) == (ended, [])
    assert store.backfills.set_paused(made.id, paused=True) == ended


def test_a_paused_deployment_waits_and_a_removed_one_ends_it(store: Store, clock: Clock) -> None:
    put(store)
    made = store.backfills.create(WANTED)
    change_deployment(store, paused=True)
    assert store.backfills.take().runs == ()
    change_deployment(store, paused=False, deleted_at=clock.at)
    assert store.backfills.take().runs == ()
    assert store.backfills.get(made.id).state is BackfillState.CANCELLED
    assert counts(store, made) == {"cancelled": 5}


def test_a_deployment_without_a_schedule(store: Store, clock: Clock) -> None:
    wanted = replace(WANTED, schedule="", every=1800.0, concurrency=100)
    made = store.backfills.create(wanted)
    assert made.total == 9
    assert len(finish(store)) == 9
    assert hours(store.backfills.slots(made.id, after=WANTED.since, limit=2)) == [7, 8]
    assert [found.id for found in store.backfills.all(deployment="nightly")] == [made.id]
    assert store.backfills.all(deployment="other") == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"deployment": "other"}, "deployment 'other'"),
        ({"schedule": "mian"}, "'main'"),
        ({"every": 60.0}, "Give one of them"),
        ({"schedule": ""}, "Give one of them"),
        ({"until": NOON + 1}, "is of the past"),
        ({"until": WANTED.since - 1}, "is of the past"),
        ({"until": WANTED.since + 1, "since": WANTED.since + 0.5}, "There is no slot"),
        ({"schedule": "", "every": 1.0, "since": NOON - 20_000}, "more than 10,000 slots"),
        ({"concurrency": 0}, "1 or more"),
    ],
)
def test_what_cannot_be_is_told(
    store: Store, clock: Clock, changes: dict[str, object], told: str
) -> None:
    put(store)
    with pytest.raises((errors.NotFoundError, errors.ScheduleError)) as error:
        store.backfills.create(replace(WANTED, **changes))  # type: ignore[arg-type]
    assert told in str(error.value)
    with pytest.raises(errors.NotFoundError):
        store.backfills.get("none")
