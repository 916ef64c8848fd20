"""Many calls in one batch: each is itself all the same, whatever runs them and records them."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from raflow import allow_failure, errors, flow, get_run_context, task, unmapped
from raflow.model import Outcome, StateName, StateType, TaskRunKey
from tests.flows.conftest import World
from tests.waiting import LIMITS, wait_for


@task
def double(x: int) -> int:
    return 2 * x


@task
def odd_only(x: int) -> int:
    if x % 2 == 0:
        raise ValueError(f"{x} is even")
    return x


def test_a_thousand_calls_in_a_loop(world: World) -> None:
    @flow
    def many(count: int) -> int:
        return sum(f.result() for f in [double(x) for x in range(count)])

    assert many(1000) == 999_000
    runs = world.task_runs()
    assert len(runs) == 1000
    assert {run.state.name for run in runs.values()} == {StateName.COMPLETED}
    last = runs["double-999"]
    assert last.result is not None
    assert (last.result.inline, last.attempts) == (b"1998", 1)
    assert last.started_at is not None
    assert last.ended_at is not None
    assert last.created_at <= last.started_at <= last.ended_at
    (attempt,) = world.attempts("double-999")
    assert (attempt.outcome, attempt.number) == (Outcome.COMPLETED, 1)
    assert attempt.submitted_at <= last.started_at
    with world.store as store:
        story = store.states(last.flow_run_id, key=last.key)
    assert [change.state.name.value for change in story] == [
        "Pending",
        "Submitted",
        "Running",
        "Completed",
    ]


def test_items_that_fail_do_so_alone(world: World) -> None:
    @flow
    def mixed() -> int:
        futures = odd_only.map(range(200))
        values = futures.result(raise_on_failure=False)
        return sum(value for value in values if isinstance(value, int))

    assert mixed() == sum(range(1, 200, 2))
    runs = world.task_runs()
    names = [runs[f"odd_only-0[{item}]"].state.name for item in range(4)]
    assert names == [StateName.FAILED, StateName.COMPLETED] * 2
    error = runs["odd_only-0[4]"].error
    assert error is not None
    assert error.message == "4 is even"
    with world.store as store:
        run = store.find_flow_run("latest")
        assert store.task_run_counts(run.id) == {
            0: {StateType.COMPLETED: 100, StateType.FAILED: 100}
        }
        failed = store.task_runs(run.id, state_types={StateType.FAILED}, limit=3)
    assert [t.key.map_index for t in failed] == [0, 2, 4]


def test_each_item_has_its_own_retries(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    marks = tmp_path_factory.mktemp("marks")

    @task(retries=2)
    def flaky(x: int, marks: str) -> int:
        with open(f"{marks}/{x}", "a") as file:
            file.write(".")
            tries = file.tell()
        if tries <= x % 4:
            raise ValueError(f"try {tries} of {x}")
        return x

    @flow
    def retried() -> list[int]:
        values = flaky.map(range(40), marks=unmapped(str(marks))).result(raise_on_failure=False)
        return [value for value in values if isinstance(value, int)]

    assert retried() == [x for x in range(40) if x % 4 < 3]
    runs = world.task_runs()
    states = [runs[f"flaky-0[{x}]"].state.name for x in range(4)]
    assert states == [
        StateName.COMPLETED,
        StateName.RECOVERED,
        StateName.RECOVERED,
        StateName.FAILED,
    ]
    assert [runs[f"flaky-0[{x}]"].attempts for x in range(4)] == [1, 2, 3, 3]
    assert [(marks / str(x)).stat().st_size for x in range(4)] == [1, 2, 3, 3]


def test_a_map_over_a_map_goes_item_by_item(world: World) -> None:
    @flow
    def twice() -> list[int]:
        return double.map(double.map(range(500)))

    assert twice() == [4 * x for x in range(500)]
    with world.store as store:
        run = store.find_flow_run("latest")
        counts = store.task_run_counts(run.id)
    assert counts == {0: {StateType.COMPLETED: 500}, 1: {StateType.COMPLETED: 500}}


def test_items_behind_a_failed_item_do_not_run(world: World) -> None:
    @flow
    def chain() -> list[object]:
        second = double.map(odd_only.map(range(10)))
        return [type(v).__name__ for v in second.result(raise_on_failure=False)]

    assert chain() == ["UpstreamFailedError", "int"] * 5


def test_a_map_reads_an_iterator_as_it_goes(world: World) -> None:
    def numbers() -> Iterator[int]:
        yield from range(10_000)

    @flow
    def streamed() -> int:
        return sum(double.map(numbers()).result())

    assert streamed() == 2 * sum(range(10_000))
    with world.store as store:
        run = store.find_flow_run("latest")
        (node,) = store.graph(run.id).nodes
    assert node.length == 10_000


def test_an_iterator_that_breaks_fails_the_run_with_its_own_error(world: World) -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise OSError("the file is damaged")

    @flow
    def broken() -> list[int]:
        return double.map(numbers())

    with pytest.raises(OSError, match="the file is damaged"):
        broken()


def test_a_chain_keeps_the_state_of_each_call(world: World) -> None:
    @flow
    def chain(length: int) -> int:
        value = double(1)
        for _ in range(length):
            value = double(value)
        return value

    assert chain(40) == 2**41
    assert chain(40) == 2**41  # the second run knows how light the calls are
    runs = world.task_runs()
    assert len(runs) == 41
    ends = [runs[f"double-{n}"] for n in range(41)]
    for one, next_one in itertools.pairwise(ends):
        assert one.ended_at is not None
        assert next_one.started_at is not None
        assert one.ended_at <= next_one.started_at


def test_a_failure_in_a_chain_stops_what_follows(world: World) -> None:
    @flow
    def chain(start: int) -> int:
        return double(double(odd_only(double(start))))

    for _ in range(2):
        with pytest.raises(errors.UpstreamFailedError):
            chain(1)
    names = [world.task_runs()[label].state.name.value for label in ("odd_only-0", "double-1")]
    assert names == ["Failed", "UpstreamFailed"]


def test_a_long_call_does_not_hold_up_its_neighbours(world: World, tmp_path: Path) -> None:
    journal = tmp_path / "journal"

    @task
    def work(item: int, long: int) -> bool:
        if item == long:
            wait_for(lambda: len(journal.read_text()) == 100)
        else:
            with journal.open("a") as file:
                file.write(".")
        return True

    @flow
    def mixed(long: int) -> list[bool]:
        return work.map(range(101), long=unmapped(long))

    assert all(mixed(-1))  # learns that the task is light
    journal.write_text("")
    assert all(mixed(50))  # it ends when all others have ended


def test_a_call_that_travels_alone(world: World) -> None:
    @task(batch=False)
    def alone(x: int) -> int:
        return x

    @flow
    def single() -> list[int]:
        return alone.map(range(5))

    assert single() == list(range(5))
    starts = {run.attempts for run in world.task_runs().values()}
    assert starts == {1}


def test_async_items_overlap(world: World) -> None:
    @task(concurrency_per_worker=20)
    async def wait(x: int) -> tuple[float, float]:
        begun = time.time()
        await asyncio.sleep(0.3)
        return begun, time.time()

    @flow
    def waits() -> list[tuple[float, float]]:
        return wait.map(range(20))

    waits()
    for _ in range(10):  # until a batch begins so many before its budget is over
        spans = waits()
        overlapping = [s for s in spans if s[0] < min(end for _, end in spans)]
        if len(overlapping) >= 4:
            break
    assert len(overlapping) >= 4


def test_each_call_of_a_batch_has_its_own_log_and_context(world: World) -> None:
    @task
    def speak(x: int) -> str:
        if x % 3 == 0:
            print(f"this is {x}")
        return get_run_context().label

    @flow
    def talk() -> list[str]:
        return speak.map(range(30))

    assert talk() == [f"speak-0[{x}]" for x in range(30)]
    assert [line.text for line in world.log("speak-0[3]")] == ["this is 3"]
    assert [line.text for line in world.log("speak-0[27]")] == ["this is 27"]
    assert world.log("speak-0[4]") == []


def test_values_of_every_kind_come_through_a_batch(world: World) -> None:
    kinds = [None, True, 7, 2**70, 1.5, float("inf"), "text", "\udc80", b"bytes", [1], {"a": (1,)}]

    @task
    def give(number: int) -> object:
        return kinds[number]

    @flow(persist_result=False)
    def all_kinds() -> list[object]:
        return give.map(range(len(kinds)))

    assert all_kinds() == kinds
    previews = {
        label: run.result and run.result.preview for label, run in world.task_runs().items()
    }
    assert previews["give-0[2]"] == "7"
    assert all(preview for preview in previews.values())


def test_a_failure_that_is_allowed_reaches_its_item(world: World) -> None:
    @task
    def name(value: object) -> str:
        return type(value).__name__

    @flow
    def names() -> list[str]:
        return name.map(allow_failure(odd_only.map(range(4))))

    assert names() == ["ValueError", "int", "ValueError", "int"]


def test_futures_that_nobody_keeps_do_not_stop_their_calls(world: World) -> None:
    @flow
    def forgetful() -> None:
        for x in range(300):
            double(x)
        gc.collect()

    forgetful()
    assert len(world.task_runs()) == 300


def test_dropped_futures_may_still_be_inputs(world: World) -> None:
    @flow
    def nested() -> int:
        total = double(0)
        for x in range(50):
            total = add(double(x), total)
        return total

    @task
    def add(a: int, b: int) -> int:
        return a + b

    assert nested() == 2 * sum(range(50))


def test_a_run_that_is_cancelled_in_the_middle_of_batches(world: World) -> None:
    @task
    def slow(x: int) -> int:
        time.sleep(0.02)
        return x

    @flow
    def long() -> None:
        slow.map(range(2000))[0].result()
        raise KeyboardInterrupt

    assert long.run().flow_run.state.name is StateName.CANCELLED
    with world.store as store:
        run = store.find_flow_run("latest")
        counts = store.task_run_counts(run.id)[0]
        assert sum(counts.values()) == 2000
        assert set(counts) == {StateType.COMPLETED, StateType.CANCELLED}
        assert store.result(run.id, TaskRunKey(0, 0)) is not None


def test_a_map_over_an_iterator_that_is_cancelled_and_breaks_later(
    world: World, tmp_path: Path
) -> None:
    begun, interrupted, broken = (tmp_path / word for word in ("begun", "interrupted", "broken"))

    def numbers() -> Iterator[int]:
        yield from range(3)
        wait_for(interrupted.exists)
        broken.touch()
        raise OSError("too late to matter")

    @task
    def busy() -> None:
        begun.touch()
        while not broken.exists():
            try:
                time.sleep(0.05)
            except BaseException:
                interrupted.touch()

    @flow
    def cut_off() -> list[int]:
        busy()
        wait_for(begun.exists)
        return double.map(numbers()).result()

    for seconds in LIMITS:
        with pytest.raises(errors.FlowRunTimedOutError):
            cut_off.with_options(timeout_seconds=seconds)()
        assert world.last_run("cut_off").state.name is StateName.TIMED_OUT
        if broken.exists():
            break
    assert broken.exists()
