"""Flows that are tried again: the same run goes on, and what it has done stays done."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raflow import errors, flow, task
from raflow.model import FlowRun, RequestKind, StateName
from raflow.runtime import FlowOutcome
from tests.flows.conftest import World
from tests.waiting import LIMITS, PATIENCE_SECONDS

N = StateName


def note(journal: str, number: int) -> None:
    with Path(journal).open("a", encoding="utf-8") as file:
        file.write(f"{number}\n")


@task
def add(journal: str, a: int, b: int = 1) -> int:
    note(journal, a)
    return a + b


@task
def lasting() -> None:
    for _ in range(12_000):
        time.sleep(0.05)


@pytest.fixture
def journal(tmp_path: Path) -> str:
    path = tmp_path / "journal"
    path.touch()
    return str(path)


def added(journal: str) -> Counter[int]:
    return Counter(map(int, Path(journal).read_text(encoding="utf-8").split()))


def eventually(look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def states(world: World, run: FlowRun) -> list[StateName]:
    with world.store as store:
        return [change.state.name for change in store.states(run.id)]


def test_a_flow_that_failed_goes_on_as_the_same_run(world: World, journal: str) -> None:
    tries: list[int] = []

    @flow(retries=2, retry_delay_seconds=0.05)
    def patient(start: int, lock: Any) -> int:
        assert not lock.locked()  # what no other process could be given
        tries.append(start)
        first = add(journal, start)
        items = add.map([journal] * 3, [10, 20, 30])
        items.wait()
        big, more = make(journal, 60), make.map([journal] * 2, [61, 62])
        if len(tries) < 3:
            first.wait(), big.wait(), more.wait()
            raise RuntimeError(f"no luck at try {len(tries)}")
        size = len(big.result()) + sum(map(len, more.result()))
        return sum(items.result(), add(journal, first, size).result())

    @task(persist_result=False)
    def make(journal: str, size: int) -> bytes:
        note(journal, size)
        return bytes(size)

    assert patient(4, threading.Lock()) == 63 + 5 + 60 + 61 + 62
    assert tries == [4, 4, 4]
    run = world.last_run("patient")
    assert (run.state.name, run.error, run.incarnation) == (N.RECOVERED, None, 1)
    assert run.ended_at is not None
    with world.store as store:
        assert len(store.flow_runs()) == 1
        history = [change.state for change in store.states(run.id)]
        assert not store.leases.is_alive(run.id)
    assert [state.name for state in history] == [
        *(N.PENDING, N.RUNNING, N.AWAITING_RETRY, N.RUNNING, N.AWAITING_RETRY),
        *(N.RUNNING, N.RECOVERED),
    ]
    assert history[2].message == "RuntimeError: no luck at try 1"
    assert history[2].reason == "attempt 2 of 3 in 0.05 s"
    assert [history[at].message for at in (3, 5, 6)] == [
        *("attempt 2 of 3", "attempt 3 of 3", "attempt 3 of 3"),
    ]
    assert history[3].at - history[2].at >= 0.05
    # What was not kept is still there in this process.
    assert added(journal) == dict.fromkeys((4, 10, 20, 30, 60, 61, 62, 5), 1)


def test_what_failed_runs_again_and_its_retries_are_fresh(world: World, journal: str) -> None:
    @task(retries=1)
    def picky(journal: str, item: int) -> int:
        note(journal, item)
        if item == 1 and added(journal)[1] < 4:
            raise ValueError(f"not {item}")
        return item

    @flow(retries=1)
    def mapped(journal: str) -> list[int]:
        return picky.map([journal] * 3, range(3)).result()

    assert mapped(journal) == [0, 1, 2]
    assert added(journal) == {0: 1, 1: 4, 2: 1}
    assert [attempt.number for attempt in world.attempts("picky-0[1]")] == [1, 2, 3, 4]
    assert world.task_runs()["picky-0[1]"].state.name is N.RECOVERED


def test_retries_of_async_flows_and_of_subflows_end(world: World, journal: str) -> None:
    bodies: list[str] = []

    @task
    def fail() -> int:
        raise ValueError("always")

    @flow(retries=1)
    def inner(journal: str) -> int:
        bodies.append("inner")
        return fail.submit(wait_for=add(journal, 1))

    @flow(retries=1)
    async def outer(journal: str) -> int:
        bodies.append("outer")
        return await inner.submit(journal)

    with pytest.raises(ValueError, match="always"):
        asyncio.run(outer(journal))
    assert bodies == ["outer", "inner", "inner", "outer", "inner", "inner"]
    assert added(journal) == {1: 1}
    with world.store as store:
        runs = {run.flow: run for run in store.flow_runs()}
        assert len(store.flow_runs()) == len(runs) == 2
    assert {run.state.name for run in runs.values()} == {N.FAILED}
    assert states(world, runs["outer"]).count(N.AWAITING_RETRY) == 1
    # Each attempt of the run above has all attempts of the one below.
    assert states(world, runs["inner"]).count(N.AWAITING_RETRY) == 2
    assert runs["inner"].parent_id == runs["outer"].id


def test_an_async_flow_recovers(world: World, journal: str) -> None:
    tries: list[int] = []

    @flow(retries=3, retry_delay_seconds=[0, 0.05])
    async def unlucky(journal: str) -> int:
        first = await add.submit(journal, 1)
        tries.append(first)
        if len(tries) < 3:
            raise RuntimeError("no luck")
        return first

    assert asyncio.run(unlucky(journal)) == 2
    assert (len(tries), added(journal)) == (3, {1: 1})
    assert world.last_run().state.name is N.RECOVERED


def test_each_attempt_has_the_whole_time_limit(world: World, journal: str) -> None:
    tries: list[int] = []

    @flow(retries=1, retry_delay_seconds=0.1)
    def slow(journal: str) -> int:
        tries.append(1)
        value = add(journal, 1).result()
        if len(tries) == 1:
            lasting().result()
        return value

    for seconds in LIMITS:
        tries.clear()
        outcome = slow.with_options(timeout_seconds=seconds).run(journal)
        if outcome.error is None:
            break
    assert outcome.unwrap() == 2
    run = world.last_run()
    assert run.state.name is N.RECOVERED
    assert states(world, run)[2:4] == [N.CANCELLING, N.AWAITING_RETRY]


on_each_database = pytest.mark.parametrize(
    "world",
    [
        pytest.param(("local", "sqlite"), id="sqlite"),
        pytest.param(("local", "postgres"), id="postgres", marks=pytest.mark.postgres),
    ],
    indirect=True,
)


class Waiting:
    """A flow that has failed once, and waits long for its next attempt."""

    def __init__(self, world: World, journal: str) -> None:
        self.world = world
        self.tries: list[int] = []
        self.outcome: FlowOutcome | None = None

        @flow(retries=2, retry_delay_seconds=[600, 0])
        def unlucky(journal: str) -> int:
            self.tries.append(1)
            first = add(journal, 1)
            if len(self.tries) < 3:
                first.wait()
                raise RuntimeError("no luck")
            return first.result()

        def work() -> None:
            outcome = unlucky.run(journal)
            assert isinstance(outcome, FlowOutcome)
            self.outcome = outcome

        self.flow = unlucky
        self._thread = threading.Thread(target=work)
        self._thread.start()
        self.run = eventually(self._waiting)

    def _waiting(self) -> FlowRun | None:
        with self.world.store as store:
            return next(iter(store.flow_runs(state_types=[N.AWAITING_RETRY.type])), None)

    def ask(self, kind: RequestKind) -> None:
        with self.world.store as store:
            store.requests.ask(self.run.id, kind, by="somebody")

    def ended(self) -> FlowOutcome:
        self._thread.join(PATIENCE_SECONDS)
        assert self.outcome is not None
        return self.outcome


@on_each_database
def test_a_run_that_waits_for_its_next_attempt_is_cancelled(world: World, journal: str) -> None:
    waiting = Waiting(world, journal)
    assert waiting.run.error is not None
    assert waiting.run.state.reason == "attempt 2 of 3 in 600 s"
    with world.store as store:
        assert store.leases.is_alive(waiting.run.id)
    waiting.ask(RequestKind.CANCEL)
    outcome = waiting.ended()
    assert isinstance(outcome.error, errors.FlowRunCancelledError)
    assert outcome.flow_run.state.name is N.CANCELLED
    assert len(waiting.tries) == 1
    assert states(world, waiting.run)[-3:] == [N.AWAITING_RETRY, N.CANCELLING, N.CANCELLED]


@on_each_database
def test_a_run_that_waits_for_its_next_attempt_is_suspended(world: World, journal: str) -> None:
    waiting = Waiting(world, journal)
    waiting.ask(RequestKind.SUSPEND)
    assert isinstance(waiting.ended().error, errors.FlowRunSuspendedError)
    # Elsewhere it does not wait any more; that it has had an attempt counts there, too.
    outcome = waiting.flow.resume(waiting.run.id)
    assert outcome.unwrap() == 2
    assert (len(waiting.tries), added(journal)) == (3, {1: 1})
    with world.store as store:
        told = [change.state.reason for change in store.states(waiting.run.id)]
    assert "attempt 3 of 3 in 0 s" in told
    assert outcome.flow_run.incarnation == 2


@on_each_database
def test_a_run_that_is_paused_while_it_waits_starts_nothing(world: World, journal: str) -> None:
    bodies: list[int] = []
    paused = threading.Event()

    @flow(retries=1, retry_delay_seconds=1.5)
    def unlucky(journal: str) -> int:
        bodies.append(1)
        if len(bodies) == 1:
            raise RuntimeError("no luck")
        assert paused.wait(PATIENCE_SECONDS)
        return add(journal, 1).result()

    def steer() -> None:
        # Whoever is slow finds that the next attempt has begun.
        run = eventually(lambda: waits(N.RUNNING if len(bodies) > 1 else N.AWAITING_RETRY))
        with world.store as store:
            store.requests.ask(run.id, RequestKind.PAUSE, by="somebody")
            eventually(lambda: waits(N.PAUSED))
            paused.set()
            seen.append(added(journal).total())
            store.requests.ask(run.id, RequestKind.UNPAUSE, by="somebody")

    def waits(name: StateName) -> FlowRun | None:
        with world.store as store:
            return next((run for run in store.flow_runs() if run.state.name is name), None)

    seen: list[int] = []
    thread = threading.Thread(target=steer)
    thread.start()
    assert unlucky(journal) == 2
    thread.join()
    assert seen == [0]


def test_hooks_and_rollback_wait_for_the_final_failure(world: World, journal: str) -> None:
    called: list[str] = []

    @task
    def first(journal: str) -> int:
        note(journal, 1)
        return 2

    @first.on_rollback
    def undone(*_: object) -> None:
        called.append("undone")

    @flow(retries=1)
    def unlucky(journal: str) -> None:
        first(journal).wait()
        raise RuntimeError("no luck")

    @unlucky.on_failure
    def failed(*_: object) -> None:
        called.append("failed")

    with pytest.raises(RuntimeError, match="no luck"):
        unlucky(journal)
    assert sorted(called) == ["failed", "undone"]
    assert added(journal) == {1: 1}


def test_a_body_that_goes_another_way_is_not_tried_any_more(world: World, journal: str) -> None:
    tries: list[int] = []

    @flow(retries=5)
    def fickle(journal: str) -> int:
        tries.append(1)
        done = (add if len(tries) == 1 else add.with_options(name="other"))(journal, 1)
        done.wait()
        raise RuntimeError("no luck")

    with pytest.raises(errors.ResumeError, match=r"now 'other-0', not 'add-0'"):
        fickle(journal)
    assert len(tries) == 2
    assert world.last_run().state.name is N.FAILED
