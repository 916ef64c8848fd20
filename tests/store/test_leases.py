"""One process at a time drives a flow run; what an earlier one still writes counts for nothing."""

from __future__ import annotations

import dataclasses
import itertools
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import TypedDict

import pytest

from raflow import errors, model
from raflow.cli.doctor import Health, _record, run_checks
from raflow.model import RequestKind, StateName
from raflow.store import Store
from raflow.store._database import _clock
from tests.store import records, times

RUN = records.RUN


class Process(TypedDict):
    """Who takes over a run, and for how long."""

    host: str
    pid: int
    process_started: float
    seconds: float


def process(pid: int = 7) -> Process:
    return {"host": "here", "pid": pid, "process_started": 1.5, "seconds": 10.0}


@pytest.fixture
def driven(store: Store) -> Store:
    """A store with a run that process 1 has just begun to drive."""
    assert store.apply(records.batch(records.flow_run(pid=1)))
    return store


@pytest.fixture
def left(store: Store) -> Store:
    """A store with a run that nobody drives."""
    assert store.apply(records.batch(records.flow_run()))
    return store


def fenced(store: Store, incarnation: int, *, seq: int = 99) -> errors.FencedError:
    late = records.batch(records.task_run(), seq=seq, incarnation=incarnation)
    with pytest.raises(errors.FencedError) as caught:
        store.apply(late)
    return caught.value


# --- The fence ------------------------------------------------------------------------------------


def test_an_earlier_process_can_write_nothing(left: Store) -> None:
    assert left.leases.begin_incarnation(RUN, **process()) == 2
    before = left.find_flow_run(RUN)
    error = fenced(left, 1)
    assert (error.flow_run_id, error.incarnation, error.current) == (RUN, 1, 2)
    assert pickle.loads(pickle.dumps(error)).message == error.message
    assert "number 2 has taken over" in error.message
    assert left.task_runs(RUN) == []
    with pytest.raises(errors.FencedError):
        left.apply(records.batch(records.flow_run(state_name=StateName.FAILED), seq=99))
    assert left.find_flow_run(RUN) == before
    # Nothing was written, so the process that has the run now may use that number.
    assert left.apply(records.batch(records.task_run(), seq=99, incarnation=2))
    assert left.task_runs(RUN) == [records.task_run()]


def test_what_was_written_already_is_refused_too(left: Store) -> None:
    # It cannot be told from a batch of the new process with the same number.
    left.leases.begin_incarnation(RUN, **process())
    fenced(left, 1, seq=0)


def test_the_number_of_the_process_is_in_the_record(left: Store) -> None:
    assert left.find_flow_run(RUN).incarnation == 1
    left.leases.begin_incarnation(RUN, **process())
    assert left.find_flow_run(RUN).incarnation == 2
    assert left.apply(records.batch(records.flow_run(), seq=1, incarnation=2))
    assert left.find_flow_run(RUN).incarnation == 2


def test_a_higher_number_shuts_out_the_lower_ones(left: Store) -> None:
    # As for a subflow, whose parent was taken over.
    assert left.apply(records.batch(records.task_run(), seq=1, incarnation=3))
    assert left.find_flow_run(RUN).incarnation == 3
    fenced(left, 2)
    late = records.batch(records.flow_run(state_name=StateName.PENDING), seq=0, incarnation=4)
    assert left.apply(late) is False
    assert left.find_flow_run(RUN).incarnation == 3


def test_after_a_take_over_not_one_batch_of_the_other_comes_through(
    database_url: str, tmp_path: Path
) -> None:
    with Store.open(database_url, log_dir=tmp_path) as store:
        store.apply(records.batch(records.flow_run()))
        under_way = threading.Event()

        def write() -> int:
            with Store.open(database_url, log_dir=tmp_path) as writer:
                for seq in itertools.count(1):
                    items = [records.task_run(0, seq * 10 + i) for i in range(10)]
                    try:
                        writer.apply(records.batch(*items, seq=seq))
                    except errors.FencedError:
                        return seq - 1
                    if seq == 5:
                        under_way.set()
            raise AssertionError("the writer never ends by itself")

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            assert under_way.wait(30)
            assert store.leases.begin_incarnation(RUN, **process()) == 2
            next_batch = store.recall.numbers(RUN).batch
            written = writing.result(30)
        assert next_batch == store.recall.numbers(RUN).batch == written + 1
        assert len(store.task_runs(RUN)) == 10 * written


# --- Taking over ----------------------------------------------------------------------------------


def test_a_run_whose_process_lives_is_not_taken_over(left: Store) -> None:
    left.leases.begin_incarnation(RUN, **process(7))
    times.let_pass(left, 3)
    with pytest.raises(errors.RunIsAliveError) as caught:
        left.leases.begin_incarnation(RUN, **process(8))
    error = caught.value
    assert (error.host, error.pid) == ("here", 7)
    assert 6 < error.seconds_left <= 7
    assert "process 7 on host 'here' has driven it since " in error.message
    assert "told so 3 s ago" in error.message
    assert "wait 7 s" in error.message
    assert "--force" in error.message
    assert left.find_flow_run(RUN).incarnation == 2
    # Nor by another thread of the same process.
    with pytest.raises(errors.RunIsAliveError):
        left.leases.begin_incarnation(RUN, **process(7))


def test_a_run_whose_lease_is_over_is_taken_over(left: Store) -> None:
    left.leases.begin_incarnation(RUN, **process(7))
    times.let_pass(left, 11)
    assert left.leases.begin_incarnation(RUN, **process(8)) == 3
    lease = left.leases.get(RUN)
    assert lease is not None
    assert (lease.pid, lease.incarnation, lease.flow_run_id) == (8, 3, RUN)
    assert lease.since == lease.renewed_at == lease.expires_at - 10


def test_a_run_is_taken_by_force(left: Store) -> None:
    left.leases.begin_incarnation(RUN, **process(7))
    assert left.leases.begin_incarnation(RUN, **process(8), force=True) == 3
    fenced(left, 2)


def test_of_those_who_know_that_the_process_is_gone_one_takes_over(left: Store) -> None:
    left.leases.begin_incarnation(RUN, **process(7))
    gone = left.leases.get(RUN)
    assert left.leases.begin_incarnation(RUN, **process(8), gone=gone) == 3
    with pytest.raises(errors.RunIsAliveError, match="process 8 on host"):
        left.leases.begin_incarnation(RUN, **process(9), gone=gone)
    lease = left.leases.get(RUN)
    assert lease is not None
    assert lease.pid == 8


def test_of_twenty_that_take_over_one_does(left: Store) -> None:
    ready = threading.Barrier(20)

    def take_over(number: int) -> int | None:
        ready.wait()
        try:
            return left.leases.begin_incarnation(RUN, **process(number))
        except errors.RunIsAliveError:
            return None

    with ThreadPoolExecutor(20) as pool:
        won = [(n, number) for n, number in enumerate(pool.map(take_over, range(20))) if number]
    ((winner, incarnation),) = won
    lease = left.leases.get(RUN)
    assert lease is not None
    assert (lease.pid, lease.incarnation, incarnation) == (winner, 2, 2)


def test_of_twenty_that_force_each_has_its_own_number(left: Store) -> None:
    def take_over(number: int) -> int:
        return left.leases.begin_incarnation(RUN, **process(number), force=True)

    with ThreadPoolExecutor(20) as pool:
        numbers = list(pool.map(take_over, range(20)))
    assert sorted(numbers) == [*range(2, 22)]
    lease = left.leases.get(RUN)
    assert lease is not None
    assert (lease.incarnation, lease.pid) == (21, numbers.index(21))


@pytest.mark.parametrize(
    "name", ["Pending", "Running", "Paused", "Suspended", "AwaitingInput", "Cancelling"]
)
def test_a_run_that_was_left_in_the_middle_can_be_resumed(store: Store, name: str) -> None:
    store.apply(records.batch(records.flow_run(state_name=StateName(name))))
    assert store.leases.begin_incarnation(RUN, **process()) == 2


@pytest.mark.parametrize("name", ["Failed", "TimedOut", "Crashed", "Cancelled"])
def test_a_run_that_did_not_complete_can_be_resumed(store: Store, name: str) -> None:
    store.apply(records.batch(records.flow_run(state_name=StateName(name))))
    assert store.leases.begin_incarnation(RUN, **process()) == 2


@pytest.mark.parametrize("name", ["Completed", "Recovered", "Scheduled", "Skipped"])
def test_a_run_with_nothing_left_to_do_cannot_be_resumed(store: Store, name: str) -> None:
    store.apply(records.batch(records.flow_run(state_name=StateName(name))))
    with pytest.raises(errors.ResumeError, match=f"is {name}.*`raflow rerun {RUN}`"):
        store.leases.begin_incarnation(RUN, **process(), force=True)
    assert store.find_flow_run(RUN).incarnation == 1


def test_a_run_that_nobody_recorded(store: Store) -> None:
    with pytest.raises(errors.NotFoundError, match="No flow run 'nothing'"):
        store.leases.begin_incarnation("nothing", **process())
    assert store.leases.get("nothing") is None
    assert store.leases.is_alive("nothing") is False


# --- Renewing -------------------------------------------------------------------------------------


def test_who_records_a_run_first_drives_it(driven: Store) -> None:
    lease = driven.leases.get(RUN)
    assert lease is not None
    assert (lease.host, lease.pid, lease.incarnation) == ("host", 1, 1)
    with pytest.raises(errors.RunIsAliveError):
        driven.leases.begin_incarnation(RUN, **process())
    assert driven.leases.abandoned() == []
    times.let_pass(driven, 11)
    assert driven.leases.abandoned() == [driven.find_flow_run(RUN)]


def test_a_lease_is_renewed(driven: Store) -> None:
    times.let_pass(driven, 8)
    assert driven.leases.renew(RUN, 1, seconds=100, host="a", pid=3, process_started=4.5) == ()
    times.let_pass(driven, 20)
    assert driven.leases.is_alive(RUN)
    assert driven.leases.renew(RUN, 1, seconds=10) == ()
    lease = driven.leases.get(RUN)
    assert lease is not None
    assert (lease.host, lease.pid, lease.process_started) == ("a", 3, 4.5)
    assert 28 <= lease.renewed_at - lease.since < 100
    # Nobody took the run meanwhile.
    times.let_pass(driven, 11)
    assert not driven.leases.is_alive(RUN)
    driven.leases.renew(RUN, 1, seconds=10)
    assert driven.leases.is_alive(RUN)


def test_a_renewal_makes_the_lease_that_is_not_there(left: Store) -> None:
    assert left.leases.renew(RUN, 1, seconds=10, host="a", pid=3, process_started=4.5) == ()
    lease = left.leases.get(RUN)
    assert lease is not None
    assert (lease.host, lease.pid, lease.process_started) == ("a", 3, 4.5)


def test_a_renewal_tells_that_the_run_is_lost(left: Store) -> None:
    left.leases.begin_incarnation(RUN, **process())
    with pytest.raises(errors.FencedError):
        left.leases.renew(RUN, 1, seconds=10)
    left.leases.let_go(RUN, 2)
    with pytest.raises(errors.FencedError):
        left.leases.renew(RUN, 1, seconds=10)
    assert left.leases.get(RUN) is None


def test_a_renewal_brings_what_others_ask(driven: Store) -> None:
    asked = [
        driven.requests.ask(RUN, kind, by="ann@host")
        for kind in (RequestKind.PAUSE, RequestKind.UNPAUSE)
    ]
    assert driven.leases.renew(RUN, 1, seconds=10) == tuple(asked)
    driven.requests.answered(asked[0].id, "paused")
    assert driven.leases.renew(RUN, 1, seconds=10) == (asked[1],)


def test_a_run_that_is_not_on_record_yet_has_no_lease(store: Store) -> None:
    assert store.leases.renew(RUN, 1, seconds=10, host="a", pid=3) == ()
    assert store.leases.get(RUN) is None


def test_of_a_take_over_and_a_renewal_one_wins(left: Store) -> None:
    for number in range(2, 12):
        left.leases.renew(RUN, number - 1, seconds=10, host="old", pid=1)
        times.let_pass(left, 10.5)
        ready = threading.Barrier(2)

        def renew(incarnation: int = number - 1, ready: threading.Barrier = ready) -> bool:
            ready.wait()
            try:
                left.leases.renew(RUN, incarnation, seconds=10)
            except errors.FencedError:
                return False
            return True

        def take(ready: threading.Barrier = ready) -> bool:
            ready.wait()
            try:
                left.leases.begin_incarnation(RUN, **process())
            except errors.RunIsAliveError:
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            renewed, taken = pool.submit(renew), pool.submit(take)
            assert renewed.result() != taken.result()
        if renewed.result():
            left.leases.begin_incarnation(RUN, **process(), force=True)


@pytest.mark.postgres
def test_hosts_whose_clocks_differ_agree_on_who_lives(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(postgres_url, log_dir=tmp_path) as store:
        store.apply(records.batch(records.flow_run()))
        for wrong in (0.0, 4e9):
            monkeypatch.setattr(_clock, "time", SimpleNamespace(time=lambda at=wrong: at))
            store.leases.begin_incarnation(RUN, **process(), force=True)
            assert store.leases.is_alive(RUN)
            with pytest.raises(errors.RunIsAliveError):
                store.leases.begin_incarnation(RUN, **process())
        lease = store.leases.get(RUN)
    assert lease is not None
    assert abs(lease.renewed_at - time.time()) < 60


# --- Letting go -----------------------------------------------------------------------------------


def test_a_run_is_let_go(driven: Store) -> None:
    driven.limits.set(model.Limit(name="one", slots=1))
    wish = model.SlotRequest(holder="h", flow_run_id=RUN, label="x", amounts={"one": 1})
    assert driven.limits.acquire(wish, seconds=60)
    driven.leases.let_go(RUN, 2)
    assert driven.leases.is_alive(RUN)
    driven.leases.let_go(RUN, 1)
    driven.leases.let_go(RUN, 1)
    assert driven.leases.get(RUN) is None
    assert driven.limits.all()[0].holders == ()
    assert driven.leases.begin_incarnation(RUN, **process()) == 2


def test_a_run_that_is_over_gives_back_what_it_has(driven: Store) -> None:
    driven.limits.set(model.Limit(name="one", slots=1))
    wish = model.SlotRequest(holder="h", flow_run_id=RUN, label="x", amounts={"one": 1})
    assert driven.limits.acquire(wish, seconds=60)
    assert not driven.limits.acquire(dataclasses.replace(wish, holder="i"), seconds=60)
    assert driven.cache.claim("key", "h", seconds=60, flow_run_id=RUN)
    asked = driven.requests.ask(RUN, RequestKind.PAUSE, by="ann@host")
    driven.apply(records.batch(records.flow_run(state_name=StateName.FAILED), seq=1))
    assert driven.leases.get(RUN) is None
    assert (driven.limits.all()[0].holders, driven.limits.all()[0].waiters) == ((), ())
    assert driven.cache.claim("key", "other", seconds=60)
    (answered,) = driven.requests.of(RUN)
    assert answered == dataclasses.replace(asked, outcome="the flow run ended: Failed")
    # The thread that renews the lease may be a moment late.
    assert driven.leases.renew(RUN, 1, seconds=10) == ()
    assert driven.leases.get(RUN) is None


def test_a_resumed_run_keeps_its_lease_before_it_is_running_again(store: Store) -> None:
    store.apply(records.batch(records.flow_run(state_name=StateName.FAILED)))
    incarnation = store.leases.begin_incarnation(RUN, **process())
    times.let_pass(store, 8)
    assert store.leases.renew(RUN, incarnation, seconds=10) == ()
    assert store.leases.is_alive(RUN)


# --- Runs without a process, and subflows ---------------------------------------------------------


def test_which_runs_are_abandoned(store: Store) -> None:
    def add(run_id: str, name: StateName, *, pid: int = 0, parent: str | None = None) -> None:
        run = records.flow_run(
            run_id, state_name=name, pid=pid, parent_id=parent, created_at=float(len(run_id))
        )
        store.apply(records.batch(run, flow_run_id=run_id))

    for name in StateName:
        add(f"left-{name.value}", name)
    add("lives", StateName.RUNNING, pid=1)
    add("lives/child", StateName.RUNNING, pid=1, parent="lives")
    add("lives/child/child", StateName.RUNNING, pid=1, parent="lives/child")
    add("gone", StateName.RUNNING)
    add("gone/child", StateName.PENDING, pid=1, parent="gone")
    expected = {"left-Pending", "left-Submitted", "left-Running", "left-Retrying", "gone"}
    expected |= {"left-Paused", "left-AwaitingInput", "left-Cancelling", "gone/child"}
    expected |= {"left-AwaitingRetry"}
    found = store.leases.abandoned()
    assert {run.id for run in found} == expected
    assert [run.created_at for run in found] == sorted((len(i) for i in expected), reverse=True)
    assert store.leases.is_alive("lives/child/child")
    assert not store.leases.is_alive("gone/child")
    times.let_pass(store, 11)
    assert {run.id for run in store.leases.abandoned()} == expected | {
        "lives",
        "lives/child",
        "lives/child/child",
    }


def test_a_subflow_is_taken_over_by_whoever_has_its_parent(store: Store) -> None:
    store.apply(records.batch(records.flow_run("parent"), flow_run_id="parent"))
    child = records.flow_run("child", parent_id="parent", pid=1)
    store.apply(records.batch(child, flow_run_id="child"))
    assert store.leases.get("child") is None
    store.leases.begin_incarnation("parent", **process(7))
    with pytest.raises(errors.RunIsAliveError, match="'child' is part of flow run 'parent'"):
        store.leases.begin_incarnation("child", **process(8))
    assert store.leases.begin_incarnation("child", **process(7)) == 2
    times.let_pass(store, 11)
    assert store.leases.begin_incarnation("child", **process(8)) == 3


# --- Processes ------------------------------------------------------------------------------------


def test_processes_that_may_be_left_behind(driven: Store) -> None:
    first, second, third = (
        model.ProcessInfo(host="a", pid=pid, started_at=at, role=role)
        for pid, at, role in ((2, 1.5, "gcs"), (3, 2.5, "raylet"), (3, 99.5, "child"))
    )
    driven.leases.note_processes(RUN, [third, first])
    driven.leases.note_processes(RUN, [dataclasses.replace(first, role="driver"), second])
    driven.leases.note_processes(RUN, [])
    assert driven.leases.processes(RUN) == [
        dataclasses.replace(first, role="driver"),
        second,
        third,
    ]
    unknown = dataclasses.replace(first, host="b")
    driven.leases.note_processes(RUN, [], ended=[second, unknown])
    assert [process.pid for process in driven.leases.processes(RUN)] == [2, 3]
    assert driven.leases.processes("nothing") == []
    with pytest.raises(errors.NotFoundError):
        driven.leases.note_processes("nothing", [first])


def test_the_doctor_compares_the_clocks_and_finds_nothing_to_mend(
    store: Store, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert abs(store.now() - time.time()) < 60
    monkeypatch.setenv("RAFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("RAFLOW_DATABASE_URL", database_url)
    found = {check.name: check for check in run_checks(with_ray=False)}
    for name in ("database", "schedules", "workers"):
        assert found[name].health is Health.OK, found[name]
    assert found["clock"].found
    monkeypatch.setattr(_record, "_SKEW_SECONDS", -1.0)
    skewed = next(check for check in run_checks(with_ray=False) if check.name == "clock")
    in_file = database_url.startswith("sqlite")
    assert skewed.health is (Health.OK if in_file else Health.WARNING)
