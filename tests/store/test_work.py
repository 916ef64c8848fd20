"""Runs of deployments: ordered once, handed out once, and back when nobody does them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from raflow import errors, model
from raflow.model import PoolKind, Stage, StateName, Work
from raflow.store import Store
from raflow.store._work import _returns
from tests.store import orders, records, times
from tests.store.orders import (
    begun,
    claim,
    ids,
    limit_deployment,
    names_of,
    order,
    ordered,
    record,
    stage_of,
    state_of,
)

# --- Ordering -------------------------------------------------------------------------------------


def test_an_ordered_run_is_on_record_and_waits(store: Store) -> None:
    before = time.time()
    assert store.work.order([order("r1", tags=("a",))]) == [("r1", True)]
    run = store.find_flow_run("r1")
    assert (run.state.name, run.incarnation, run.tags) == (StateName.SCHEDULED, 0, ("a",))
    assert (run.parameters, run.trigger) == ({"day": 1}, model.Trigger.API)
    assert run.origin == order("r1").origin
    place = store.work.dispatch("r1")
    assert place is not None
    assert (place.stage, place.kind, place.deployment) == (Stage.WAITING, Work.RUN, "nightly")
    assert abs(place.begins_at - before) < 60
    assert names_of(store.states("r1")) == [StateName.SCHEDULED]
    # Nobody is missing.
    assert store.leases.abandoned() == []


def test_the_same_order_again_changes_nothing(store: Store) -> None:
    assert store.work.order([order("r1"), order("r1")]) == [("r1", True), ("r1", True)]
    assert store.work.order([order("r1")]) == [("r1", True)]
    assert [run.id for run in store.flow_runs()] == ["r1"]
    assert len(claim(store)) == 1
    # Not even when it has begun.
    assert store.work.order([order("r1")]) == [("r1", True)]
    assert stage_of(store, "r1") is Stage.CLAIMED


def test_a_key_stands_for_one_run(store: Store) -> None:
    first = order("r1", key="k", digest=b"1")
    assert store.work.order([first]) == [("r1", True)]
    again = order("r2", key="k", digest=b"1")
    assert store.work.order([order("r3"), again]) == [("r3", True), ("r1", False)]
    # The answer to the first one was lost, and it comes again as it was.
    assert store.work.order([first]) == [("r1", True)]
    with pytest.raises(errors.ConflictError, match="'k' was used for flow run 'r1'"):
        store.work.order([order("r4"), order("r5", key="k", digest=b"2")])
    # All or nothing.
    assert {run.id for run in store.flow_runs()} == {"r1", "r3"}


def test_a_key_twice_in_one_call(store: Store) -> None:
    both = [order("r1", key="k", digest=b"1"), order("r2", key="k", digest=b"1")]
    assert store.work.order(both) == [("r1", True), ("r1", False)]
    with pytest.raises(errors.ConflictError):
        store.work.order([order("r3", key="x", digest=b"1"), order("r4", key="x", digest=b"2")])
    assert [run.id for run in store.flow_runs()] == ["r1"]


def test_many_who_use_a_key_get_one_run(store: Store) -> None:
    def use(n: int) -> tuple[str, bool]:
        return store.work.order([order(f"r{n}", key="k", digest=b"1")])[0]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(use, range(16)))
    assert len({run for run, _ in answers}) == 1
    assert sum(new for _, new in answers) == 1
    assert len(store.flow_runs()) == 1


# --- Claims ---------------------------------------------------------------------------------------


def test_a_claimed_run_has_a_lease_and_begins_once(store: Store) -> None:
    ordered(store, "r1")
    [taken] = claim(store)
    assert (taken.work, taken.incarnation, taken.choice) == (Work.RUN, 1, None)
    assert taken.numbers == model.RunNumbers(batch=0, change=2, block=0, segment=0)
    assert taken.flow_run.state.name is state_of(store, "r1") is StateName.SUBMITTED
    assert store.leases.is_alive("r1")
    assert claim(store) == []
    assert record(store, taken, StateName.RUNNING)
    assert stage_of(store, "r1") is Stage.RUNNING
    run = store.find_flow_run("r1")
    # What the order said is kept, though records do not carry it.
    assert (run.origin, run.incarnation) == (order("r1").origin, 1)
    assert record(store, taken, StateName.COMPLETED)
    assert stage_of(store, "r1") is None
    assert store.leases.get("r1") is None


def test_a_claim_that_is_repeated_has_the_same_answer(store: Store) -> None:
    ordered(store, "r1", "r2", "r3")
    first = store.work.claim("default", "w1", most=2, seconds=30, claim="c")
    assert ids(first) == ["r1", "r2"]
    assert store.work.claim("default", "w1", most=2, seconds=30, claim="c") == first
    assert ids(claim(store)) == ["r3"]


def test_higher_priority_goes_first_then_what_is_due_first(store: Store) -> None:
    now = time.time()
    ordered(
        store,
        order("late", begins_at=now - 5),
        order("low", priority=-1, begins_at=now - 50),
        order("early", begins_at=now - 10),
        order("high", priority=1, begins_at=now - 1),
        order("future", priority=9, begins_at=now + 1000),
        order("other", pool="gpu"),
    )
    assert ids(claim(store, most=3)) == ["high", "early", "late"]
    assert ids(claim(store)) == ["low"]
    assert claim(store) == []
    times.let_pass(store, 2000)
    assert ids(claim(store)) == ["future"]
    assert ids(claim(store, pool="gpu")) == ["other"]


def test_equals_go_in_the_order_in_which_they_were_ordered(store: Store) -> None:
    names = [f"r{n}" for n in (3, 1, 2, 5, 4)]
    at = time.time() - 1
    ordered(store, *(order(name, begins_at=at) for name in names))
    assert [ids(claim(store, most=1))[0] for _ in names] == names


def test_a_pool_has_so_many_under_way_at_the_same_time(store: Store) -> None:
    store.work.set_pool(model.Pool(name="default", concurrency=2))
    ordered(store, *(f"r{n}" for n in range(5)))
    first, second = claim(store)
    assert claim(store) == []
    record(store, first, StateName.RUNNING)
    assert claim(store) == []
    record(store, first, StateName.COMPLETED)
    assert ids(claim(store)) == ["r2"]
    # Who is suspended makes room.
    record(store, second, StateName.RUNNING)
    record(store, second, StateName.SUSPENDED)
    assert stage_of(store, "r1") is Stage.PARKED
    assert ids(claim(store)) == ["r3"]
    store.work.set_pool(model.Pool(name="default", concurrency=3, paused=True))
    assert claim(store) == []
    store.work.set_pool(model.Pool(name="default", concurrency=3))
    assert ids(claim(store)) == ["r4"]


def test_a_deployment_has_so_many_under_way_and_holds_up_nobody_else(store: Store) -> None:
    limit_deployment(store, "nightly", 1)
    ordered(store, *(f"r{n}" for n in range(100)), order("x", deployment="hourly"))
    # Behind more runs than are looked at together.
    assert ids(claim(store, most=2)) == ["r0", "x"]
    assert claim(store, most=2) == []


def test_a_deployment_with_a_limit_of_nothing(store: Store) -> None:
    limit_deployment(store, "nightly", 0)
    ordered(store, "r1", order("x", deployment="hourly"))
    assert ids(claim(store)) == ["x"]


def test_nobody_has_such_a_pool(store: Store) -> None:
    ordered(store, order("r1", pool="gpus"))
    with pytest.raises(errors.NotFoundError, match=r"No work pool 'gpu'. Did you mean 'gpus'"):
        claim(store, pool="gpu")


@pytest.mark.parametrize("concurrency", [None, 3])
def test_many_workers_take_each_run_once_and_never_too_many(
    database_url: str, tmp_path: Path, concurrency: int | None
) -> None:
    """8 workers take 48 runs of two pools; one of two deployments has a limit."""
    with Store.open(database_url, log_dir=tmp_path / "logs", wait_seconds=60.0) as store:
        _take_all(store, concurrency)


def _take_all(store: Store, concurrency: int | None) -> None:
    limit_deployment(store, "nightly", 2)
    for pool in ("default", "gpu"):
        store.work.set_pool(model.Pool(name=pool, concurrency=concurrency))
    runs = [
        order(f"r{n}", deployment=("nightly", "hourly")[n % 2], pool=("default", "gpu")[n // 24])
        for n in range(48)
    ]
    ordered(store, *runs)
    deployment_of = {one.flow_run_id: one.origin.deployment for one in runs}
    active: Counter[str] = Counter()
    taken: list[str] = []
    lock, deadline = threading.Lock(), time.monotonic() + 120

    def work(n: int) -> None:
        pool = ("default", "gpu")[n % 2]
        while len(taken) < 48 and time.monotonic() < deadline:
            claims = claim(store, f"w{n}", most=2, pool=pool)
            with lock:
                taken.extend(ids(claims))
                for one in claims:
                    active[deployment_of[one.flow_run.id]] += 1
                    active[pool] += 1
                assert active["nightly"] <= 2
                assert concurrency is None or active[pool] <= concurrency
            if not claims:
                time.sleep(0.01)
            for one in claims:
                assert record(store, one, StateName.RUNNING)
                with lock:
                    # Before it ends on record: from then on another one may begin.
                    active[deployment_of[one.flow_run.id]] -= 1
                    active[pool] -= 1
                assert record(store, one, StateName.COMPLETED)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert sorted(taken) == sorted(deployment_of)
    assert {run.state.name for run in store.flow_runs()} == {StateName.COMPLETED}
    assert [state.counts for state in store.work.pools()] == [{}, {}]


# --- Back from workers ----------------------------------------------------------------------------


def test_a_run_that_is_given_back_waits_longer_each_time_and_fails_at_last(store: Store) -> None:
    ordered(store, "r1")
    for n in range(1, _returns.MOST_REFUSALS + 1):
        [taken] = claim(store)
        assert store.work.give_back("r1", taken.incarnation, message="no disk")
        place = store.work.dispatch("r1")
        assert place is not None
        assert (place.stage, place.refusals, place.message) == (Stage.WAITING, n, "no disk")
        assert place.worker_id is None
        assert state_of(store, "r1") is StateName.SCHEDULED
        assert claim(store) == []
        wait = place.begins_at - time.time()
        assert min(2**n, 60) - 5 < wait <= min(2**n, 60)
        # What the first worker still wants to write counts for nothing.
        with pytest.raises(errors.FencedError):
            record(store, taken, StateName.RUNNING)
        times.let_pass(store, 61)
    [taken] = claim(store)
    assert store.work.give_back("r1", taken.incarnation, message="no disk")
    run = store.find_flow_run("r1")
    assert (run.state.name, run.state.message) == (StateName.FAILED, "no disk")
    assert run.ended_at is not None
    assert stage_of(store, "r1") is None
    assert store.leases.get("r1") is None


def test_only_who_has_a_run_and_has_not_begun_gives_it_back(store: Store) -> None:
    assert not store.work.give_back("r1", 1, message="")
    ordered(store, "r1")
    assert not store.work.give_back("r1", 0, message="")
    [taken] = claim(store)
    assert not store.work.give_back("r1", taken.incarnation - 1, message="")
    record(store, taken, StateName.RUNNING)
    assert not store.work.give_back("r1", taken.incarnation, message="")
    assert state_of(store, "r1") is StateName.RUNNING


def test_what_no_worker_could_ever_begin_fails_at_once(store: Store) -> None:
    ordered(store, "r1")
    [taken] = claim(store)
    assert store.work.give_back("r1", taken.incarnation, message="no such flow", permanent=True)
    assert state_of(store, "r1") is StateName.FAILED


def test_a_claim_that_nobody_begins_is_put_back_when_its_lease_is_over(store: Store) -> None:
    ordered(store, "r1")
    [taken] = claim(store)
    assert store.work.dead() == []
    assert not store.work.put_back("r1", message="gone")
    times.let_pass(store, 31)
    [dead] = store.work.dead()
    assert (dead.flow_run_id, dead.stage, dead.incarnation) == ("r1", Stage.CLAIMED, 1)
    assert store.work.put_back("r1", message="gone")
    assert not store.work.put_back("r1", message="gone")
    assert store.work.dead() == []
    with pytest.raises(errors.FencedError):
        record(store, taken, StateName.RUNNING)
    assert [n.value for n in names_of(store.states("r1"))] == [
        *("Scheduled", "Submitted", "Scheduled")
    ]
    times.let_pass(store, 5)
    [again] = claim(store, "w2")
    assert again.incarnation > taken.incarnation + 1
    assert again.numbers.change == 4


def test_a_run_whose_process_died_goes_on_elsewhere_until_its_budget_is_over(store: Store) -> None:
    taken = begun(store, order("r1", max_resumes=1))
    times.let_pass(store, 31)
    assert [dead.stage for dead in store.work.dead()] == [Stage.RUNNING]
    # Whoever renews in time keeps it.
    store.leases.renew("r1", taken.incarnation, seconds=30)
    assert not store.work.put_back("r1", message="its worker died")
    times.let_pass(store, 31)
    assert store.work.put_back("r1", message="its worker died")
    run = store.find_flow_run("r1")
    assert (run.state.name, run.state.message) == (StateName.AWAITING_RETRY, "its worker died")
    assert "pool default" in run.state.reason
    # A machine of its own may look for runs without a process: this one has its place.
    assert store.leases.abandoned() == []
    with pytest.raises(errors.FencedError):
        record(store, taken, StateName.COMPLETED)
    [resumed] = claim(store, "w2")
    assert (resumed.work, resumed.numbers.batch) == (Work.RESUME, 1)
    assert record(store, resumed, StateName.RUNNING)
    assert store.work.put_back("r1", message="killed", died=resumed.incarnation)
    [last] = claim(store, "w3")
    assert (last.work, last.flow_run.state.name) == (Work.END, StateName.RUNNING)
    assert record(store, last, StateName.CRASHED)
    assert stage_of(store, "r1") is None


def test_a_process_that_died_is_not_waited_for_if_it_is_the_one(store: Store) -> None:
    taken = begun(store, "r1")
    assert not store.work.put_back("r1", message="killed", died=taken.incarnation - 1)
    assert store.work.put_back("r1", message="killed", died=taken.incarnation)
    assert not store.work.put_back("r1", message="killed", died=taken.incarnation)


def test_a_run_that_was_being_cancelled_is_ended_not_resumed(store: Store) -> None:
    taken = begun(store, "r1")
    record(store, taken, StateName.CANCELLING)
    assert store.work.put_back("r1", message="killed", died=taken.incarnation)
    [last] = claim(store)
    assert (last.work, last.flow_run.state.name) == (Work.END, StateName.CANCELLING)


def test_a_run_whose_process_died_before_it_heard_of_its_cancellation_is_ended(
    store: Store,
) -> None:
    taken = begun(store, "r1")
    store.requests.ask("r1", model.RequestKind.CANCEL, by="ann")
    assert store.work.put_back("r1", message="killed", died=taken.incarnation)
    place = store.work.dispatch("r1")
    assert place is not None
    assert (place.stage, place.kind, place.resumes) == (Stage.WAITING, Work.END, 0)


def test_what_failed_for_good_is_not_gone_on_with_by_a_process_that_was_given_up(
    store: Store,
) -> None:
    record(store, begun(store, "r1"), StateName.FAILED)
    store.work.requeue("r1")
    [taken] = claim(store)
    assert store.work.give_back("r1", taken.incarnation, message="no code", permanent=True)
    assert (stage_of(store, "r1"), state_of(store, "r1")) == (None, StateName.FAILED)
    # It may have been lost for so long only because it was held up.
    with pytest.raises(errors.FencedError):
        record(store, taken, StateName.RUNNING)


def test_a_run_that_its_worker_hands_over_waits_for_another_once_it_is_suspended(
    store: Store,
) -> None:
    mine, theirs = begun(store, "r1"), begun(store, "r2")
    store.work.hand_over("r1", by="worker w1", message="it ends")
    store.requests.ask("r2", model.RequestKind.SUSPEND, by="ann")
    record(store, mine, StateName.PAUSED)
    assert stage_of(store, "r1") is Stage.RUNNING
    record(store, mine, StateName.SUSPENDED)
    record(store, theirs, StateName.SUSPENDED)
    # In the same transaction: nobody has to live until it can say so.
    place = store.work.dispatch("r1")
    assert place is not None
    assert (place.stage, place.kind, place.worker_id) == (Stage.WAITING, Work.RESUME, None)
    assert stage_of(store, "r2") is Stage.PARKED
    # What was handed over once is parked like any other the next time.
    [again] = claim(store, "w2")
    record(store, again, StateName.RUNNING)
    record(store, again, StateName.SUSPENDED)
    assert stage_of(store, "r1") is Stage.PARKED


def test_a_run_that_nobody_can_end_has_crashed_at_last(store: Store) -> None:
    taken = begun(store, order("r1", max_resumes=0))
    assert store.work.put_back("r1", message="killed", died=taken.incarnation)
    for n in range(_returns.MOST_REFUSALS + 1):
        times.let_pass(store, 61)
        [last] = claim(store)
        assert last.work is Work.END
        if n % 2:
            record(store, last, StateName.CANCELLING)
        assert store.work.put_back("r1", message=f"killed {n}", died=last.incarnation)
    run = store.find_flow_run("r1")
    assert (run.state.name, run.state.message) == (StateName.CRASHED, "killed 10")
    assert stage_of(store, "r1") is None


def test_what_only_ends_a_run_needs_no_room(store: Store) -> None:
    taken = begun(store, order("r1", max_resumes=0))
    assert store.work.put_back("r1", message="killed", died=taken.incarnation)
    store.work.set_pool(model.Pool(name="default", concurrency=0))
    ordered(store, "r2")
    assert [one.work for one in claim(store)] == [Work.END]


def test_a_worker_that_is_gone_leaves_what_it_had_not_begun(store: Store) -> None:
    begun(store, "r1")
    ordered(store, "r2")
    assert len(claim(store)) == 1
    assert store.work.worker_gone("w1") == 1
    assert (stage_of(store, "r1"), stage_of(store, "r2")) == (Stage.RUNNING, Stage.WAITING)
    assert store.leases.is_alive("r1")


# --- Held, late, cancelled, resumed ---------------------------------------------------------------


def test_a_held_run_waits_for_those_of_its_schedule(store: Store) -> None:
    ordered(
        store,
        order("r1", schedule_id="s"),
        order("r3", schedule_id="s", stage=Stage.HELD, begins_at=30.0),
        order("r2", schedule_id="s", stage=Stage.HELD, begins_at=20.0),
        order("x", schedule_id="t", stage=Stage.HELD),
    )
    [first] = claim(store)
    record(store, first, StateName.RUNNING)
    assert claim(store) == []
    assert store.work.release_held() == 1  # That of the other schedule, which has nobody.
    assert ids(claim(store)) == ["x"]
    record(store, first, StateName.COMPLETED)
    assert ids(claim(store)) == ["r2"]
    assert stage_of(store, "r3") is Stage.HELD
    assert store.work.release_held() == 0
    assert store.work.cancel_waiting("r2", message="not today")
    assert ids(claim(store)) == ["r3"]


def test_a_run_that_no_worker_takes_is_late_once(store: Store) -> None:
    ordered(store, "r1", order("r2", begins_at=time.time() + 1000))
    assert store.work.mark_late(seconds=15) == 0
    times.let_pass(store, 16)
    assert store.work.mark_late(seconds=15) == 1
    assert store.work.mark_late(seconds=15) == 0
    assert (state_of(store, "r1"), state_of(store, "r2")) == (StateName.LATE, StateName.SCHEDULED)
    [taken] = claim(store)
    assert taken.flow_run.id == "r1"
    assert store.work.give_back("r1", taken.incarnation, message="no disk")
    times.let_pass(store, 100)
    assert store.work.mark_late(seconds=15) == 1
    assert names_of(store.states("r1")) == [
        *(StateName.SCHEDULED, StateName.LATE, StateName.SUBMITTED),
        *(StateName.SCHEDULED, StateName.LATE),
    ]


@pytest.mark.parametrize("stage", [Stage.HELD, Stage.WAITING, Stage.CLAIMED])
def test_a_run_that_has_not_begun_is_cancelled_at_once(store: Store, stage: Stage) -> None:
    held = Stage.HELD if stage is Stage.HELD else Stage.WAITING
    ordered(store, order("r1", stage=held))
    taken = claim(store) if stage is Stage.CLAIMED else []
    assert store.work.cancel_waiting("r1", message="cancelled by ann")
    run = store.find_flow_run("r1")
    assert (run.state.name, run.state.message) == (StateName.CANCELLED, "cancelled by ann")
    assert stage_of(store, "r1") is None
    assert not store.leases.is_alive("r1")
    for one in taken:
        with pytest.raises(errors.FencedError):
            record(store, one, StateName.RUNNING)
    assert not store.work.cancel_waiting("r1", message="again")


def test_a_run_that_has_begun_must_be_asked(store: Store) -> None:
    taken = begun(store, "r1")
    assert not store.work.cancel_waiting("r1", message="")
    assert store.work.put_back("r1", message="killed", died=taken.incarnation)
    # Its hooks, and what is to be undone, need a worker.
    assert not store.work.cancel_waiting("r1", message="")
    assert not store.work.cancel_waiting("nobody", message="")


def test_a_person_has_a_run_go_on(store: Store) -> None:
    taken = begun(store, order("r1", priority=5))
    with pytest.raises(errors.RunIsAliveError, match="running by a worker of pool 'default'"):
        store.work.requeue("r1")
    record(store, taken, StateName.FAILED)
    store.work.requeue("r1")
    store.work.requeue("r1")
    place = store.work.dispatch("r1")
    assert place is not None
    assert (place.stage, place.kind, place.priority) == (Stage.WAITING, Work.RESUME, 5)
    [again] = claim(store)
    assert (again.work, again.flow_run.state.name) == (Work.RESUME, StateName.FAILED)
    record(store, again, StateName.RUNNING)
    record(store, again, StateName.SUSPENDED)
    store.work.requeue("r1")
    [third] = claim(store)
    assert (third.work, third.flow_run.state.name) == (Work.RESUME, StateName.SUSPENDED)
    record(store, third, StateName.RUNNING)
    record(store, third, StateName.RECOVERED)
    with pytest.raises(errors.ResumeError, match="it completed"):
        store.work.requeue("r1")


def test_an_answer_wakes_a_run_that_was_suspended_for_it(store: Store) -> None:
    for run in ("r1", "r2"):
        taken = begun(store, run)
        question = model.InputRequest(
            flow_run_id=run, number=0, title="Approval", form={}, asked_at=1.0, expires_at=2.0
        )
        store.requests.ask_person(question)
        if run == "r1":
            assert store.work.due_questions() == []
            record(store, taken, StateName.SUSPENDED)
    # Whoever is there asks for the default itself.
    assert [one.flow_run_id for one in store.work.due_questions()] == ["r1"]
    for run in ("r1", "r2"):
        store.requests.answer_person(run, 0, answer=b"true", by="ann")
    assert store.work.due_questions() == []
    [again] = claim(store)
    assert (again.flow_run.id, again.work) == ("r1", Work.RESUME)
    assert stage_of(store, "r2") is Stage.RUNNING


def test_nobody_is_judged_after_a_time_in_which_nobody_looked(store: Store) -> None:
    begun(store, "r1")
    store.work.worker_seen(orders.worker(), seconds=30)
    assert not store.work.forgive(silence=10)
    assert not store.work.forgive(silence=10)
    times.let_pass(store, 100)
    assert [dead.flow_run_id for dead in store.work.dead()] == ["r1"]
    assert store.work.forgive(silence=10)
    assert store.work.dead() == []
    [worker] = store.work.workers()
    assert worker.expires_at > time.time()
    assert not store.work.forgive(silence=10)
    times.let_pass(store, 31)
    # Not for ever, if somebody looks all the time.
    assert len(store.work.dead()) == 1


def test_of_many_who_notice_a_silence_one_makes_up_for_it(store: Store) -> None:
    store.work.forgive(silence=10)
    begun(store, "r1")
    times.let_pass(store, 100)
    ordered(store, "r2")
    [renewed] = claim(store)
    before, fresh = store.leases.get("r1"), store.leases.get("r2")
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda _: store.work.forgive(silence=10), range(8))) == 1
    after = store.leases.get("r1")
    assert before is not None
    assert after is not None
    assert 90 < after.expires_at - before.expires_at < 130
    # Whoever was able to renew meanwhile needs nothing.
    assert (renewed.flow_run.id, store.leases.get("r2")) == ("r2", fresh)


def test_all_that_tells_why_a_run_waits(store: Store) -> None:
    limit_deployment(store, "nightly", 2)
    store.work.set_pool(model.Pool(name="default", concurrency=1))
    store.work.worker_seen(orders.worker(), seconds=30)
    store.work.worker_seen(orders.worker("w2", "gpu"), seconds=30)
    taken = begun(store, order("r1", schedule_id="s"))
    ordered(store, "r2", order("r3", schedule_id="s", priority=1), order("r4", deployment="x"))
    told = store.work.snapshot("r4")
    assert told.dispatch == store.work.dispatch("r4")
    assert told.flow_run == store.find_flow_run("r4")
    assert told.pool == store.work.pool("default")
    assert [worker.id for worker in told.workers] == ["w1"]
    assert (told.pool_holders, told.ahead) == (("r1",), 2)
    assert (told.concurrency, told.deployment_holders) == (None, ())
    assert (told.lease, told.requests, told.questions) == (None, (), ())
    third = store.work.snapshot("r3")
    assert (third.ahead, third.concurrency) == (0, 2)
    assert (third.deployment_holders, third.schedule_holders) == (("r1",), ("r1",))
    store.requests.ask("r1", model.RequestKind.PAUSE, by="ann")
    first = store.work.snapshot("r1")
    assert first.lease == store.leases.get("r1")
    assert [ask.by for ask in first.requests] == ["ann"]
    record(store, taken, StateName.COMPLETED)
    assert store.work.snapshot("r1").dispatch is None
    with pytest.raises(errors.NotFoundError):
        store.work.snapshot("nobody")


def test_a_pool_knows_when_its_next_run_may_begin(store: Store) -> None:
    assert store.work.due_in("default") is None
    ordered(store, order("r1", begins_at=5e9), order("r2", pool="gpu"))
    later = store.work.due_in("default")
    assert later is not None
    assert later > 1e9
    assert store.work.due_in("gpu") == 0.0


def test_only_runs_of_deployments_go_on_in_a_pool(store: Store) -> None:
    store.apply(records.batch(records.flow_run(state_name=StateName.FAILED)))
    with pytest.raises(errors.ResumeError, match="no worker has its code"):
        store.work.requeue(records.RUN)
    with pytest.raises(errors.NotFoundError):
        store.work.requeue("nobody")
    assert store.work.dispatch(records.RUN) is None


def test_a_run_that_waits_cannot_be_resumed_by_its_own_process(store: Store) -> None:
    ordered(store, "r1")
    with pytest.raises(errors.ResumeError, match="is Scheduled"):
        store.leases.begin_incarnation("r1", host="h", pid=1, process_started=1.0, seconds=9)


# --- Pools and workers ----------------------------------------------------------------------------


def test_pools_say_what_goes_on_in_them(store: Store) -> None:
    store.work.set_pool(
        model.Pool(name="gpu", concurrency=3, description="big", kind=PoolKind.LOCAL)
    )
    ordered(store, "r1", "r2", order("r3", begins_at=time.time() + 1000))
    claim(store, most=1)
    store.work.worker_seen(orders.worker("w1"), seconds=10)
    store.work.worker_seen(orders.worker("w2"), seconds=10)
    default, gpu = store.work.pools()
    assert default.pool == model.Pool(name="default")
    assert default.counts == {Stage.WAITING: 2, Stage.CLAIMED: 1}
    assert default.waiting_since is not None
    assert (default.workers, gpu.workers) == (2, 0)
    assert gpu == store.work.pool("gpu")
    assert (gpu.pool.concurrency, gpu.pool.kind, gpu.counts) == (3, PoolKind.LOCAL, {})
    with pytest.raises(errors.ConfigError, match="has 3 runs that are not over"):
        store.work.remove_pool("default")
    store.work.remove_pool("gpu")
    for missing in (store.work.remove_pool, store.work.pool):
        with pytest.raises(errors.NotFoundError, match="No work pool 'gpu'"):
            missing("gpu")
    with pytest.raises(errors.ConfigError, match="cannot be"):
        store.work.set_pool(model.Pool(name="x", concurrency=-1))


def test_a_worker_that_shall_drain_hears_of_it(store: Store) -> None:
    seen = store.work.worker_seen(orders.worker(), seconds=10)
    assert (seen.draining, seen.expires_at - seen.seen_at) == (False, 10)
    store.work.drain("w1")
    assert store.work.worker_seen(orders.worker(), seconds=10).draining
    assert [info.id for info in store.work.workers()] == ["w1"]
    assert store.work.workers("gpu") == []
    store.work.worker_gone("w1")
    assert store.work.workers() == []
    with pytest.raises(errors.NotFoundError, match="No worker 'w1'"):
        store.work.drain("w1")


def test_a_worker_keeps_what_it_has_not_begun_for_as_long_as_it_says_so(store: Store) -> None:
    ordered(store, "r1", "r2")
    assert len(claim(store)) == 2
    times.let_pass(store, 20)
    store.work.worker_seen(orders.worker(), seconds=30, claimed=["r1"])
    store.work.worker_seen(orders.worker("w2"), seconds=30, claimed=["r2"])
    times.let_pass(store, 20)
    assert [dead.flow_run_id for dead in store.work.dead()] == ["r2"]
