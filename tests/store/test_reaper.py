"""Runs that nobody looks after are put back, told late, or answered for."""

from __future__ import annotations

from raflow import model
from raflow.model import Stage, StateName, Work
from raflow.service import Reaper
from raflow.store import Store
from tests.store import orders, times
from tests.store.orders import begun, claim, order, ordered, record, stage_of, state_of


def pass_while_somebody_looks(store: Store, seconds: float) -> None:
    times.let_pass(store, seconds)
    # As if somebody had looked a moment ago.
    store.work.forgive(silence=1e9)


def test_a_look_puts_back_what_is_dead_and_tells_what_is_late(store: Store) -> None:
    woken: list[str] = []
    reaper = Reaper(store, wake=woken.append)
    reaper.look()
    begun(store, "r1")
    ordered(store, order("r2", pool="gpu"))
    assert len(claim(store, "w2", pool="gpu")) == 1
    store.work.worker_seen(orders.worker("w2", "gpu"), seconds=20)
    ordered(store, "r3")
    reaper.look()
    assert (woken, stage_of(store, "r1")) == ([], Stage.RUNNING)
    assert state_of(store, "r3") is StateName.SCHEDULED
    pass_while_somebody_looks(store, 25)
    reaper.look()
    assert woken == ["pool:gpu"]  # The worker has fallen silent, what it had not begun is put back.
    assert (stage_of(store, "r2"), store.work.workers()) == (Stage.WAITING, [])
    assert (stage_of(store, "r1"), state_of(store, "r3")) == (Stage.RUNNING, StateName.LATE)
    pass_while_somebody_looks(store, 10)
    reaper.look()
    assert woken == ["pool:gpu", "pool:default"]
    [_, resumed] = claim(store)  # The other one was due before.
    assert (resumed.work, resumed.flow_run.id) == (Work.RESUME, "r1")
    assert "'w1' has not been heard of" in resumed.flow_run.state.message


def test_after_an_outage_nobody_is_judged_by_the_first_look(store: Store) -> None:
    reaper = Reaper(store)
    reaper.look()
    begun(store, "r1")
    times.let_pass(store, 1000)
    for _ in range(3):
        reaper.look()
    assert stage_of(store, "r1") is Stage.RUNNING


def test_the_default_answer_wakes_a_suspended_run(store: Store) -> None:
    reaper = Reaper(store)
    reaper.look()
    taken = begun(store, "r1")
    question = model.InputRequest(
        flow_run_id="r1",
        number=0,
        title="Approval",
        form={},
        asked_at=1.0,
        expires_at=2.0,
        default=b"false",
    )
    store.requests.ask_person(question)
    record(store, taken, StateName.SUSPENDED)
    reaper.look()
    [answered] = store.requests.input_requests(flow_run_id="r1", open_only=False)
    assert (answered.answer, answered.answered_by) == (b"false", "")
    assert [one.work for one in claim(store)] == [Work.RESUME]


def test_a_question_without_a_default_is_the_business_of_its_run(store: Store) -> None:
    reaper = Reaper(store)
    reaper.look()
    taken = begun(store, "r1")
    question = model.InputRequest(
        flow_run_id="r1", number=0, title="Approval", form={}, asked_at=1.0, expires_at=2.0
    )
    store.requests.ask_person(question)
    record(store, taken, StateName.SUSPENDED)
    reaper.look()
    [asked] = store.requests.input_requests(flow_run_id="r1")
    assert asked.answer is None
    assert [one.work for one in claim(store)] == [Work.RESUME]
