"""What a flow's body, or a task, does about its run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import orjson
import pydantic
import pytest

from raflow import (
    concurrency,
    errors,
    pause_run,
    pause_run_async,
    suspend_run,
    suspend_run_async,
    wait_for_input,
    wait_for_input_async,
)
from raflow.define import Question, SlotGate, TaskRunContext, active_task, flow, task
from raflow.model import TaskRunKey
from tests.unit.define.fake_flow import FakeFlow, FakeSlots


class Approval(pydantic.BaseModel):
    approved: bool
    comment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitedTask(TaskRunContext):
    gate: SlotGate

    @property
    def slots(self) -> SlotGate:
        return self.gate


FACTS: dict[str, Any] = {
    "flow_run_id": "r",
    "flow": "etl",
    "flow_run_name": "r-1",
    "task": "load",
    "label": "load-0",
    "run": TaskRunKey(0),
    "attempt": 1,
}


@contextlib.contextmanager
def running(context: TaskRunContext) -> Iterator[None]:
    token = active_task.set(context)
    try:
        yield
    finally:
        active_task.reset(token)


def test_slots_are_held_while_a_block_runs(body: FakeFlow) -> None:
    limit = concurrency("warehouse", occupy=2, timeout_seconds=3, priority=5)
    assert body.slots.asked == []
    with limit:
        assert body.slots.asked == [({"warehouse": 2}, 3, 5)]
        with limit, concurrency(["api", "disk"]):
            assert body.slots.asked[1:] == [
                ({"warehouse": 2}, 3, 5),
                ({"api": 1, "disk": 1}, None, 0),
            ]
            assert len(body.slots.held) == 3
    assert body.slots.held == []
    with pytest.raises(KeyError), limit:
        raise KeyError
    assert body.slots.held == []


def test_coroutines_hold_slots_too(body: FakeFlow) -> None:
    async def hold() -> None:
        async with concurrency("warehouse"):
            assert body.slots.held == ["holder-1"]

    asyncio.run(hold())
    assert (body.slots.asked, body.slots.held) == ([({"warehouse": 1}, None, 0)], [])


def test_a_task_holds_slots_by_its_own_process(body: FakeFlow) -> None:
    slots = FakeSlots()
    with running(LimitedTask(gate=slots, **FACTS)), concurrency("warehouse"):
        assert slots.held == ["holder-1"]
    assert (slots.held, body.slots.asked) == ([], [])


def test_a_strict_block_that_has_lost_its_slots_ends_by_that(body: FakeFlow) -> None:
    lost = body.slots.lost["holder-1"] = errors.SlotLostError("gone")
    with pytest.raises(errors.SlotLostError) as raised, concurrency("warehouse", strict=True):
        raise errors.TaskInterrupted
    assert raised.value is lost
    assert isinstance(lost.__context__, errors.TaskInterrupted)
    with concurrency("warehouse"):
        pass
    assert body.slots.held == []


def test_a_task_does_not_block_its_event_loop(body: FakeFlow) -> None:
    async def hold() -> None:
        with concurrency("warehouse"):
            raise AssertionError

    slots = FakeSlots()
    with (
        running(LimitedTask(gate=slots, **FACTS)),
        pytest.raises(errors.DefinitionError, match=r"at test_verbs\.py:\d+.* Write `async with`"),
    ):
        asyncio.run(hold())
    assert slots.asked == body.slots.asked == []


def test_slots_are_counted_in_runs_only() -> None:
    with pytest.raises(
        errors.DefinitionError, match=r"was entered outside a flow at test_verbs.py"
    ):
        concurrency("warehouse").__enter__()
    with (
        running(TaskRunContext(**FACTS)),
        pytest.raises(errors.DefinitionError, match=r"in task 'load' .* `@task\(limits=\[...\]\)`"),
    ):
        concurrency("warehouse").__enter__()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("",), "names no limit"),
        (([],), "names no limit"),
        (([3],), "names no limit"),
        (("a", 0), "occupy=0 is not a number of slots"),
        (("a", True), "occupy=True is not a number of slots"),
        (("a", 1.5), "occupy=1.5 is not a number of slots"),
    ],
)
def test_what_cannot_be_held_is_refused(arguments: Any, told: str) -> None:
    with pytest.raises(errors.DefinitionError, match=told):
        concurrency(*arguments)
    with pytest.raises(errors.DefinitionError, match="timeout_seconds=0 is not a number of sec"):
        concurrency("a", timeout_seconds=0)


def test_a_flow_asks_people_by_a_form(body: FakeFlow) -> None:
    body.answer = b'{"approved": true, "comment": "fine"}'
    found = wait_for_input(
        Approval, timeout_seconds=60, default=Approval(approved=False), assignees=["ada", "bob"]
    )
    assert found == Approval(approved=True, comment="fine")
    (asked,) = body.questions
    assert asked == Question(
        title="Approval",
        form=Approval.model_json_schema(),
        default=asked.default,
        timeout_seconds=60,
        assignees=("ada", "bob"),
    )
    assert asked.default is not None
    assert orjson.loads(asked.default) == {"approved": False, "comment": ""}


@pytest.mark.parametrize(
    ("form", "answer", "value", "title"),
    [
        (bool, b"true", True, "bool"),
        (date, b'"2026-01-01"', date(2026, 1, 1), "date"),
        (list[int], b"[1, 2]", [1, 2], "list[int]"),
        (int | None, b"null", None, "int | None"),
    ],
)
def test_a_form_can_be_any_type(
    body: FakeFlow, form: Any, answer: bytes, value: Any, title: str
) -> None:
    body.answer = answer
    assert wait_for_input(form) == value
    assert asyncio.run(wait_for_input_async(form, title="How many?")) == value
    assert [question.title for question in body.questions] == [title, "How many?"]
    assert body.questions[0].default is None


def test_an_answer_that_does_not_fit_is_named(body: FakeFlow) -> None:
    body.answer = b'{"approved": "perhaps"}'
    with pytest.raises(errors.ParameterError) as caught:
        wait_for_input(Approval)
    assert str(caught.value).startswith(
        "The answer to the question 'Approval' does not fit Approval: approved: Input should be a"
    )
    with pytest.raises(errors.ParameterError, match="does not fit bool: it: Input should be a"):
        wait_for_input(bool)


@pytest.mark.parametrize(
    ("form", "options", "told"),
    [
        (FakeFlow, {}, "No form can be made of FakeFlow: Unable to generate pydantic-core schema"),
        (Approval, {"default": "yes"}, "default='yes' does not fit Approval"),
        (bool, {"timeout_seconds": -1}, "timeout_seconds=-1 is not a number of seconds above"),
        (bool, {"timeout_seconds": True}, "wait_for_input: timeout_seconds=True is not a number"),
    ],
)
def test_a_question_that_makes_no_sense_is_not_asked(
    body: FakeFlow, form: Any, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(errors.DefinitionError, match=told):
        wait_for_input(form, **options)
    assert body.questions == []


def test_a_flow_pauses_and_suspends_itself(body: FakeFlow) -> None:
    pause_run()
    pause_run(5)
    suspend_run()

    async def in_coroutine() -> None:
        await pause_run_async(timeout_seconds=6)
        await suspend_run_async()

    asyncio.run(in_coroutine())
    assert body.stops == [
        ("pause", None),
        ("pause", 5),
        ("suspend", None),
        ("pause_async", 6),
        ("suspend_async", None),
    ]
    with pytest.raises(errors.DefinitionError, match="pause_run: timeout_seconds='x' is not a"):
        pause_run("x")  # type: ignore[arg-type]  # on purpose


VERBS: dict[str, Callable[[], object]] = {
    "wait_for_input": lambda: wait_for_input(bool),
    "wait_for_input_async": lambda: asyncio.run(wait_for_input_async(bool)),
    "pause_run": pause_run,
    "pause_run_async": lambda: asyncio.run(pause_run_async()),
    "suspend_run": suspend_run,
    "suspend_run_async": lambda: asyncio.run(suspend_run_async()),
}


@pytest.mark.parametrize("verb", VERBS)
def test_only_the_body_of_a_flow_can_do_this(verb: str) -> None:
    with pytest.raises(errors.DefinitionError, match=rf"^{verb}\(\) was called outside a flow at"):
        VERBS[verb]()


@pytest.mark.parametrize("verb", VERBS)
def test_a_task_cannot_do_this(body: FakeFlow, verb: str) -> None:
    with (
        running(TaskRunContext(**FACTS)),
        pytest.raises(errors.DefinitionError, match=rf"^{verb}\(\) was called inside a running"),
    ):
        VERBS[verb]()
    assert (body.questions, body.stops) == ([], [])


@task
def load(rows: int) -> int:
    return rows


@flow
def asking(ask: bool) -> Any:
    pause_run()
    suspend_run()
    with concurrency("warehouse"):
        first = load(1)
    first.cancel()
    if ask and wait_for_input(Approval).approved:
        load(2)
    return load(first)


@flow
async def asking_async() -> Any:
    await pause_run_async()
    await suspend_run_async()
    async with concurrency("warehouse"):
        load(1)
    return await wait_for_input_async(bool, title="Go on?")


def test_a_drawing_goes_on_until_people_are_asked() -> None:
    graph = asking.compile(ask=False)
    assert ([node.key for node in graph.nodes], graph.stopped_at) == (["load-0", "load-1"], None)
    graph = asking.compile(ask=True)
    assert [node.key for node in graph.nodes] == ["load-0"]
    assert graph.stopped_at is not None
    assert "where the body asks people for 'Approval'" in graph.stopped_at.message
    assert "unknown from test_verbs.py:" in graph.to_mermaid()
    graph = asking_async.compile()
    assert graph.stopped_at is not None
    assert "'Go on?'" in graph.stopped_at.message


def test_a_future_can_be_cancelled(body: FakeFlow) -> None:
    one, many = load(1), load.map([1, 2, 3])
    one.cancel()
    many.cancel()
    many[2].cancel()
    assert body.cancelled == [(0, None), (1, None), (1, 2)]
