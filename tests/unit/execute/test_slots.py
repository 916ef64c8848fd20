"""Slots of limits, as a running call asks for them and hears of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from raflow import errors
from raflow.define import SlotsWanted
from raflow.execute import SlotAnswer, SlotsAsked, SlotsLeft
from raflow.execute._slots import WHOLE_CALL, BatchSlots, CallSlots, ClaimMade
from raflow.execute.ray._slot_mail import (
    read_answer,
    read_ask,
    read_leave,
    write_answer,
    write_ask,
    write_leave,
)
from raflow.model import Awaited, Granted, TaskRunKey

WANTED = SlotsWanted({"warehouse": 2}, timeout_seconds=30, priority=5)


class FakeLine:
    """Stands where the driver is reached; answers at once, if it is told how."""

    def __init__(self) -> None:
        self.slots = BatchSlots(self)
        self.asked: list[ClaimMade] = []
        self.left: list[int] = []
        self.ended: list[tuple[int, str]] = []
        self.answer: Callable[[int], object] = lambda _: None

    def ask(self, made: ClaimMade) -> None:
        self.asked.append(made)
        self.answer(made.claim)

    def leave(self, claim: int) -> None:
        self.left.append(claim)

    def end_call(self, position: int, error: errors.SlotLostError) -> None:
        self.ended.append((position, error.message))

    def answers(self, *answers: SlotAnswer) -> None:
        def tell(claim: int) -> None:
            for answer in answers:
                self.slots.answered(claim, answer)

        self.answer = tell


@pytest.fixture
def line() -> FakeLine:
    return FakeLine()


def gate(line: FakeLine, position: int = 3) -> CallSlots:
    return CallSlots(line.slots, position, TaskRunKey(7, position), f"copy-0[{position}]")


def acquire(line: FakeLine, wanted: SlotsWanted, how: str) -> str:
    found = gate(line)
    return asyncio.run(found.acquire_async(wanted)) if how == "async" else found.acquire(wanted)


both = pytest.mark.parametrize("how", ["sync", "async"])


@both
def test_slots_are_held_and_given_back(line: FakeLine, how: str) -> None:
    line.answers(Awaited("held by others"), Granted())
    holder = acquire(line, WANTED, how)
    assert line.asked == [ClaimMade(1, TaskRunKey(7, 3), "copy-0[3]", {"warehouse": 2}, 5, False)]
    assert line.left == []
    assert gate(line).release(holder) is None
    assert gate(line).release(holder) is None
    assert line.left == [1]


@both
def test_slots_that_do_not_come(line: FakeLine, how: str) -> None:
    line.answers(Awaited("limit 'warehouse' 1/1, held by load-0"))
    with pytest.raises(errors.SlotTimeoutError) as raised:
        acquire(line, WANTED._replace(timeout_seconds=0.05), how)
    assert raised.value.message == (
        "Slots of limits (2 of 'warehouse') did not come to copy-0[3] within 0.05 seconds: limit "
        "'warehouse' 1/1, held by load-0."
    )
    assert raised.value.limits == ["warehouse"]
    assert line.left == [1]


@both
def test_slots_that_cannot_be_had(line: FakeLine, how: str) -> None:
    line.answers(errors.UnknownLimitError("no such limit"))
    with pytest.raises(errors.UnknownLimitError, match="no such limit"):
        acquire(line, WANTED, how)
    line.answer = line.slots.unreachable
    with pytest.raises(errors.BackendError, match=r"cannot reach .* `@task\(limits=\[...\]\)`"):
        acquire(line, WANTED, how)
    assert line.left == [1, 2]


def test_what_is_granted_too_late_is_given_back(line: FakeLine) -> None:
    with pytest.raises(errors.SlotTimeoutError):
        gate(line).acquire(WANTED._replace(timeout_seconds=0.01))
    line.slots.answered(1, Granted())
    assert line.left == [1, 1]


def test_a_coroutine_that_is_cancelled_holds_nothing(line: FakeLine) -> None:
    async def give_up() -> None:
        task = asyncio.current_task()
        assert task is not None
        line.answer = lambda _: task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gate(line).acquire_async(WANTED)
        task.uncancel()

    asyncio.run(give_up())
    assert line.left == [1]


def test_only_who_is_strict_ends_with_its_slots(line: FakeLine) -> None:
    line.answers(Granted())
    lenient = gate(line, 2).acquire(WANTED)
    strict = gate(line, 4).acquire(WANTED._replace(strict=True))
    for claim in (lenient, strict):
        line.slots.answered(int(claim), errors.SlotLostError("gone"))
    assert line.ended == [(4, "gone")]
    assert gate(line).release(lenient) is None
    lost = gate(line).release(strict)
    assert lost is not None
    assert lost.message == "gone"


def test_a_call_that_lost_the_slots_of_its_limits_ends(line: FakeLine) -> None:
    line.slots.answered(WHOLE_CALL, Granted())
    line.slots.answered(WHOLE_CALL, errors.SlotLostError("gone"))
    assert line.ended == [(0, "gone")]


def test_the_end_of_a_call_ends_what_its_threads_hold_and_await(line: FakeLine) -> None:
    line.answers(Granted())
    other = gate(line, 4).acquire(WANTED)
    gate(line).acquire(WANTED)
    line.answer = lambda _: None
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            gate(line).acquire(WANTED)
        except errors.SlotLostError as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while len(line.asked) < 3:
        thread.join(0.01)
    gate(line).over()
    thread.join()
    assert [str(error) for error in raised] == ["'copy-0[3]' has ended."]
    assert line.left == [2, 3]
    gate(line).release(other)
    assert line.left == [2, 3, 1]


@pytest.mark.parametrize(
    "answer",
    [
        Granted(),
        Awaited("held by others"),
        errors.SlotLostError("gone", limits=["warehouse"]),
        errors.UnknownLimitError.of("limit", "warehose", ["warehouse"], "Set it."),
    ],
)
def test_what_is_said_on_the_line_is_understood(answer: SlotAnswer) -> None:
    heard = read_answer(write_answer(answer))
    if isinstance(answer, errors.RaflowError):
        assert isinstance(heard, errors.RaflowError)
        assert (type(heard), heard.message) == (type(answer), answer.message)
        assert heard.details == answer.details
    else:
        assert heard == answer
        assert type(heard) is type(answer)
    made = ClaimMade(4, TaskRunKey(7, 2), "copy-0[2]", {"warehouse": 2}, -1, True)
    [asked] = write_ask(3, 14, made).values()
    assert read_ask(asked) == (3, SlotsAsked(14, made))  # type: ignore[arg-type]  # as it was read
    [left] = write_leave(3, 14, 4).values()
    assert read_leave(left) == (3, SlotsLeft(14, 4))  # type: ignore[arg-type]  # as it was read
