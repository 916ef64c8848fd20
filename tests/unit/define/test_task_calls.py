"""What a call of a task does, in a flow and elsewhere."""

from __future__ import annotations

import asyncio
import functools
import pickle
import threading
from typing import Any

import cloudpickle
import pytest

from raflow import errors
from raflow.define import (
    BoundTask,
    Dependency,
    Hole,
    Task,
    TaskFuture,
    TaskRunContext,
    active_task,
    allow_failure,
    flow,
    task,
    unmapped,
)
from raflow.model import EdgeKind, NodeKind, TaskRunKey
from tests.unit.define.fake_flow import FakeFlow, body_of, rows


@task
def add(a: int, b: int = 2) -> int:
    """Add two numbers.

    That is all.
    """
    return a + b


@task
def collect(*rows: Any, **named: Any) -> tuple[Any, Any]:
    return rows, named


@task
async def fetch(url: str) -> str:
    return url.upper()


class Store:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    @task
    def scaled(self, n: int) -> int:
        return self.factor * n

    @staticmethod
    @task
    def inner_static(n: int) -> int:
        return n + 1

    @task
    @staticmethod
    def outer_static(n: int) -> int:
        return n + 2

    @task
    @classmethod
    def named(cls, n: int) -> str:
        return f"{cls.__name__}{n}"


def in_task() -> TaskRunContext:
    return TaskRunContext(
        flow_run_id="r",
        flow="etl",
        flow_run_name="r-1",
        task="add",
        label="add-0",
        run=TaskRunKey(0),
        attempt=1,
    )


def test_a_task_keeps_what_describes_its_function() -> None:
    assert (add.name, add.version, add.fn(1, 1)) == ("add", "", 2)
    assert add.description == "Add two numbers.\n\nThat is all."
    assert (vars(add)["__name__"], add.__doc__, add.__module__) == ("add", add.fn.__doc__, __name__)
    assert repr(add) == "<Task 'add'>"
    assert (add.is_async, fetch.is_async) == (False, True)


def test_outside_a_flow_a_task_is_the_plain_function() -> None:
    assert add(1) == 3
    assert asyncio.run(fetch("x")) == "X"
    assert add(allow_failure(1), b=1) == 2


def test_inside_a_running_task_a_task_is_the_plain_function(body: FakeFlow) -> None:
    token = active_task.set(in_task())
    try:
        assert add(1) == 3
        with pytest.raises(errors.DefinitionError, match=r"`.submit\(\)` was called inside a run"):
            add.submit(1)
    finally:
        active_task.reset(token)
    assert body.requests == []


def test_in_a_flow_a_call_returns_a_future_at_once(body: FakeFlow) -> None:
    future = add(1, b=3)
    assert isinstance(future, TaskFuture)
    assert (future.key, repr(future)) == ("add-0", "<TaskFuture add-0>")
    assert add(1).key == "add-1"
    request = body.requests[0]
    assert (request.kind, request.target, request.options) == (NodeKind.TASK, add, add.options)
    assert (request.arguments, request.dependencies) == ({"a": 1, "b": 3}, ())
    assert (request.items, request.runnable) == (None, True)
    assert request.line.startswith("test_task_calls.py:")


def test_a_future_as_argument_makes_an_edge(body: FakeFlow) -> None:
    add(add(1), b=[add(2), {"x": add(3)}])  # type: ignore[arg-type]  # on purpose
    assert body.last.arguments == {"a": Hole(0), "b": [Hole(1), {"x": Hole(2)}]}
    assert body.last.dependencies == (
        Dependency(source=0, parameter="a"),
        Dependency(source=1, parameter="b"),
        Dependency(source=2, parameter="b"),
    )


def test_the_same_future_twice_in_one_argument_is_one_edge(body: FakeFlow) -> None:
    one = add(1)
    collect([one, one], one)
    assert body.last.arguments == {"rows": ([Hole(0), Hole(0)], Hole(0))}
    assert body.last.dependencies == (Dependency(source=0, parameter="rows"),)


def test_options_by_keyword_give_their_own_names_to_edges(body: FakeFlow) -> None:
    collect(1, left=add(1), right=add(2))
    assert body.last.arguments == {"rows": (1,), "named": {"left": Hole(0), "right": Hole(1)}}
    assert [d.parameter for d in body.last.dependencies] == ["left", "right"]


def test_allow_failure_marks_the_edge(body: FakeFlow) -> None:
    one, two = add(1), add(2)
    collect(allow_failure(one), [allow_failure([two, 3])], two)
    assert body.last.arguments == {"rows": (Hole(0), [[Hole(1), 3]], Hole(2))}
    assert [d.allow_failure for d in body.last.dependencies] == [True, True, False]


def test_a_whole_map_and_one_item_of_it(body: FakeFlow) -> None:
    mapped = add.map([1, 2, 3])
    collect(mapped, mapped[2], mapped[-3])
    assert body.last.arguments == {"rows": (Hole(0), Hole(1), Hole(2))}
    assert [d.source_item for d in body.last.dependencies] == [None, 2, 0]
    assert {d.kind for d in body.last.dependencies} == {EdgeKind.DATA}


def test_submit_adds_conditions(body: FakeFlow) -> None:
    one, two = add(1), add.map([2])
    add.submit(3, wait_for=[one, [allow_failure(two)]], run_if=one)
    assert body.last.arguments == {"a": 3}
    assert body.last.dependencies == (
        Dependency(source=0, kind=EdgeKind.ORDER),
        Dependency(source=1, kind=EdgeKind.ORDER, allow_failure=True),
        Dependency(source=0, kind=EdgeKind.CONDITION, parameter="run_if"),
    )
    add.submit(4, wait_for=one)
    assert [*body.last.dependencies] == [Dependency(source=0, kind=EdgeKind.ORDER)]


@pytest.mark.parametrize(
    ("condition", "runnable"), [(None, True), (True, True), (1, True), (False, False), (0, False)]
)
def test_a_condition_that_is_known_decides_at_once(
    body: FakeFlow, condition: Any, runnable: bool
) -> None:
    add.submit(1, run_if=condition)
    assert (body.last.runnable, body.last.dependencies) == (runnable, ())


def test_conditions_of_the_wrong_kind_are_refused(body: FakeFlow) -> None:
    with pytest.raises(errors.DefinitionError, match=r"'add': wait_for takes futures, .* 3\b"):
        add.submit(1, wait_for=[3])
    with pytest.raises(errors.DefinitionError, match=r"not a function\. Declare the function"):
        add.submit(1, run_if=lambda: True)  # type: ignore[arg-type]  # on purpose
    assert body.requests == []


def test_submit_and_map_need_a_flow() -> None:
    with pytest.raises(errors.DefinitionError, match=r"`.submit\(\)` was called outside a flow at"):
        add.submit(1)
    with pytest.raises(errors.DefinitionError, match=r"\[add\(x\) for x in items\]"):
        add.map([1])


@pytest.mark.parametrize(
    ("args", "kwargs", "why"),
    [
        ((), {}, "missing a required argument: 'a'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"c": 1}, "got an unexpected keyword argument 'c'"),
        ((1,), {"a": 1}, "multiple values for argument 'a'"),
    ],
)
def test_a_call_that_does_not_fit_is_refused_where_it_stands(
    body: FakeFlow, args: tuple[Any, ...], kwargs: dict[str, Any], why: str
) -> None:
    with pytest.raises(TypeError) as caught:
        add(*args, **kwargs)
    assert str(caught.value) == (
        f"Task 'add' cannot be called like this: {why}. It is declared as add(a: int, b: int = 2)."
    )
    assert body.requests == []


def test_a_future_of_another_flow_run_is_refused(body: FakeFlow) -> None:
    stranger = add(1)
    with body_of(FakeFlow()), pytest.raises(errors.DefinitionError, match="another flow run"):
        add(stranger)


def test_a_method_gets_its_object_as_an_argument(body: FakeFlow) -> None:
    store = Store(3)
    assert store.scaled.fn(2) == 6
    store.scaled(5)
    assert body.last.arguments == {"self": store, "n": 5}
    store.scaled.submit(n=6)
    assert body.last.arguments == {"self": store, "n": 6}
    store.scaled.map([1, 2])
    assert body.last.arguments == {"self": store}
    assert rows(body.last) == [{"n": 1}, {"n": 2}]
    renamed = store.scaled.with_options(name="renamed")
    assert isinstance(renamed, BoundTask)
    assert renamed(1).key == "renamed-0"
    assert isinstance(Store.scaled, Task)


def test_methods_outside_a_flow_are_plain_methods() -> None:
    assert Store(3).scaled(2) == 6
    untyped: Any = Store  # type checkers see a method of the object in each of these
    assert (untyped(1).inner_static(1), untyped.inner_static(1)) == (2, 2)
    assert (untyped(1).outer_static(1), untyped.outer_static(1)) == (3, 3)
    assert (untyped(1).named(4), untyped.named(4)) == ("Store4", "Store4")


def test_unmapped_means_nothing_in_a_single_call(body: FakeFlow) -> None:
    add(unmapped(add(1)))
    assert body.last.arguments == {"a": Hole(0)}


def test_a_partial_and_a_lambda_can_be_tasks() -> None:
    half = task(functools.partial(add.fn, b=0))
    assert (half.name, half(4)) == ("add", 4)
    assert task(lambda x: x).name == "lambda"


def test_what_cannot_be_a_task_is_refused() -> None:
    def produce() -> Any:
        yield 1

    def clash(wait_for: int) -> None: ...

    with pytest.raises(errors.DefinitionError, match="'produce' is a generator"):
        task(produce)
    with pytest.raises(errors.DefinitionError, match="parameter 'wait_for', which `submit`"):
        task(clash)
    with pytest.raises(errors.DefinitionError, match="@task is for functions, and 3 is none"):
        task(3)  # type: ignore[call-overload]  # on purpose
    with pytest.raises(errors.DefinitionError, match="Task 'add' is a task already"):
        task(add)
    with pytest.raises(errors.DefinitionError, match="Task 'add' is a task already"):
        flow(add)
    with pytest.raises(errors.DefinitionError, match="Task 'getattr' has no signature"):
        task(getattr)


def test_a_task_travels_without_its_hooks() -> None:
    lock = threading.Lock()

    @task(on_failure=[lambda task, run, state: lock.acquire()])
    def guarded(x: int) -> int:
        return x + 1

    again = pickle.loads(cloudpickle.dumps(guarded))
    assert (again.name, again(1)) == ("guarded", 2)
    assert again.options == guarded.options


def test_a_task_that_calls_itself_travels() -> None:
    @task
    def down(n: int) -> int:
        return n if n == 0 else down.fn(n - 1)

    assert pickle.loads(cloudpickle.dumps(down))(3) == 0
