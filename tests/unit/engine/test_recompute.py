"""Values that are lost come back: from where they are kept, or by running what they need again."""

from __future__ import annotations

import pytest

from raflow import engine
from raflow.engine import Answer, Learned, Pace
from raflow.model import (
    CacheOptions,
    Chunk,
    EdgeKind,
    NodeKind,
    Outcome,
    State,
    StateName,
    TaskRunKey,
    TriggerRule,
)
from tests.unit.engine.harness import Bench, Told, calls_of, edge

LOST = (Answer(has_value=False),)


def lose(bench: Bench, *chunks: Chunk) -> list[engine.Command]:
    return bench.feed(engine.ValuesLost(at=bench.now, chunks=chunks))


def find(bench: Bench, *chunks: Chunk) -> list[engine.Command]:
    return bench.feed(engine.ValuesFound(at=bench.now, chunks=chunks))


def sought(bench: Bench) -> list[Chunk]:
    found = [command for command in bench.log if isinstance(command, engine.FindValues)]
    return [chunk for command in found for chunk in command.chunks]


def cannot_fetch(bench: Bench, node: int, *inputs: int, item: int = -1) -> list[engine.Command]:
    """End a call that travels alone by the loss of its inputs."""
    told = Told({0: Outcome.LOST}, lost_inputs={0: inputs})
    return bench.finish(bench.sent[TaskRunKey(node, item)], told)


def value(node: int, start: int = -1, stop: int = 0) -> Chunk:
    return Chunk(node, start, stop, 0)


class TestAnsweredWithoutValue:
    def test_nothing_runs_that_nobody_asks_for(self) -> None:
        bench = Bench()
        first = bench.call(answers=LOST)
        second = bench.call("b", edge(first, 1), answers=(Answer(),))
        third = bench.call("c", edge(second, 2))
        bench.end(third)
        bench.body_ends()
        assert bench.referee.reopened == []
        assert bench.settled() is not None

    def test_only_the_ancestors_that_are_needed_run_again(self) -> None:
        bench = Bench()
        kept, lost, other = (bench.call(answers=a) for a in ((Answer(),), LOST, LOST))
        middle = bench.call("m", edge(kept, 3), edge(lost, 3), answers=LOST)
        bench.call("side", edge(other, 4), answers=LOST)
        user = bench.call("u", edge(middle, 5))
        assert bench.engine.waits_for(TaskRunKey(user)) == (
            "waits for the value of m-3, which was lost"
        )
        entered = [c for c in bench.log if isinstance(c, engine.StateEntered)]
        assert [c.state.message for c in entered] == ["its value was lost"] * 2
        assert calls_of(bench.sent[TaskRunKey(lost)]) == [(TaskRunKey(lost), 2)]
        bench.end(lost)
        assert bench.name(lost) is StateName.RECOVERED
        bench.end(middle)
        assert bench.name(user) is StateName.SUBMITTED
        assert bench.referee.reopened == [TaskRunKey(middle), TaskRunKey(lost)]
        bench.end(user)
        bench.body_ends()
        assert bench.settled() == engine.RunSettled(cancelled=False, unhandled=())

    def test_a_chain_of_any_length(self) -> None:
        bench = Bench(pace=Pace({"t": Learned(1e-6, 8)}), slots=1)
        bench.call(answers=LOST)
        many = 2_000
        made = [bench.made("t", edge(n - 1, n), answers=LOST) for n in range(1, many)]
        bench.register(*made)
        user = bench.call("t", edge(many - 1, many))
        while bench.name(user) is not StateName.COMPLETED:
            batch = max(bench.referee.out)
            bench.finish(bench.referee.out[batch])
        assert bench.engine.open_calls == 0

    def test_order_and_condition_need_no_value(self) -> None:
        bench = Bench()
        ask = bench.call(answers=(Answer(has_value=False, truths=b"\1"),))
        for kind in (EdgeKind.ORDER, EdgeKind.CONDITION):
            after = bench.call("after", edge(ask, bench.nodes, kind))
            assert bench.name(after) is StateName.SUBMITTED

    def test_two_that_need_it_wait_for_one_computation(self) -> None:
        bench = Bench()
        first = bench.call(answers=LOST)
        users = [bench.call("u", edge(first, node)) for node in (1, 2)]
        bench.end(first)
        assert [bench.name(node) for node in users] == [StateName.SUBMITTED] * 2
        assert bench.referee.reopened == [TaskRunKey(first)]

    def test_one_that_is_registered_meanwhile_waits_too(self) -> None:
        bench = Bench()
        first = bench.call(answers=LOST)
        bench.call("u", edge(first, 1))
        late = bench.call("v", edge(first, 2))
        assert bench.name(late) is StateName.PENDING
        bench.end(first)
        assert bench.name(late) is StateName.SUBMITTED

    def test_the_body_may_ask(self) -> None:
        bench = Bench()
        first = bench.call(answers=LOST)
        bench.feed(engine.ValueAsked(at=0, run=TaskRunKey(first)))
        assert bench.name(first) is StateName.SUBMITTED
        bench.end(first)
        assert bench.state(first).name is StateName.RECOVERED

    def test_a_subflow_runs_again_and_waits_for_its_inputs(self) -> None:
        bench = Bench()
        first = bench.call(answers=LOST)
        child = bench.call("child", edge(first, 1), kind=NodeKind.SUBFLOW, answers=LOST)
        user = bench.call("u", edge(child, 2))
        bench.end(first)
        assert engine.StartSubflow(run=TaskRunKey(child)) in bench.log
        state = State(name=StateName.RECOVERED, at=1.0)
        bench.feed(engine.SubflowEnded(at=1.0, run=TaskRunKey(child), state=state))
        assert bench.name(user) is StateName.SUBMITTED

    def test_a_cached_one_asks_the_cache_again(self) -> None:
        bench = Bench()
        first = bench.call(answers=LOST, cache=CacheOptions())
        bench.call("u", edge(first, 1))
        assert engine.AskCache(chunk=value(first)) in bench.log


class TestLostOnTheWay:
    def test_values_that_are_lost_are_made_again_once_somebody_needs_them(self) -> None:
        bench = Bench()
        first = bench.call()
        bench.end(first)
        assert lose(bench, Chunk(first)) == []
        assert bench.name(first) is StateName.COMPLETED
        user = bench.call("u", edge(first, 1))
        assert bench.name(first) is StateName.SUBMITTED
        bench.end(first)
        bench.end(user)
        assert bench.name(user) is StateName.COMPLETED

    def test_what_was_queued_is_held_back(self) -> None:
        bench = Bench(window=1)
        first = bench.call()
        bench.end(first)
        blocker = bench.call()
        user = bench.call("u", edge(first, 2))
        lose(bench, Chunk(first))
        bench.end(blocker)
        assert bench.name(first) is StateName.SUBMITTED
        assert bench.name(user) is StateName.PENDING
        bench.end(first)
        assert bench.name(user) is StateName.SUBMITTED

    def test_a_worker_that_cannot_fetch_an_input_is_not_charged(self) -> None:
        bench = Bench()
        first = bench.call()
        bench.end(first)
        user = bench.call("u", edge(first, 1))
        cannot_fetch(bench, user, 0)
        assert bench.name(user) is StateName.PENDING
        assert sought(bench) == [value(first)]
        assert TaskRunKey(user) not in bench.referee.ended
        lose(bench, Chunk(first))
        bench.end(first)
        assert calls_of(bench.sent[TaskRunKey(user)]) == [(TaskRunKey(user), 1)]
        assert bench.end(user)
        assert bench.name(user) is StateName.COMPLETED

    def test_what_is_kept_somewhere_is_not_computed_again(self) -> None:
        bench = Bench()
        first = bench.call()
        bench.end(first)
        user = bench.call("u", edge(first, 1))
        cannot_fetch(bench, user, 0)
        find(bench, Chunk(first))
        assert bench.name(user) is StateName.SUBMITTED
        assert bench.referee.reopened == []

    def test_a_value_that_is_lost_again_and_again_is_given_up(self) -> None:
        bench = Bench()
        first = bench.call()
        bench.end(first)
        user = bench.call("u", edge(first, 1))
        for turn in range(3):
            bench.now = turn + 1.0
            cannot_fetch(bench, user, 0)
            find(bench, Chunk(first))
            assert bench.name(user) is StateName.SUBMITTED
        bench.now = 5.0
        cannot_fetch(bench, user, 0)
        assert bench.name(user) is StateName.LOST
        assert bench.state(user).message == "the value of t-0 was lost: it was lost 4 times"

    def test_neighbours_that_tell_of_the_same_loss_count_it_once(self) -> None:
        bench = Bench()
        first = bench.call()
        bench.end(first)
        users = [bench.call("u", edge(first, node)) for node in range(1, 8)]
        bench.now = 1.0
        cannot_fetch(bench, users[0], 0)
        lose(bench, Chunk(first))
        bench.now = 2.0
        bench.end(first)
        for user in users[1:]:
            cannot_fetch(bench, user, 0)
        assert {bench.name(user) for user in users} == {StateName.SUBMITTED}
        assert bench.referee.reopened == [TaskRunKey(first)]

    def test_what_was_let_go_is_looked_for_and_then_made_again(self) -> None:
        bench = Bench()
        first = bench.call("a")
        second = bench.call("b", edge(first, 1))
        bench.feed(engine.FuturesDropped(at=0, nodes=(first,)))
        bench.end(first)
        bench.end(second)
        assert bench.referee.released == {TaskRunKey(first)}
        lose(bench, Chunk(second))
        user = bench.call("c", edge(second, 2))
        assert sought(bench) == [value(first)]
        assert bench.name(second) is StateName.PENDING
        lose(bench, Chunk(first))
        bench.end(first)
        assert engine.ReleaseValues(chunks=(value(first),)) in bench.end(second)
        bench.end(user)
        bench.body_ends()
        bench.feed(engine.FuturesDropped(at=0, nodes=(second, user)))
        bench.referee.check_end()

    def test_a_failure_the_second_time_reaches_those_who_wait(self) -> None:
        bench = Bench()
        first = bench.call(answers=LOST)
        strict = bench.call("u", edge(first, 1))
        tolerant = bench.call("v", edge(first, 2, allow_failure=True))
        careless = bench.call("w", edge(first, 3), rule=TriggerRule.ALL_DONE)
        bench.end(first, Outcome.FAILED)
        assert bench.name(strict) is StateName.UPSTREAM_FAILED
        assert bench.name(tolerant) is bench.name(careless) is StateName.SUBMITTED
        bench.end(tolerant)
        bench.end(careless)
        bench.body_ends()
        settled = bench.settled()
        assert settled is not None
        assert settled.unhandled == (TaskRunKey(strict),)


class TestMaps:
    def test_only_the_items_that_are_needed(self) -> None:
        bench = Bench()
        answers = (Answer(0, 3, has_value=False),)
        first = bench.call("m", kind=NodeKind.MAP, length=3, answers=answers)
        bench.call("n", edge(first, 1, EdgeKind.ITEM), kind=NodeKind.MAP, answers=(Answer(0, 2),))
        assert bench.referee.reopened == [TaskRunKey(first, 2)]
        bench.end(first, item=2)
        assert bench.name(1, 2) is StateName.SUBMITTED

    def test_all_items_for_who_takes_the_whole_map(self) -> None:
        bench = Bench()
        answers = (Answer(0, 1), Answer(1, 3, has_value=False))
        first = bench.call("m", kind=NodeKind.MAP, length=3, answers=answers)
        total = bench.call("total", edge(first, 1))
        each = bench.call("each", edge(first, 2), kind=NodeKind.MAP, length=2)
        for item in (1, 2):
            assert bench.name(total) is bench.name(each, 0) is StateName.PENDING
            bench.end(first, item=item)
        assert bench.name(total) is bench.name(each, 1) is StateName.SUBMITTED

    def test_a_late_user_of_the_whole_map_waits_for_its_items(self) -> None:
        bench = Bench()
        answers = (Answer(0, 2, has_value=False),)
        first = bench.call("m", kind=NodeKind.MAP, length=2, answers=answers)
        bench.call("one", edge(first, 1, source_item=1))
        total = bench.call("total", edge(first, 2))
        bench.end(first, item=1)
        assert bench.referee.reopened == [TaskRunKey(first, 1), TaskRunKey(first, 0)]
        bench.end(first, item=0)
        assert bench.name(total) is StateName.SUBMITTED

    def test_the_body_asks_for_all_of_it(self) -> None:
        bench = Bench()
        answers = (Answer(0, 1), Answer(1, 3, has_value=False))
        first = bench.call("m", kind=NodeKind.MAP, length=3, answers=answers)
        bench.feed(engine.ValueAsked(at=0, run=TaskRunKey(first)))
        assert bench.referee.reopened == [TaskRunKey(first, 1), TaskRunKey(first, 2)]

    def test_a_map_that_was_let_go_runs_again_item_by_item(self) -> None:
        bench = Bench()
        first = bench.call("a", kind=NodeKind.MAP, length=3)
        second = bench.call("b", edge(first, 1, EdgeKind.ITEM), kind=NodeKind.MAP)
        third = bench.call("c", edge(second, 2, EdgeKind.ITEM), kind=NodeKind.MAP)
        bench.feed(engine.FuturesDropped(at=0, nodes=(first, second)))
        for node in (first, second, third):
            for item in range(3):
                bench.end(node, item=item)
        assert not bench.engine._ledger.maps.keys() & {first, second}
        lose(bench, Chunk(third, 1, 2))
        bench.call("user", edge(third, 3))
        assert sought(bench) == [value(second, 1, 2)]
        lose(bench, Chunk(second, 1, 2))
        assert sought(bench) == [value(second, 1, 2), value(first, 1, 2)]
        find(bench, Chunk(first, 1, 2))
        bench.end(second, item=1)
        bench.end(third, item=1)
        bench.end(3)
        bench.body_ends()
        bench.feed(engine.FuturesDropped(at=0, nodes=range(4)))
        bench.referee.check_end()
        assert not bench.engine._ledger.maps

    def test_items_over_a_list_that_is_lost(self) -> None:
        bench = Bench()
        listed = bench.call("a", answers=(Answer(has_value=False, length=2),))
        mapped = bench.call("b", edge(listed, 1, EdgeKind.ITEM), kind=NodeKind.MAP)
        assert bench.name(mapped, 0) is StateName.PENDING
        bench.end(listed, length=2)
        assert bench.name(mapped, 1) is StateName.SUBMITTED

    def test_only_the_item_that_is_fed_by_it_waits(self) -> None:
        bench = Bench()
        first = bench.call("a", answers=LOST)
        mapped = bench.call("b", edge(first, 1, target_item=1), kind=NodeKind.MAP, length=3)
        names = [bench.name(mapped, item) for item in range(3)]
        assert names == [StateName.SUBMITTED, StateName.PENDING, StateName.SUBMITTED]


class TestWhatCannotBeMadeAgain:
    @pytest.mark.parametrize("once", [True, False])
    def test_its_user_is_lost_and_the_story_says_why(self, once: bool) -> None:
        bench = Bench()
        first = bench.call(answers=LOST, at_most_once=once)
        if not once:
            bench.forgotten.add(first)
        user = bench.call("u", edge(first, 1))
        why = "with at_most_once it is not computed again"
        why = why if once else "nobody knows any more how it was made"
        assert bench.name(user) is StateName.LOST
        assert bench.state(user).message == f"the value of t-0 was lost: {why}"
        assert bench.name(first) is StateName.COMPLETED

    def test_the_body_is_told(self) -> None:
        bench = Bench()
        first = bench.call(answers=LOST, at_most_once=True)
        bench.feed(engine.ValueAsked(at=0, run=TaskRunKey(first)))
        assert bench.referee.gone == [TaskRunKey(first)]

    def test_a_map_that_was_let_go_and_forgotten(self) -> None:
        bench = Bench()
        first = bench.call("a", kind=NodeKind.MAP, length=1)
        second = bench.call("b", edge(first, 1))
        bench.feed(engine.FuturesDropped(at=0, nodes=(first,)))
        bench.end(first, item=0)
        bench.end(second)
        bench.forgotten.add(first)
        lose(bench, Chunk(second))
        user = bench.call("c", edge(second, 2))
        assert bench.name(second) is StateName.LOST
        assert bench.name(user) is StateName.UPSTREAM_FAILED

    def test_nothing_is_made_again_once_the_run_is_to_end(self) -> None:
        bench = Bench()
        first = bench.call(answers=LOST)
        bench.feed(engine.CancelAsked(at=0, reason="enough"))
        bench.feed(engine.ValueAsked(at=0, run=TaskRunKey(first)))
        assert bench.referee.gone == [TaskRunKey(first)]

    def test_what_was_not_sent_yet_stays_completed_after_a_cancel(self) -> None:
        bench = Bench(window=1)
        blocker, first = bench.call(), bench.call(answers=LOST)
        user = bench.call("u", edge(first, 2))
        assert bench.name(first) is StateName.PENDING
        bench.feed(engine.CancelAsked(at=0, reason="enough"))
        assert bench.name(first) is StateName.COMPLETED
        assert bench.name(user) is StateName.CANCELLED
        bench.end(blocker, Outcome.CANCELLED)
        bench.body_ends()
        assert bench.settled() is not None

    def test_nor_after_it_has_ended(self) -> None:
        bench = Bench()
        first = bench.call(answers=LOST)
        bench.body_ends()
        bench.feed(engine.ValueAsked(at=0, run=TaskRunKey(first)))
        assert bench.referee.gone == [TaskRunKey(first)]
