"""What a flow means, whatever it runs on and is recorded in."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pydantic
import pytest

from raflow import (
    SkipTask,
    allow_failure,
    errors,
    flow,
    get_run_context,
    get_run_logger,
    task,
    unmapped,
)
from raflow.model import StateName, StateType, TriggerRule
from tests.flows.conftest import World
from tests.waiting import LIMITS, wait_for


@task
def add(a: int, b: int = 1) -> int:
    return a + b


@task
def fail(message: str = "no") -> int:
    raise ValueError(message)


def test_values_flow_from_task_to_task(world: World) -> None:
    @flow
    def sums(start: int) -> int:
        return add(add(add(start)), b=10)

    assert sums(1) == 13
    run = world.last_run()
    assert (run.flow, run.state.name, run.backend) == ("sums", StateName.COMPLETED, world.backend)
    assert run.parameters == {"start": 1}
    assert run.result is not None
    assert run.result.inline == b"13"
    assert set(world.task_runs()) == {"add-0", "add-1", "add-2"}
    assert all(t.state.name is StateName.COMPLETED for t in world.task_runs().values())
    with world.store as store:
        edges = store.graph(run.id).edges
    assert [(e.source, e.target, e.parameter) for e in edges] == [(0, 1, "a"), (1, 2, "a")]


@dataclass
class Order:
    name: str
    amounts: dict[str, Any]


class Basket(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    items: list[Any]


def test_futures_are_found_at_any_depth(world: World) -> None:
    @task
    def total(order: Order, basket: Basket, more: tuple[Any, ...]) -> int:
        return int(sum(order.amounts.values()) + sum(basket.items) + more[0][0]["x"])

    @flow
    def shop() -> int:
        one, two = add(0), add(1)
        order = Order("o", {"a": one, "b": 5})
        return total(order, Basket(items=[two, 1]), ([{"x": two}], 3))

    assert shop() == 1 + 5 + 2 + 1 + 2


def test_returned_futures_are_resolved_wherever_they_are(world: World) -> None:
    @flow
    def many() -> dict[str, Any]:
        return {"one": add(0), "list": [add(1), 5], "map": add.map([1, 2])}

    assert many() == {"one": 1, "list": [2, 5], "map": [2, 3]}


def test_python_decides_with_result(world: World) -> None:
    @flow
    def branch(n: int) -> str:
        return "big" if add(n).result() > 10 else "small"

    assert branch(1) == "small"
    assert branch(10) == "big"


def test_tasks_run_in_parallel(world: World, tmp_path: Path) -> None:
    @task(num_cpus=1)
    def meet(mine: int, other: int) -> bool:
        (tmp_path / str(mine)).touch()
        wait_for((tmp_path / str(other)).exists)
        return True

    @flow
    def wide() -> list[bool]:
        return meet.map([1, 2], [2, 1])

    assert wide() == [True, True]


class TestMaps:
    def test_map_zips_and_unmapped_is_shared(self, world: World) -> None:
        @flow
        def squares() -> list[int]:
            return add.map([1, 2, 3], b=unmapped(10))

        assert squares() == [11, 12, 13]
        assert set(world.task_runs()) == {"add-0[0]", "add-0[1]", "add-0[2]"}

    def test_map_over_a_future_and_map_after_map(self, world: World) -> None:
        @task
        def listed(n: int) -> list[int]:
            return list(range(n))

        @flow
        def chain() -> int:
            mapped = add.map(add.map(listed(4)), b=[1, 1, 1, 1])
            return mapped[3]

        assert chain() == 5

    def test_a_map_is_a_sequence_of_futures(self, world: World) -> None:
        @flow
        def sliced() -> list[int]:
            mapped = add.map(range(5))
            assert len(mapped) == 5
            return [f.result() for f in mapped] + [add(f) for f in mapped[3:]]

        assert sliced() == [1, 2, 3, 4, 5, 5, 6]

    def test_an_empty_map(self, world: World) -> None:
        @task
        def count(items: list[int]) -> int:
            return len(items)

        @flow
        def empty() -> int:
            return count(add.map([]))

        assert empty() == 0

    def test_unequal_lengths_are_refused_by_name(self, world: World) -> None:
        @flow
        def wrong() -> None:
            add.map([1, 2], b=[1, 2, 3])

        with pytest.raises(errors.MappingLengthMismatchError, match=r"a.*2.*b.*3"):
            wrong()

    def test_unequal_lengths_found_later_fail_the_map(self, world: World) -> None:
        @task
        def listed() -> list[int]:
            return [1, 2, 3]

        @flow
        def wrong() -> None:
            add.map(listed(), b=[1, 2])

        with pytest.raises(errors.FlowRunFailedError) as caught:
            wrong()
        assert "equally long" in str(caught.value.__cause__)

    def test_one_item_fails_alone(self, world: World) -> None:
        @task
        def odd_fails(n: int) -> int:
            if n % 2:
                raise ValueError(f"{n} is odd")
            return n

        @task
        def keep(values: list[object]) -> list[str]:
            return [str(value) for value in values]

        @flow
        def some() -> list[str]:
            return keep(allow_failure(odd_fails.map([0, 1, 2])))

        assert some() == ["0", "1 is odd", "2"]


class TestFailure:
    def test_the_users_own_exception_comes_back_with_its_story(self, world: World) -> None:
        @flow
        def broken() -> int:
            return add(fail("very wrong"))

        with pytest.raises(errors.UpstreamFailedError, match="fail-0 did not complete"):
            broken()
        runs = world.task_runs()
        assert runs["fail-0"].state.name is StateName.FAILED
        assert runs["add-0"].state.name is StateName.UPSTREAM_FAILED
        assert runs["fail-0"].error is not None
        assert runs["fail-0"].error.type == "builtins.ValueError"
        assert "raise ValueError(message)" in runs["fail-0"].error.traceback
        assert "raflow/execute" not in runs["fail-0"].error.traceback

    def test_result_raises_the_exception_itself(self, world: World) -> None:
        @flow
        def caught() -> str:
            try:
                fail("very wrong").result()
            except ValueError as error:
                return "\n".join([str(error), *error.__notes__])
            return "nothing"

        told = caught()
        assert told.startswith("very wrong\nTask run 'fail-0' ended Failed")
        assert "raise ValueError(message)" in told
        assert world.last_run().state.name is StateName.COMPLETED

    def test_a_failure_that_nobody_looks_at_fails_the_flow(self, world: World) -> None:
        @flow
        def careless() -> int:
            fail()
            return 1

        with pytest.raises(errors.FlowRunFailedError, match="fail-0 did not complete") as caught:
            careless()
        assert isinstance(caught.value.__cause__, ValueError)
        assert world.last_run().state.name is StateName.FAILED

    def test_result_without_raising(self, world: World) -> None:
        @flow
        def polite() -> str:
            return type(fail().result(raise_on_failure=False)).__name__

        assert polite() == "ValueError"

    def test_an_exception_in_the_body_ends_the_run_and_keeps_what_is_done(
        self, world: World
    ) -> None:
        @flow
        def stops() -> None:
            add(1).result()
            raise RuntimeError("enough")

        with pytest.raises(RuntimeError, match="enough"):
            stops()
        run = world.last_run()
        assert run.state.name is StateName.FAILED
        assert run.error is not None
        assert "raise RuntimeError" in run.error.traceback
        assert world.task_runs()["add-0"].state.name is StateName.COMPLETED


class TestRetries:
    def test_a_success_after_a_failure_is_recovered(self, world: World, tmp_path: Any) -> None:
        marker = tmp_path / "tried"

        @task(retries=2, retry_delay_seconds=[0.1, 5])
        def second_time() -> str:
            if not marker.exists():
                marker.touch()
                raise ConnectionError("first time")
            return "there"

        @flow
        def patient() -> str:
            return second_time()

        assert patient() == "there"
        assert world.task_runs()["second_time-0"].state.name is StateName.RECOVERED
        first, second = world.attempts("second_time-0")
        assert (first.number, first.outcome, second.outcome) == (1, "failed", "completed")
        assert first.error is not None
        assert first.error.message == "first time"
        assert second.submitted_at - first.ended_at >= 0.09
        with world.store as store:
            run = world.last_run()
            names = [s.state.name for s in store.states(run.id, key=first.key)]
        assert StateName.AWAITING_RETRY in names

    def test_the_condition_sees_the_exception(self, world: World) -> None:
        def not_for_values(task_name: str, error: BaseException) -> bool:
            return not isinstance(error, ValueError)

        @flow
        def hopeless() -> None:
            fail.with_options(retries=5, retry_condition_fn=not_for_values)().result()

        with pytest.raises(ValueError, match="no"):
            hopeless()
        assert len(world.attempts("fail-0")) == 1

    def test_a_time_out_ends_the_code(self, world: World) -> None:
        @task(timeout_seconds=0.3)
        def slow() -> None:
            for _ in range(12_000):
                time.sleep(0.05)

        @flow
        def bounded() -> None:
            slow().result()

        with pytest.raises(errors.TaskTimedOutError, match=r"slow-0.*0\.3"):
            bounded()
        assert world.task_runs()["slow-0"].state.name is StateName.TIMED_OUT


class TestConditions:
    def test_skipping_is_visible_and_passes_down(self, world: World) -> None:
        @task
        def is_big(n: int) -> bool:
            return n > 10

        @flow
        def choose(n: int) -> tuple[Any, Any]:
            big = is_big(n)
            taken = add.submit(n, run_if=big)
            return taken, add(taken)

        assert choose(11) == (12, 13)
        assert choose(1) == (None, None)
        runs = world.task_runs()
        assert runs["add-0"].state.type is StateType.SKIPPED
        assert runs["add-0"].state.message == "run_if: is_big-0 is false"
        assert runs["add-1"].state.type is StateType.SKIPPED
        assert world.last_run().state.name is StateName.COMPLETED

    def test_a_task_can_skip_itself(self, world: World) -> None:
        @task
        def lazy() -> int:
            raise SkipTask("nothing to do")

        @task(run_if=lambda n: n > 1)
        def picky(n: int) -> int:
            return n

        @flow
        def quiet() -> tuple[Any, Any, Any]:
            return lazy(), picky(1), picky(2)

        assert quiet() == (None, None, 2)
        assert world.task_runs()["lazy-0"].state.message == "nothing to do"

    def test_a_trigger_rule_lets_a_task_clean_up(self, world: World) -> None:
        @task(trigger_rule="all_done")
        def clean(value: int | None) -> str:
            return f"cleaned {value}"

        @task(trigger_rule=TriggerRule.ONE_FAILED)
        def alarm(value: int | None) -> str:
            return "alarm"

        @flow
        def careful() -> tuple[str, str]:
            value = fail()
            return clean(value), alarm(value)

        assert careful() == ("cleaned None", "alarm")
        assert world.last_run().state.name is StateName.COMPLETED

    def test_wait_for_orders_without_data(self, world: World) -> None:
        @flow
        def ordered() -> int:
            return add.submit(1, wait_for=[add(5), fail.submit(run_if=False)])

        ordered()
        with world.store as store:
            kinds = {edge.kind for edge in store.graph(world.last_run().id).edges}
        assert kinds == {"order"}


class TestAsync:
    def test_async_flows_and_tasks(self, world: World) -> None:
        @task
        async def later(n: int) -> int:
            await asyncio.sleep(0.01)
            return n * 2

        @flow
        async def both() -> list[int]:
            first = await later(1)
            rest: Any = await asyncio.gather(later(2), later(3))
            return [first, *rest, later(4)]

        assert asyncio.run(both()) == [2, 4, 6, 8]
        assert world.last_run().state.name is StateName.COMPLETED

    def test_an_async_task_runs_out_of_time(self, world: World) -> None:
        @task(timeout_seconds=0.2)
        async def forever() -> None:
            await asyncio.sleep(600)

        @flow
        async def bounded() -> None:
            await forever()

        with pytest.raises(errors.TaskTimedOutError):
            asyncio.run(bounded())

    def test_tasks_get_their_grace_when_the_time_of_an_async_flow_is_over(
        self, world: World, tmp_path: Any
    ) -> None:
        begun, cleaned = tmp_path / "begun", tmp_path / "cleaned"

        @task
        def slow() -> None:
            try:
                begun.touch()
                for _ in range(12_000):
                    time.sleep(0.05)
            finally:
                time.sleep(0.5)
                cleaned.touch()

        @flow
        async def bounded() -> None:
            await slow()

        for seconds in (1, 5, 50):  # until the task begins in time, however slow the machine is
            with pytest.raises(errors.FlowRunTimedOutError):
                asyncio.run(bounded.with_options(timeout_seconds=seconds)())
            assert world.last_run().state.name is StateName.TIMED_OUT
            if begun.exists():
                break
        assert cleaned.exists()


class TestSubflows:
    def test_a_subflow_is_a_call_and_a_run_of_its_own(self, world: World) -> None:
        @flow
        def inner(n: int, day: date) -> int:
            assert isinstance(day, date)
            return add(n)

        @flow
        def outer() -> int:
            text: Any = "2026-01-01"
            return add(inner(add(1), day=text), b=inner(5, day=date(2026, 1, 2)))

        assert outer() == 3 + 6
        parent = world.last_run("outer")
        with world.store as store:
            children = store.flow_runs(parent=parent.id)
            assert {c.flow for c in children} == {"inner"}
            assert all(c.state.name is StateName.COMPLETED for c in children)
            assert all(c.trigger == "parent" for c in children)
            nodes = {t.label: t for t in store.task_runs(parent.id)}
        assert {nodes["inner-0"].child_flow_run_id, nodes["inner-1"].child_flow_run_id} == {
            child.id for child in children
        }

    def test_a_failing_subflow_fails_its_call(self, world: World) -> None:
        @flow
        def inner() -> int:
            return fail("inside")

        @flow
        def outer() -> str:
            try:
                inner.submit().result()
            except ValueError as error:
                return str(error)
            return "nothing"

        assert outer() == "inside"
        assert world.task_runs()["inner-0"].state.name is StateName.FAILED

    def test_allow_failure_hands_over_the_exception_of_a_subflow(self, world: World) -> None:
        @flow
        def inner() -> int:
            return fail("inside")

        @task
        def describe(error: object) -> str:
            return repr(error)

        @flow
        def outer() -> str:
            return describe(allow_failure(inner.submit()))

        assert outer() == "ValueError('inside')"

    def test_bad_parameters_of_a_subflow(self, world: World) -> None:
        @flow
        def inner(n: int) -> int:
            return n

        @task
        def word() -> str:
            return "seven"

        @flow
        def outer() -> int:
            return inner(word())

        with pytest.raises(errors.ParameterError, match=r"inner.*n"):
            outer()


class TestRecord:
    def test_logs_carry_task_attempt_and_time(self, world: World) -> None:
        @task
        def talk(n: int) -> None:
            print("hello", n)
            get_run_logger().warning("careful %s", n)

        @flow
        def chatty() -> None:
            get_run_logger().info("the body speaks")
            talk.map([1, 2])

        begun = time.time()
        chatty()
        lines = world.log("talk-0[1]")
        assert [line.text for line in lines] == ["hello 2", "careful 2"]
        assert [line.level for line in lines] == [20, 30]
        assert all(begun - 1 <= line.at <= time.time() + 1 for line in lines)
        assert [line.text for line in world.log()] == ["the body speaks"]

    def test_resources_used_are_recorded_per_attempt(self, world: World) -> None:
        @task
        def burn() -> int:
            end = time.process_time() + 0.3
            while time.process_time() < end:
                pass
            return len(bytearray(50_000_000))

        @flow
        def hot() -> int:
            return burn()

        hot()
        (attempt,) = world.attempts("burn-0")
        assert 0.2 < attempt.cpu_seconds < 10
        assert attempt.peak_memory > 50_000_000
        assert attempt.pid > 0
        assert attempt.host
        assert attempt.queue_wait is not None

    def test_a_task_knows_its_run(self, world: World) -> None:
        @task(task_run_name="who-{n}")
        def who(n: int) -> tuple[str, str, int, int]:
            context = get_run_context()
            return context.flow, context.label, context.attempt, context.run.map_index

        @flow(flow_run_name="named-{n}")
        def asked(n: int) -> list[Any]:
            return who.map([n])

        assert asked(7) == [("asked", "who-7", 1, 0)]
        assert world.last_run().name == "named-7"

    def test_hooks_are_called(self, world: World) -> None:
        told: list[tuple[str, str]] = []

        def note(owner: Any, run: Any, state: Any) -> None:
            told.append((owner.name, str(state.name)))

        @task(on_completion=[note], on_failure=[note])
        def hooked(good: bool) -> None:
            if not good:
                raise ValueError("bad")

        @flow(on_completion=[note], on_failure=[note])
        def hooks(good: bool) -> None:
            hooked(good)

        hooks(True)
        with pytest.raises(errors.FlowRunFailedError):
            hooks(False)
        assert told == [
            ("hooked", "Completed"),
            ("hooks", "Completed"),
            ("hooked", "Failed"),
            ("hooks", "Failed"),
        ]

    def test_a_flow_that_takes_too_long(self, world: World) -> None:
        @task
        def slow() -> None:
            for _ in range(12_000):
                time.sleep(0.05)

        @flow
        def bounded() -> None:
            slow().result()

        for seconds in LIMITS:
            with pytest.raises(errors.FlowRunTimedOutError):
                bounded.with_options(timeout_seconds=seconds)()
            assert world.last_run().state.name is StateName.TIMED_OUT
            runs = world.task_runs()
            if runs:
                break
        assert runs["slow-0"].state.name is StateName.CANCELLED


class TestBadInput:
    def test_parameters_are_checked_before_anything_runs(self, world: World) -> None:
        @flow
        def typed(n: int) -> int:
            return n

        with pytest.raises(errors.ParameterError, match="n"):
            typed.validate("seven")
        wrong: Any = "seven"
        with pytest.raises(errors.ParameterError, match="n"):
            typed(wrong)
        with world.store as store:
            assert store.flow_runs() == []

    def test_a_future_used_as_a_value(self, world: World) -> None:
        @flow
        def wrong() -> None:
            if add(1):  # type: ignore[truthy-bool]  # the mistake in question
                pass

        with pytest.raises(errors.FutureUsedAsValueError, match=r"add.*test_semantics\.py:\d+"):
            wrong()
        assert world.last_run().state.name is StateName.FAILED

    def test_a_hint_that_cannot_be_met_is_refused_before_anything_runs(self, world: World) -> None:
        big = add.with_options(num_cpus=10_000)

        @flow
        def greedy() -> None:
            add(1)
            big(1)

        with pytest.raises(errors.InfeasibleResourcesError, match=r"'add'.*num_cpus=10000.*most"):
            greedy()
        with world.store as store:
            assert store.flow_runs() == []

    def test_a_hint_of_one_call_that_cannot_be_met(self, world: World) -> None:
        @flow
        def greedy(gpus: int) -> None:
            add(1).result()
            add.with_options(num_gpus=gpus)(1)

        with pytest.raises(errors.InfeasibleResourcesError, match=r"num_gpus=64.*no node has any"):
            greedy(64)
        assert world.task_runs()["add-0"].state.name is StateName.COMPLETED

    def test_result_storage_that_cannot_be_written(self, world: World, tmp_path: Any) -> None:
        blocked = tmp_path / "file"
        blocked.write_text("not a directory")

        @task(persist_result=True, result_storage=str(blocked / "results"))
        def kept() -> int:
            return 1

        @flow
        def stores() -> None:
            kept()

        with pytest.raises(errors.ResultStorageError, match="file/results"):
            stores()
