"""The slots that a run holds: asked for until they come, renewed, and lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from raflow import errors
from raflow.execute import SlotAnswer
from raflow.model import (
    Awaited,
    FlowRun,
    Granted,
    Limit,
    LimitState,
    SlotRequest,
    State,
    StateName,
)
from raflow.runtime.desk._slots import SLOT_SECONDS, Slots


class FakeStore:
    """Stands where the record is: grants what it is told to grant."""

    def __init__(self) -> None:
        self.limits = self
        self.free = True
        self.held: set[str] = set()
        self.released: list[str] = []
        self.asked: list[SlotRequest] = []
        self.names = {"warehouse": 0.0, "api": 60.0}
        self.error: errors.RaflowError | None = None

    def open(self) -> FakeStore:
        if self.error is not None:
            raise self.error
        return self

    def all(self) -> list[LimitState]:
        return [
            LimitState(limit=Limit(name=name, slots=1, per_seconds=rate))
            for name, rate in self.names.items()
        ]

    def acquire(self, request: SlotRequest, *, seconds: float) -> Granted | Awaited:
        assert seconds == SLOT_SECONDS
        self.asked.append(request)
        if not request.amounts.keys() <= self.names.keys():
            raise errors.UnknownLimitError("no such limit")
        if not self.free:
            return Awaited("held by others")
        self.held.add(request.holder)
        return Granted()

    def renew(self, flow_run_id: str, *, seconds: float) -> frozenset[str]:
        assert (flow_run_id, seconds) == ("run-1", SLOT_SECONDS)
        if self.error is not None:
            raise self.error
        return frozenset(self.held)

    def release(self, holder: str) -> None:
        self.released.append(holder)

    def release_all(self, flow_run_id: str) -> None:
        self.released.append(flow_run_id)


class FakeSteward:
    """Does what is due when it is told to."""

    def __init__(self) -> None:
        self.due: list[Callable[[], float | None]] = []
        self.waits: list[float | None] = []

    def soon(self, work: Callable[[], float | None]) -> None:
        self.due.append(work)

    def turn(self) -> None:
        due, self.due = self.due, []
        for work in due:
            again = work()
            self.waits.append(again)
            if again is not None:
                self.due.append(work)


class Desk:
    def __init__(self) -> None:
        self.store, self.steward = FakeStore(), FakeSteward()
        self.now = 1000.0
        state = State(name=StateName.RUNNING, at=0.0)
        run = FlowRun(id="run-1", name="brave", flow="etl", fingerprint="", state=state)
        store: Any = self.store
        steward: Any = self.steward
        self.slots = Slots(run, store=store, steward=steward, clock=lambda: self.now)
        self.told: list[tuple[str, SlotAnswer]] = []

    def ask(self, holder: str, name: str = "warehouse", *, strict: bool = False) -> None:
        self.slots.ask(
            holder,
            "load-0",
            {name: 1},
            lambda answer: self.told.append((holder, answer)),
            strict=strict,
        )
        self.steward.turn()

    def news(self) -> list[tuple[str, SlotAnswer]]:
        self.steward.turn()
        told, self.told = self.told, []
        return told


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_who_waits_hears_only_what_is_new(desk: Desk) -> None:
    desk.store.free = False
    desk.ask("a")
    for _ in range(3):
        desk.steward.turn()
    assert desk.news() == [("a", Awaited("held by others"))]
    desk.ask("a")
    assert desk.news() == [("a", Awaited("held by others"))]
    desk.store.free = True
    assert desk.news() == [("a", Granted())]
    assert desk.steward.due == []
    assert desk.store.asked[0].label == "load-0 of run brave"


def test_many_who_wait_ask_less_often(desk: Desk) -> None:
    desk.store.free = False
    for number in range(100):
        desk.ask(str(number))
    assert desk.steward.waits[0] == 0.2
    assert desk.steward.waits[-1] == 2.0


def test_who_gives_up_is_forgotten(desk: Desk) -> None:
    desk.store.free = False
    desk.ask("a")
    desk.slots.release("a")
    desk.store.free = True
    assert desk.news() == [("a", Awaited("held by others"))]
    assert (desk.store.released, desk.store.held) == (["a"], set())
    assert not desk.slots.is_in_use
    desk.slots.close()
    assert desk.store.released == ["a", "run-1"]


def test_what_cannot_be_had_is_told_once(desk: Desk) -> None:
    desk.ask("a", "nowhere")
    [(holder, answer)] = desk.news()
    assert holder == "a"
    assert isinstance(answer, errors.UnknownLimitError)
    assert not desk.slots.is_in_use


def test_who_has_lost_its_slots_is_told_and_gets_them_again(desk: Desk) -> None:
    for holder, name in (("a", "warehouse"), ("b", "warehouse"), ("c", "api")):
        desk.ask(holder, name)
    desk.news()
    desk.slots.renew()
    assert desk.news() == []
    desk.now += 40
    desk.store.held = {"b"}
    desk.store.free = False
    desk.slots.renew()
    [(holder, lost), waits] = desk.news()
    assert holder == "a"
    assert isinstance(lost, errors.SlotLostError)
    assert lost.message == (
        "load-0 of run brave has lost its slots of limit 'warehouse': its flow's process could "
        "not renew them for 40 s, and somebody else may hold them by now. They are kept for 15 s."
    )
    assert waits == ("a", Awaited("held by others"))
    desk.store.free = True
    assert desk.news() == [("a", Granted())]
    desk.slots.renew()
    assert desk.news() == []


def test_who_must_be_certain_ends_while_the_database_is_away(desk: Desk) -> None:
    desk.ask("strict", strict=True)
    desk.ask("lenient")
    desk.news()
    desk.store.error = errors.StoreError("away")
    desk.now += SLOT_SECONDS
    for _ in range(2):
        with pytest.raises(errors.StoreError):
            desk.slots.renew()
        assert desk.told == []
    desk.now += 1
    with pytest.raises(errors.StoreError):
        desk.slots.renew()
    [(holder, lost)] = desk.told
    assert holder == "strict"
    assert isinstance(lost, errors.SlotLostError)
    assert "for 16 s, and the database cannot be reached" in lost.message
