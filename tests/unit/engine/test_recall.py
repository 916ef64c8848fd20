"""Calls of which an earlier process of the run has left something."""

from __future__ import annotations

import pytest

from raflow import engine
from raflow.engine import Answer
from raflow.model import (
    EdgeKind,
    NodeKind,
    Outcome,
    RetryPolicy,
    StateName,
    TaskRunKey,
    TriggerRule,
)
from tests.unit.engine.harness import Bench, calls_of, edge

DONE = (Answer(),)


def sent(bench: Bench) -> list[tuple[TaskRunKey, int]]:
    return [call for batch in bench.batches() for call in calls_of(batch)]


def test_an_answered_call_is_final_at_once_and_nothing_is_told() -> None:
    bench = Bench()
    made = bench.made(answers=DONE)
    assert bench.register(made) == []
    assert bench.name(0) is StateName.COMPLETED
    after = bench.call("b", edge(0, 1))
    assert bench.name(after) is StateName.SUBMITTED
    bench.end(after)
    bench.body_ends()
    assert bench.settled() == engine.RunSettled(cancelled=False, unhandled=())
    assert sent(bench) == [(TaskRunKey(after), 1)]


def test_what_another_flow_run_has_left_is_cached_and_can_be_computed_again() -> None:
    bench = Bench()
    first = bench.call("a", answers=(Answer(attempts=0, has_value=False, cached=True),))
    assert bench.name(first) is StateName.CACHED
    after = bench.call("b", edge(first, 1))
    assert sent(bench) == [(TaskRunKey(first), 1)]
    bench.end(first)
    assert sent(bench)[1:] == [(TaskRunKey(after), 1)]


def test_it_is_final_whatever_becomes_of_its_sources() -> None:
    bench = Bench()
    first = bench.call("a")
    second = bench.call("b", edge(first, 1), rule=TriggerRule.ALL_DONE, answers=DONE)
    bench.end(first, Outcome.FAILED)
    assert bench.name(second) is StateName.COMPLETED


def test_it_lets_its_sources_go() -> None:
    bench = Bench()
    first = bench.call("a", answers=DONE)
    bench.call("b", edge(first, 1), answers=DONE)
    commands = bench.feed(engine.FuturesDropped(at=0, nodes=(first,)))
    assert isinstance(commands[0], engine.ReleaseValues)


def test_a_subflow_can_be_answered() -> None:
    bench = Bench()
    child = bench.call("child", kind=NodeKind.SUBFLOW, answers=DONE)
    assert bench.name(child) is StateName.COMPLETED
    assert not bench.log


@pytest.mark.parametrize(
    ("truths", "name"),
    [
        (b"\1", StateName.SUBMITTED),
        (b"\0", StateName.SKIPPED),
        (b"", StateName.FAILED),
    ],
)
def test_run_if_knows_the_truth_of_an_answer(truths: bytes, name: StateName) -> None:
    bench = Bench()
    ask = bench.call("ask", answers=(Answer(truths=truths),))
    act = bench.call("act", edge(ask, 1, EdgeKind.CONDITION))
    assert bench.name(act) is name


def test_even_after_a_cancel() -> None:
    bench = Bench()
    bench.feed(engine.CancelAsked(at=0, reason="enough"))
    assert bench.name(bench.call(answers=DONE)) is StateName.COMPLETED
    assert bench.name(bench.call()) is StateName.CANCELLED


class TestMaps:
    def test_items_without_an_answer_run(self) -> None:
        bench = Bench()
        answers = (Answer(0, 2), Answer(3, 4))
        node = bench.call("m", kind=NodeKind.MAP, length=6, answers=answers)
        names = [bench.name(node, item) for item in range(6)]
        assert names == [
            StateName.COMPLETED,
            StateName.COMPLETED,
            StateName.SUBMITTED,
            StateName.COMPLETED,
            StateName.SUBMITTED,
            StateName.SUBMITTED,
        ]

    def test_a_map_that_is_wholly_known_is_complete(self) -> None:
        bench = Bench()
        node = bench.call("m", kind=NodeKind.MAP, length=3, answers=(Answer(0, 3),))
        total = bench.call("total", edge(node, 1))
        assert bench.log[0] == engine.MapExpanded(node=node, length=3)
        assert bench.name(total) is StateName.SUBMITTED

    def test_items_that_arrive_late_are_answered_as_they_come(self) -> None:
        bench = Bench()
        answers = (Answer(0, 1), Answer(2, 5))
        node = bench.call("m", kind=NodeKind.MAP, streamed=True, answers=answers)
        after = bench.call("n", edge(node, 1, EdgeKind.ITEM), kind=NodeKind.MAP)
        bench.feed(engine.ItemsArrived(at=1, node=node, length=3))
        assert bench.name(node, 0) is bench.name(node, 2) is StateName.COMPLETED
        assert bench.name(node, 1) is StateName.SUBMITTED
        assert bench.name(after, 2) is StateName.SUBMITTED
        bench.feed(engine.ItemsArrived(at=2, node=node, length=6, complete=True))
        assert bench.name(node, 3) is bench.name(node, 4) is StateName.COMPLETED
        assert bench.name(node, 5) is StateName.SUBMITTED

    def test_a_map_over_a_value_has_the_length_that_is_known(self) -> None:
        bench = Bench()
        listed = bench.call("a", answers=(Answer(length=3),))
        mapped = bench.call(
            "b", edge(listed, 1, EdgeKind.ITEM), kind=NodeKind.MAP, answers=(Answer(1, 3),)
        )
        assert bench.referee.lengths == {mapped: 3}
        assert bench.name(mapped, 0) is StateName.SUBMITTED
        assert bench.name(mapped, 2) is StateName.COMPLETED

    def test_a_map_over_a_value_that_comes_later(self) -> None:
        bench = Bench()
        listed = bench.call("a")
        mapped = bench.call(
            "b", edge(listed, 1, EdgeKind.ITEM), kind=NodeKind.MAP, answers=(Answer(0, 2),)
        )
        third = bench.call("c", edge(mapped, 2, EdgeKind.ITEM), kind=NodeKind.MAP)
        bench.end(listed, length=2)
        assert bench.name(third, 1) is StateName.SUBMITTED

    def test_the_truth_of_an_item(self) -> None:
        bench = Bench()
        node = bench.call(
            "m", kind=NodeKind.MAP, length=3, answers=(Answer(0, 3, truths=b"\1\0\1"),)
        )
        links = [edge(node, 1 + n, EdgeKind.CONDITION, source_item=n) for n in (0, 1)]
        assert bench.name(bench.call("yes", links[0])) is StateName.SUBMITTED
        assert bench.name(bench.call("no", links[1])) is StateName.SKIPPED


class TestWhatHadBegun:
    def test_attempts_go_on_counting_and_it_recovers(self) -> None:
        bench = Bench()
        retry = RetryPolicy(retries=1)
        node = bench.call(answers=(Answer(completed=False, attempts=2),), retry=retry)
        assert sent(bench) == [(TaskRunKey(node), 3)]
        bench.end(node, Outcome.FAILED)
        bench.end(node)
        assert bench.name(node) is StateName.RECOVERED

    def test_it_waits_for_its_inputs_like_any_other(self) -> None:
        bench = Bench()
        first = bench.call("a")
        second = bench.call("b", edge(first, 1), answers=(Answer(completed=False),))
        assert bench.name(second) is StateName.PENDING
        bench.end(first)
        assert sent(bench) == [(TaskRunKey(first), 1), (TaskRunKey(second), 2)]

    def test_items_too(self) -> None:
        bench = Bench()
        answers = (Answer(0, 1, completed=False), Answer(1, 2))
        node = bench.call("m", kind=NodeKind.MAP, length=3, answers=answers)
        assert sent(bench) == [(TaskRunKey(node, 0), 2), (TaskRunKey(node, 2), 1)]

    def test_what_may_have_run_is_not_repeated_at_most_once(self) -> None:
        bench = Bench()
        node = bench.call(answers=(Answer(completed=False),), at_most_once=True)
        assert bench.name(node) is StateName.LOST
        assert "attempt 1 has begun in an earlier process" in bench.state(node).message
        assert sent(bench) == []
        again = bench.call(at_most_once=True, answers=(Answer(),))
        assert bench.name(again) is StateName.COMPLETED
