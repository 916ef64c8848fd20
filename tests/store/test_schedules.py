"""Schedules: what is kept of them, and that each slot has one run, whatever happens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from raflow import errors
from raflow.model import (
    Bundle,
    DeploymentSpec,
    DeploymentVersion,
    FlowVersion,
    ScheduleSpec,
    SlotAction,
    Stage,
    StateName,
    Trigger,
)
from raflow.model.schedule import CatchUp, Cron, Interval, Overlap, Policy
from raflow.store import Store
from raflow.store._schedules import _due_slots
from tests.store import schedules
from tests.store.orders import claim, record, stage_of, state_of
from tests.store.schedules import (
    HOUR,
    MINUTE,
    NOON,
    Clock,
    actions,
    change_deployment,
    change_row,
    clock_at,
    deploy,
    each_second,
    put,
    spec,
    stages,
)


@pytest.fixture
def clock(store: Store) -> Iterator[Clock]:
    """Noon, in the store of the test."""
    with clock_at(NOON) as clock:
        yield clock


# --- Definitions ----------------------------------------------------------------------------------


def test_a_schedule_begins_when_it_is_made(store: Store, clock: Clock) -> None:
    deploy(store)
    wanted = spec(jitter=MINUTE, policy=Policy(overlap=Overlap.BUFFER_ONE), region="eu")
    row = put(store, wanted)
    assert (row.spec, row.active, row.error) == (wanted, True, "")
    assert (row.deployment, row.generation, row.cursor) == ("nightly", 1, NOON)
    assert row.next_at == NOON + 3600
    assert store.schedules.get(row.id) == row
    assert store.schedules.of() == store.schedules.of("nightly") == [row]
    assert store.schedules.of("other") == []
    assert store.schedules.next_wake() == 3600


def test_the_same_schedule_again_changes_nothing(store: Store, clock: Clock) -> None:
    deploy(store)
    wanted = spec(Interval(HOUR), jitter=timedelta(seconds=0.1), b=1, a="x")
    row = put(store, wanted)
    clock.move(2 * HOUR)
    assert put(store, wanted) == row


def test_other_slots_are_another_generation_from_now_on(store: Store, clock: Clock) -> None:
    deploy(store)
    first = put(store)
    clock.move(HOUR + MINUTE)
    row = put(store, spec(Cron("*/30 * * * *")))
    assert (row.id, row.generation, row.cursor) == (first.id, 2, clock.at)
    # Not 13:00, nor 12:30.
    assert row.next_at == NOON + 5400
    assert store.schedules.decide_due().schedules == 0


def test_what_is_done_about_slots_may_change_without_new_ones(store: Store, clock: Clock) -> None:
    deploy(store)
    put(store)
    changed = spec(policy=Policy(overlap=Overlap.ALLOW_ALL), region="us")
    row = put(store, changed)
    assert (row.spec, row.generation, row.cursor) == (changed, 1, NOON)


def test_schedules_that_are_left_out_are_removed(store: Store, clock: Clock) -> None:
    deploy(store)
    store.schedules.put("nightly", [spec(name="a"), spec(name="b")])
    kept = store.schedules.put("nightly", [spec(name="c")], prune=False)
    assert [row.name for row in kept] == ["a", "b", "c"]
    [left] = store.schedules.put("nightly", [spec(name="b")])
    assert left == kept[1]
    with pytest.raises(errors.NotFoundError, match="schedule"):
        store.schedules.get(kept[0].id)


def test_schedules_that_cannot_be_kept_are_refused(store: Store) -> None:
    with pytest.raises(errors.NotFoundError, match="deployment 'nightly'"):
        put(store)
    deploy(store)
    with pytest.raises(errors.ConfigError, match="two schedules with the name 'main'"):
        put(store, spec(), spec())
    with pytest.raises(errors.NotFoundError):
        store.schedules.set_active("nowhere", active=True)


def test_an_edit_cancels_runs_that_wait_for_their_time(store: Store, clock: Clock) -> None:
    deploy(store)
    put(store, spec(jitter=HOUR))
    clock.move(HOUR)
    [run] = store.schedules.decide_due().runs
    assert stage_of(store, run) is Stage.WAITING
    # Its time has not come, thanks to the jitter.
    row = put(store, spec())
    assert (state_of(store, run), row.generation) == (StateName.CANCELLED, 2)
    clock.move(HOUR)
    [run] = store.schedules.decide_due().runs
    put(store, spec(Cron("30 * * * *")))
    # That of this one has: it is not lost.
    assert state_of(store, run) is StateName.SCHEDULED


# --- Pausing --------------------------------------------------------------------------------------


def test_a_paused_schedule_goes_on_from_then(store: Store, clock: Clock) -> None:
    deploy(store)
    row = put(store)
    paused = store.schedules.set_active(row.id, active=False)
    assert (paused.active, paused.next_at) == (False, None)
    clock.move(3 * HOUR)
    assert store.schedules.next_wake() is None
    assert store.schedules.decide_due().schedules == 0
    # A redeploy does not undo what a person wanted.
    assert put(store) == paused
    on = store.schedules.set_active(row.id, active=True)
    assert (on.active, on.cursor, on.next_at) == (True, clock.at, clock.at + 3600)
    assert put(store, spec(active=False)).next_at is None


def test_slots_of_a_paused_deployment_are_skipped(store: Store, clock: Clock) -> None:
    deploy(store)
    row = put(store, spec(policy=Policy(window=5 * HOUR)))
    change_deployment(store, paused=True)
    clock.move(2 * HOUR)
    assert store.schedules.decide_due() == (1, (), frozenset(), (), ())
    change_deployment(store, paused=False)
    clock.move(HOUR)
    assert len(store.schedules.decide_due().runs) == 1
    assert actions(store, row.id) == ["13:00 skipped", "14:00 skipped", "15:00 started"]
    assert store.schedules.slots(row.id)[-1].reason == "the deployment is paused"


def test_a_removed_deployment_has_no_slots_until_it_is_deployed_again(
    store: Store, clock: Clock
) -> None:
    deploy(store)
    row = put(store)
    change_deployment(store, deleted_at=clock.at)
    clock.move(HOUR)
    assert store.schedules.decide_due().runs == ()
    assert store.schedules.next_wake() is None
    change_deployment(store, deleted_at=None)
    clock.move(HOUR)
    assert put(store).next_at == clock.at + 3600
    assert actions(store, row.id) == []


# --- Slots ----------------------------------------------------------------------------------------


def test_a_slot_that_comes_has_one_run(store: Store, clock: Clock) -> None:
    deploy(store, tags=["etl"], max_resumes=5)
    row = put(store, spec(jitter=MINUTE, region="eu"))
    assert store.schedules.decide_due().schedules == 0
    clock.move(HOUR + timedelta(seconds=2))
    decided = store.schedules.decide_due()
    [run_id] = decided.runs
    assert decided == (1, (run_id,), frozenset({"default"}), (), ())
    run = store.find_flow_run(run_id)
    assert (run.trigger, run.tags, run.flow) == (Trigger.SCHEDULE, ("etl",), "etl")
    assert (run.parameters, run.fingerprint) == ({"day": 1, "region": "eu"}, "f1")
    assert run.name == f"etl-{run_id[-6:]}"
    origin = run.origin
    assert origin is not None
    slot = NOON + 3600
    assert (origin.schedule_id, origin.slot, origin.bundle) == (row.id, slot, "b1")
    assert (origin.actor, origin.priority) == ("schedule:main", 2)
    assert origin.begins_at is not None
    assert slot < origin.begins_at < slot + 60
    place = store.work.dispatch(run_id)
    assert place is not None
    assert (place.begins_at, place.max_resumes) == (origin.begins_at, 5)
    [found] = store.schedules.slots(row.id)
    assert (found.action, found.flow_run_id) == (SlotAction.STARTED, run_id)
    assert (found.instant, found.decided_at, found.generation) == (slot, clock.at, 1)
    assert store.schedules.decide_due().schedules == 0
    assert store.schedules.get(row.id).next_at == slot + 3600


def test_runs_use_the_version_of_their_time(store: Store, clock: Clock) -> None:
    deploy(store)
    put(store, spec(policy=Policy(overlap=Overlap.ALLOW_ALL)))
    clock.move(HOUR)
    [old] = store.schedules.decide_due().runs
    deploy(store, version=2, on_crash="crash")
    clock.move(HOUR)
    [new] = store.schedules.decide_due().runs
    origins = [store.find_flow_run(run).origin for run in (old, new)]
    assert [(o.version, o.bundle) for o in origins if o] == [(1, "b1"), (2, "b2")]
    place = store.work.dispatch(new)
    assert place is not None
    assert place.max_resumes == 0


def test_a_clock_that_jumps_makes_nothing_come_twice_and_loses_nothing(
    store: Store, clock: Clock
) -> None:
    deploy(store)
    policy = Policy(overlap=Overlap.ALLOW_ALL, window=4 * HOUR)
    row = put(store, spec(policy=policy))
    clock.move(3 * HOUR)
    assert len(store.schedules.decide_due().runs) == 3
    clock.move(-2 * HOUR)
    # Neither by itself, nor because somebody edits it or pauses it for a moment.
    assert store.schedules.decide_due().schedules == 0
    store.schedules.set_active(row.id, active=False)
    store.schedules.set_active(row.id, active=True)
    put(store, spec(Cron("0 */1 * * *"), policy=policy))
    clock.move(2 * HOUR)
    assert store.schedules.decide_due().schedules == 0
    clock.move(HOUR)
    assert len(store.schedules.decide_due().runs) == 1
    assert [slot[:5] for slot in actions(store, row.id)] == ["13:00", "14:00", "15:00", "16:00"]


def test_slots_are_listed_by_pages(store: Store, clock: Clock) -> None:
    deploy(store)
    row = put(store, spec(policy=Policy(window=9 * HOUR)))
    clock.move(5 * HOUR)
    store.schedules.decide_due()
    first = store.schedules.slots(row.id, limit=3)
    rest = store.schedules.slots(row.id, before=first[-1].instant)
    assert [slot.instant for slot in first + rest] == [NOON + 3600 * n for n in (5, 4, 3, 2, 1)]


def test_many_slots_at_once_come_in_parts(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_due_slots, "MOST_ORDERS", 20)
    deploy(store)
    policy = Policy(overlap=Overlap.ALLOW_ALL)
    store.schedules.put("nightly", [each_second(name=name, policy=policy) for name in "ab"])
    clock.move(timedelta(seconds=25))
    counts = []
    while (decided := store.schedules.decide_due()).schedules:
        counts.append(len(decided.runs))
    assert counts == [20, 20, 10]
    instants = Counter(run.origin.slot for run in store.flow_runs(limit=None) if run.origin)
    assert instants == dict.fromkeys((NOON + n for n in range(1, 26)), 2)


# --- Overlap and catching up ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("catch_up", "overlap", "slots", "standing"),
    [
        ("all", "skip", "13 started 14 skipped 15 skipped", "waiting"),
        ("all", "buffer_one", "13 started 14 waiting 15 skipped", "waiting held"),
        ("all", "buffer_all", "13 started 14 waiting 15 waiting", "waiting held held"),
        ("all", "cancel_other", "13 started 14 skipped 15 replaced", "waiting"),
        ("all", "allow_all", "13 started 14 started 15 started", "waiting waiting waiting"),
        ("latest", "skip", "15 started", "waiting"),
        ("latest", "buffer_all", "15 started", "waiting"),
        ("none", "allow_all", "13 missed 15 started", "waiting"),
    ],
)
def test_overlap_and_catching_up(
    store: Store, clock: Clock, catch_up: str, overlap: str, slots: str, standing: str
) -> None:
    deploy(store)
    policy = Policy(overlap=Overlap(overlap), catch_up=CatchUp(catch_up), window=9 * HOUR)
    row = put(store, spec(policy=policy))
    clock.move(3 * HOUR)
    store.schedules.decide_due()
    done = " ".join(actions(store, row.id)).replace(":00", "")
    assert done == slots
    expected = standing.split()
    if overlap == "cancel_other":
        # The one before it had not begun.
        replaced = store.schedules.slots(row.id)[-1].flow_run_id
        assert state_of(store, replaced or "") is StateName.CANCELLED
    assert stages(store) == expected
    # Those that wait begin one after the other.
    for left in range(len(expected), 0, -1):
        taken = claim(store, most=1)[0]
        assert len(stages(store)) == left
        assert record(store, taken, StateName.RUNNING)
        assert record(store, taken, StateName.COMPLETED)
    assert stages(store) == []


@pytest.mark.parametrize(
    ("overlap", "slot", "standing"),
    [
        ("skip", "skipped", ["running"]),
        ("buffer_one", "waiting", ["running", "held"]),
        ("buffer_all", "waiting", ["running", "held"]),
        ("cancel_other", "replaced", ["running", "held"]),
        ("allow_all", "started", ["running", "waiting"]),
    ],
)
def test_a_slot_comes_while_a_run_goes_on(
    store: Store, clock: Clock, overlap: str, slot: str, standing: list[str]
) -> None:
    deploy(store)
    row = put(store, spec(policy=Policy(overlap=Overlap(overlap))))
    clock.move(HOUR)
    store.schedules.decide_due()
    [taken] = claim(store)
    record(store, taken, StateName.RUNNING)
    clock.move(HOUR)
    decided = store.schedules.decide_due()
    assert actions(store, row.id) == ["13:00 started", f"14:00 {slot}"]
    assert stages(store) == standing
    asked = store.requests.of(taken.flow_run.id)
    assert [(one.kind, one.by) for one in asked] == (
        [("cancel", "schedule:main")] if overlap == "cancel_other" else []
    )
    assert decided.asked == tuple(one.flow_run_id for one in asked)
    record(store, taken, StateName.CANCELLED)
    assert stages(store) == (["waiting"] if len(standing) > 1 else [])


def test_a_suspended_run_is_replaced_too(store: Store, clock: Clock) -> None:
    deploy(store)
    put(store, spec(policy=Policy(overlap=Overlap.CANCEL_OTHER)))
    clock.move(HOUR)
    [run] = store.schedules.decide_due().runs
    [taken] = claim(store)
    record(store, taken, StateName.RUNNING)
    record(store, taken, StateName.SUSPENDED)
    assert stage_of(store, run) is Stage.PARKED
    clock.move(HOUR)
    [new] = store.schedules.decide_due().runs
    # No process hears the request: a worker brings the run to its end.
    [ending] = claim(store)
    assert (ending.flow_run.id, ending.work) == (run, "end")
    assert stage_of(store, new) is Stage.HELD


# --- What is broken -------------------------------------------------------------------------------


def test_a_broken_schedule_is_paused_and_others_go_on(store: Store, clock: Clock) -> None:
    deploy(store)
    names = ["bad", "fine", "gone"]
    made = store.schedules.put("nightly", [spec(name=n) for n in names])
    rows = {row.name: row for row in made}
    change_row(store, rows["bad"].id, rule='{"kind": "moon"}')
    gone = '{"kind": "cron", "expression": "0 * * * *", "timezone": "Mars/Olympus"}'
    change_row(store, rows["gone"].id, rule=gone)
    clock.move(HOUR)
    decided = store.schedules.decide_due()
    assert (decided.schedules, len(decided.runs)) == (3, 1)
    assert set(decided.broken) == {rows["bad"].id, rows["gone"].id}
    assert store.schedules.decide_due().schedules == 0
    found = store.schedules.get(rows["gone"].id)
    assert (found.active, found.spec, found.next_at) == (False, None, None)
    assert "'Mars/Olympus' is no time zone" in found.error
    with pytest.raises(errors.ScheduleError):
        store.schedules.set_active(found.id, active=True)
    # What is mended goes on.
    mended = store.schedules.put("nightly", [spec(name=n) for n in names])
    assert [(row.active, row.error, row.next_at) for row in mended] == [
        (True, "", clock.at + 3600)
    ] * 3


def test_a_schedule_without_a_version_is_broken(store: Store, clock: Clock) -> None:
    deploy(store)
    row = put(store)
    change_deployment(store, version=7)
    clock.move(HOUR)
    assert store.schedules.decide_due().broken == (row.id,)
    assert "has no version 7" in store.schedules.get(row.id).error


def test_other_time_zones_move_the_next_slot(store: Store, clock: Clock) -> None:
    deploy(store)
    names = ["fine", "gone", "moved"]
    fine, gone, moved = store.schedules.put("nightly", [spec(name=n) for n in names])
    assert store.schedules.recheck() == ([], [])
    change_row(store, fine.id, tzdata="1999a")
    text = '{"kind": "cron", "expression": "0 * * * *", "timezone": "Mars/Olympus"}'
    change_row(store, gone.id, tzdata="1999a", rule=text)
    change_row(store, moved.id, tzdata="1999a", next_at=NOON + 7200)
    assert store.schedules.recheck() == ([moved.id], [gone.id])
    assert store.schedules.of()[0] == fine
    assert store.schedules.get(moved.id).next_at == NOON + 3600
    assert not store.schedules.get(gone.id).active
    assert store.schedules.recheck() == ([], [])


# --- Several at once ------------------------------------------------------------------------------


def test_many_who_decide_at_once_start_each_slot_once(store: Store) -> None:
    deploy(store)
    policy = Policy(overlap=Overlap.ALLOW_ALL)
    rows = store.schedules.put("nightly", [each_second(name=f"s{n}", policy=policy) for n in "abc"])
    nominal = {}
    for row in rows:
        _, nominal[row.id] = schedules.rewind(store, row.id, 30)

    def decide(n: int) -> int:
        return sum(len(store.schedules.decide_due(limit=1 + n % 3).runs) for _ in range(6))

    with ThreadPoolExecutor(8) as pool:
        made = sum(pool.map(decide, range(8)))
    runs = [run.origin for run in store.flow_runs(limit=None) if run.origin]
    assert made == len(runs)
    for row in rows:
        found = sorted(o.slot for o in runs if o.schedule_id == row.id and o.slot)
        # Time goes on meanwhile.
        assert found[:30] == nominal[row.id]
        assert len(set(found)) == len(found)
        assert sorted(s.instant for s in store.schedules.slots(row.id, limit=999)) == found


def test_a_version_brings_its_schedules(store: Store, clock: Clock) -> None:
    deploy(store)
    version = store.deployments.version("nightly")
    code = FlowVersion(flow="etl", fingerprint="f1")
    store.deployments.keep_bundle(
        Bundle(digest="b1", size=1, files=1, unpacked=1, url="", manifest=b"")
    )
    store.deployments.put("nightly", replace(version, schedules=(spec(name="a"),)), code)
    hourly = store.schedules.of("nightly")
    two = (spec(Cron("30 * * * *"), name="a"), spec(name="b"))
    store.deployments.put("nightly", replace(version, schedules=two), code)
    assert [(s.name, s.generation) for s in store.schedules.of("nightly")] == [("a", 2), ("b", 1)]
    # A version before has those that it had.
    store.deployments.use("nightly", 2)
    [back] = store.schedules.of("nightly")
    assert (back.spec, back.id) == (hourly[0].spec, hourly[0].id)
    clock.move(HOUR)
    [run] = store.schedules.decide_due().runs
    assert store.find_flow_run(run).parameters == {"day": 1}


# --- By hand --------------------------------------------------------------------------------------


def test_schedules_made_by_hand_outlive_deploys(store: Store, clock: Clock) -> None:
    def deployed(*specs: ScheduleSpec, bundle: str) -> set[str]:
        store.deployments.keep_bundle(
            Bundle(digest=bundle, size=1, files=1, unpacked=1, url="", manifest=b"")
        )
        made = DeploymentVersion(
            number=0,
            spec=DeploymentSpec(flow="etl", entrypoint="etl.py:etl"),
            digest="",
            bundle=bundle,
            fingerprint="f",
            schedules=specs,
        )
        store.deployments.put("nightly", made, FlowVersion(flow="etl", fingerprint="f"))
        return {row.name for row in store.schedules.of("nightly")}

    assert deployed(spec(name="main"), spec(name="old"), bundle="b1") == {"main", "old"}
    row, is_new = store.schedules.set("nightly", spec(name="audit"), actor="ann")
    assert (row.name, row.next_at, is_new) == ("audit", NOON + 3600, True)
    assert store.schedules.set("nightly", spec(name="audit")) == (row, False)
    # What the version has goes with it, what people have made stays.
    assert deployed(spec(name="main"), bundle="b2") == {"main", "audit"}
    [main] = [one for one in store.schedules.of("nightly") if one.name == "main"]
    for refused in (
        lambda: store.schedules.set("nightly", spec(name="main")),
        lambda: store.schedules.remove(main.id),
    ):
        with pytest.raises(errors.ScheduleError, match="`raflow schedules pause nightly/main`"):
            refused()
    # It comes with the deployment by now, and goes with it.
    assert deployed(spec(name="audit"), bundle="b3") == {"audit"}
    assert deployed(bundle="b4") == set()
    again, _ = store.schedules.set("nightly", spec(name="audit"))
    store.schedules.remove(again.id)
    with pytest.raises(errors.NotFoundError):
        store.schedules.remove(again.id)
    store.schedules.set("nightly", spec(name="audit"))
    store.deployments.remove("nightly")
    assert deployed(spec(name="main"), bundle="b5") == {"main"}
    with pytest.raises(errors.NotFoundError):
        store.schedules.set("nightli", spec(name="audit"))
