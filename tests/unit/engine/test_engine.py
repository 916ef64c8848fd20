from __future__ import annotations

import pytest

from raflow import engine
from raflow.model import (
    Chunk,
    EdgeKind,
    NodeKind,
    Outcome,
    RetryPolicy,
    State,
    StateName,
    TaskRunKey,
    TriggerRule,
)
from tests.unit.engine.harness import Bench, edge, report


def test_a_call_without_inputs_is_sent_at_once() -> None:
    bench = Bench()
    node = bench.call()
    assert bench.name(node) is StateName.SUBMITTED
    assert bench.sent[TaskRunKey(node)].chunks == (Chunk(node),)


def test_a_call_waits_for_its_input_and_says_so() -> None:
    bench = Bench()
    first = bench.call("extract")
    second = bench.call("load", edge(first, 1))
    assert bench.engine.waits_for(TaskRunKey(second)) == "waits for extract-0"
    bench.end(first)
    assert bench.name(first) is StateName.COMPLETED
    assert bench.name(second) is StateName.SUBMITTED


def test_a_call_that_is_not_registered_is_pending() -> None:
    core = Bench().engine
    assert core.state(TaskRunKey(7)) == (StateName.PENDING, 0.0)
    assert core.waits_for(TaskRunKey(7)) == ""


def test_items_say_what_they_wait_for() -> None:
    bench = Bench()
    first = bench.call("a")
    second = bench.call("b", edge(first, 1, EdgeKind.ITEM), kind=NodeKind.MAP)
    assert bench.engine.waits_for(TaskRunKey(second)) == "waits for a-0"
    other = bench.call("c")
    third = bench.call("d", edge(other, 3), kind=NodeKind.MAP, length=2)
    assert bench.engine.waits_for(TaskRunKey(third, 1)) == "waits for c-2"
    bench.end(other)
    assert bench.engine.waits_for(TaskRunKey(third, 1)) == ""


def test_an_input_that_was_final_before_the_call_counts() -> None:
    bench = Bench()
    first = bench.call()
    bench.end(first)
    second = bench.call("b", edge(first, 1))
    assert bench.name(second) is StateName.SUBMITTED


def test_the_window_bounds_what_is_out() -> None:
    bench = Bench(window=2)
    nodes = [bench.call() for _ in range(5)]
    assert [bench.name(n) for n in nodes].count(StateName.SUBMITTED) == 2
    bench.end(nodes[0])
    assert bench.name(nodes[2]) is StateName.SUBMITTED
    assert bench.name(nodes[3]) is StateName.PENDING


def test_a_failure_makes_everything_below_upstream_failed() -> None:
    bench = Bench()
    first = bench.call("a")
    second = bench.call("b", edge(first, 1))
    third = bench.call("c", edge(second, 2))
    bench.end(first, Outcome.FAILED)
    assert bench.name(second) is StateName.UPSTREAM_FAILED
    assert bench.state(second).message == "a-0 did not complete"
    assert bench.name(third) is StateName.UPSTREAM_FAILED


def test_a_failure_runs_down_a_chain_of_any_length() -> None:
    bench = Bench()
    bench.call()
    bench.register(*[bench.made("t", edge(node - 1, node)) for node in range(1, 3_000)])
    bench.end(0, Outcome.FAILED)
    assert bench.name(2_999) is StateName.UPSTREAM_FAILED


class TestRetries:
    def test_a_retry_waits_its_delay_and_then_recovers(self) -> None:
        bench = Bench()
        node = bench.call(retry=RetryPolicy(retries=2, delays=(3.0,)))
        commands = bench.end(node, Outcome.FAILED)
        assert bench.name(node) is StateName.AWAITING_RETRY
        assert bench.state(node).reason == "retry 1 of 2 in 3 s"
        assert engine.SetRetryTimer(run=TaskRunKey(node), due=3.0) in commands
        assert bench.engine.in_flight == 0
        bench.now = 3.0
        bench.feed(engine.RetryDue(at=3.0, run=TaskRunKey(node)))
        assert bench.sent[TaskRunKey(node)].chunks[0].attempt == 2
        bench.end(node)
        assert bench.name(node) is StateName.RECOVERED

    def test_the_budget_ends(self) -> None:
        bench = Bench()
        node = bench.call(retry=RetryPolicy(retries=1))
        bench.end(node, Outcome.TIMED_OUT)
        assert bench.name(node) is StateName.SUBMITTED
        bench.end(node, Outcome.TIMED_OUT)
        assert bench.name(node) is StateName.TIMED_OUT
        assert len(bench.referee.ended[TaskRunKey(node)]) == 2

    def test_a_condition_can_refuse_a_retry(self) -> None:
        bench = Bench()
        node = bench.call(retry=RetryPolicy(retries=5))
        bench.end(node, Outcome.FAILED, retriable=False)
        assert bench.name(node) is StateName.FAILED

    def test_crashes_have_a_budget_of_their_own(self) -> None:
        bench = Bench()
        node = bench.call(retry=RetryPolicy(retries=1, crash_retries=1))
        bench.die(node, Outcome.CRASHED)
        bench.end(node, Outcome.FAILED)
        assert bench.name(node) is StateName.SUBMITTED
        bench.die(node, Outcome.LOST)
        assert bench.name(node) is StateName.LOST
        assert len(bench.referee.ended[TaskRunKey(node)]) == 3

    def test_a_late_report_of_an_old_attempt_changes_nothing(self) -> None:
        bench = Bench()
        node = bench.call(retry=RetryPolicy(crash_retries=1))
        old = bench.sent[TaskRunKey(node)]
        bench.die(node, Outcome.LOST)
        late = engine.BatchFinished(at=9, report=report(old))
        assert bench.engine.handle(late) == []
        assert bench.name(node) is StateName.SUBMITTED

    def test_a_batch_that_returns_without_its_call_lost_it(self) -> None:
        bench = Bench()
        node = bench.call()
        told = report(bench.sent[TaskRunKey(node)])
        del told.started_at[:], told.ended_at[:]
        bench.feed(engine.BatchFinished(at=1, report=told))
        assert bench.name(node) is StateName.LOST

    def test_another_attempt_that_begins_is_called_retrying(self) -> None:
        bench = Bench()
        node = bench.call(retry=RetryPolicy(retries=1))
        bench.feed(engine.CallBegan(at=0, run=TaskRunKey(node), attempt=1))
        assert bench.name(node) is StateName.RUNNING
        bench.end(node, Outcome.FAILED)
        bench.feed(engine.CallBegan(at=0, run=TaskRunKey(node), attempt=1))
        assert bench.name(node) is StateName.SUBMITTED
        bench.feed(engine.CallBegan(at=0, run=TaskRunKey(node), attempt=2))
        assert bench.name(node) is StateName.RETRYING


class TestConditions:
    @pytest.mark.parametrize(
        ("truth", "name"),
        [
            (True, StateName.SUBMITTED),
            (False, StateName.SKIPPED),
            (None, StateName.FAILED),
        ],
    )
    def test_run_if_a_future(self, truth: bool | None, name: StateName) -> None:
        bench = Bench()
        first = bench.call("ask")
        second = bench.call("act", edge(first, 1, EdgeKind.CONDITION))
        third = bench.call("after", edge(second, 2))
        bench.end(first, truth=truth)
        assert bench.name(second) is name
        if truth is False:
            assert bench.state(second).message == "run_if: ask-0 is false"
            assert bench.name(third) is StateName.SKIPPED

    def test_run_if_a_plain_false(self) -> None:
        bench = Bench()
        assert bench.name(bench.call(runnable=False)) is StateName.SKIPPED

    def test_allow_failure_takes_a_failure_but_not_a_skip(self) -> None:
        bench = Bench()
        failing, skipped = bench.call("a"), bench.call("b", runnable=False)
        after = bench.call("c", edge(failing, 2, allow_failure=True))
        none = bench.call("d", edge(skipped, 3, allow_failure=True))
        bench.end(failing, Outcome.FAILED)
        assert bench.name(after) is StateName.SUBMITTED
        assert bench.name(none) is StateName.SKIPPED


class TestMaps:
    def test_items_are_task_runs_of_their_own(self) -> None:
        bench = Bench()
        node = bench.call("m", kind=NodeKind.MAP, length=3)
        assert engine.MapExpanded(node=node, length=3) in bench.log
        bench.end(node, item=1)
        assert bench.name(node, 1) is StateName.COMPLETED
        assert bench.name(node, 0) is StateName.SUBMITTED

    def test_whole_map_as_input_waits_for_every_item(self) -> None:
        bench = Bench()
        node = bench.call("m", kind=NodeKind.MAP, length=2)
        total = bench.call("total", edge(node, 1))
        bench.end(node, item=0)
        assert bench.name(total) is StateName.PENDING
        bench.end(node, item=1)
        assert bench.name(total) is StateName.SUBMITTED

    def test_an_empty_map_is_complete_at_once(self) -> None:
        bench = Bench()
        node = bench.call("m", kind=NodeKind.MAP, length=0)
        total = bench.call("total", edge(node, 1))
        assert bench.name(total) is StateName.SUBMITTED
        bench.end(total)
        bench.body_ends()
        assert bench.settled() == engine.RunSettled(cancelled=False, unhandled=())

    def test_map_after_map_goes_item_by_item(self) -> None:
        bench = Bench()
        first = bench.call("a", kind=NodeKind.MAP, length=3)
        second = bench.call("b", edge(first, 1, EdgeKind.ITEM), kind=NodeKind.MAP)
        bench.end(first, item=2)
        assert bench.name(second, 2) is StateName.SUBMITTED
        assert bench.name(second, 0) is StateName.PENDING
        bench.end(first, Outcome.FAILED, item=0)
        assert bench.name(second, 0) is StateName.UPSTREAM_FAILED
        assert bench.state(second, 0).message == "a-0[0] did not complete"

    def test_map_over_a_list_that_a_task_returns(self) -> None:
        bench = Bench()
        first = bench.call("a")
        second = bench.call("b", edge(first, 1, EdgeKind.ITEM), kind=NodeKind.MAP)
        third = bench.call("c", edge(second, 2, EdgeKind.ITEM), kind=NodeKind.MAP)
        assert third not in bench.referee.lengths
        bench.end(first, length=2)
        assert bench.referee.lengths == {second: 2, third: 2}
        bench.end(second, item=0)
        assert bench.name(third, 0) is StateName.SUBMITTED

    @pytest.mark.parametrize(
        ("outcome", "length", "name", "message"),
        [
            (Outcome.FAILED, None, StateName.UPSTREAM_FAILED, "a-0 did not complete"),
            (Outcome.SKIPPED, None, StateName.SKIPPED, "a-0 was skipped"),
            (Outcome.COMPLETED, None, StateName.FAILED, "has no length"),
            (Outcome.COMPLETED, 5, StateName.FAILED, "equally long"),
        ],
    )
    def test_a_map_that_can_have_no_items_tells_why(
        self, outcome: Outcome, length: int | None, name: StateName, message: str
    ) -> None:
        bench = Bench()
        first = bench.call("a")
        mapped = bench.call("b", edge(first, 1, EdgeKind.ITEM), kind=NodeKind.MAP, length=2)
        below = bench.call("c", edge(mapped, 2))
        bench.end(first, outcome, length=length)
        assert bench.name(mapped) is name
        assert message in bench.state(mapped).message
        assert bench.state(below).is_final

    def test_one_item_as_input(self) -> None:
        bench = Bench()
        node = bench.call("m", kind=NodeKind.MAP, length=3)
        one = bench.call("one", edge(node, 1, source_item=1))
        bench.end(node, item=1)
        assert bench.name(one) is StateName.SUBMITTED

    def test_an_item_that_never_comes_counts_as_failed_once(self) -> None:
        bench = Bench()
        slow = bench.call("slow")
        node = bench.call("m", kind=NodeKind.MAP, length=1)
        links = [edge(node, 2, source_item=5, allow_failure=True), edge(slow, 2)]
        user = bench.call("user", *links)
        bench.end(node, item=0)
        assert bench.name(user) is StateName.PENDING
        bench.end(slow)
        assert bench.name(user) is StateName.SUBMITTED

    def test_a_stream_grows_and_what_follows_it_grows_along(self) -> None:
        bench = Bench()
        node = bench.call("m", kind=NodeKind.MAP, streamed=True)
        after = bench.call("n", edge(node, 1, EdgeKind.ITEM), kind=NodeKind.MAP)
        total = bench.call("total", edge(after, 2))
        bench.feed(engine.ItemsArrived(at=1, node=node, length=1))
        bench.end(node, item=0)
        assert bench.name(after, 0) is StateName.SUBMITTED
        bench.end(after, item=0)
        assert bench.name(total) is StateName.PENDING
        assert bench.referee.lengths == {}
        bench.feed(engine.ItemsArrived(at=2, node=node, length=2, complete=True))
        assert bench.referee.lengths == {node: 2, after: 2}
        bench.end(node, item=1)
        bench.end(after, item=1)
        assert bench.name(total) is StateName.SUBMITTED

    def test_a_stream_that_breaks_ends_with_an_item_that_failed(self) -> None:
        bench = Bench()
        node = bench.call("m", kind=NodeKind.MAP, streamed=True)
        after = bench.call("n", edge(node, 1, EdgeKind.ITEM), kind=NodeKind.MAP)
        bench.feed(engine.ItemsArrived(at=1, node=node, length=2, complete=True, error="broken"))
        assert bench.name(node, 0) is StateName.SUBMITTED
        assert bench.state(node, 1).message == "broken"
        assert bench.name(after, 1) is StateName.UPSTREAM_FAILED

    def test_a_stream_without_items_is_complete(self) -> None:
        bench = Bench()
        node = bench.call("m", kind=NodeKind.MAP, streamed=True)
        total = bench.call("total", edge(node, 1))
        bench.feed(engine.ItemsArrived(at=1, node=node, length=0, complete=True))
        assert bench.name(total) is StateName.SUBMITTED

    def test_a_cancel_ends_a_stream(self) -> None:
        bench = Bench(window=1)
        node = bench.call("m", kind=NodeKind.MAP, streamed=True)
        empty = bench.call("n", kind=NodeKind.MAP, streamed=True)
        bench.feed(engine.ItemsArrived(at=1, node=node, length=2))
        bench.feed(engine.CancelAsked(at=2, reason="enough"))
        assert bench.name(node, 1) is StateName.CANCELLED
        assert bench.name(empty) is StateName.CANCELLED
        assert bench.feed(engine.ItemsArrived(at=3, node=node, length=9)) == []
        bench.end(node, Outcome.CANCELLED, item=0)
        bench.body_ends()
        assert bench.settled() is not None

    def test_a_future_among_the_items_holds_up_only_its_item(self) -> None:
        bench = Bench()
        slow = bench.call("slow")
        node = bench.call("m", edge(slow, 1, target_item=1), kind=NodeKind.MAP, length=2)
        assert bench.name(node, 0) is StateName.SUBMITTED
        assert bench.name(node, 1) is StateName.PENDING


class TestTheEnd:
    def test_the_run_settles_once_all_is_final(self) -> None:
        bench = Bench()
        node = bench.call()
        bench.body_ends()
        assert bench.settled() is None
        bench.end(node)
        assert bench.settled() == engine.RunSettled(cancelled=False, unhandled=())

    def test_a_failure_at_an_end_is_unhandled_and_so_is_its_cause(self) -> None:
        bench = Bench()
        first = bench.call("a")
        bench.call("b", edge(first, 1))
        bench.end(first, Outcome.FAILED)
        bench.body_ends()
        settled = bench.settled()
        assert settled is not None
        assert settled.unhandled == (TaskRunKey(0), TaskRunKey(1))

    def test_a_failure_that_the_body_saw_at_the_end_is_handled(self) -> None:
        bench = Bench()
        first = bench.call("a")
        second = bench.call("b", edge(first, 1))
        bench.end(first, Outcome.FAILED)
        bench.feed(engine.FailureSeen(at=0, run=TaskRunKey(second)))
        bench.body_ends()
        assert bench.settled() == engine.RunSettled(cancelled=False, unhandled=())

    def test_a_failure_seen_half_way_still_counts_below(self) -> None:
        bench = Bench()
        first = bench.call("a")
        bench.call("b", edge(first, 1))
        bench.end(first, Outcome.FAILED)
        bench.feed(engine.FailureSeen(at=0, run=TaskRunKey(first)))
        bench.body_ends()
        settled = bench.settled()
        assert settled is not None
        assert settled.unhandled == (TaskRunKey(1),)

    def test_a_failure_taken_in_by_a_tolerant_task_is_handled(self) -> None:
        bench = Bench()
        first = bench.call("a")
        clean = bench.call("clean", edge(first, 1), rule=TriggerRule.ALL_DONE)
        bench.end(first, Outcome.FAILED)
        bench.end(clean)
        bench.body_ends()
        assert bench.settled() == engine.RunSettled(cancelled=False, unhandled=())

    def test_an_exception_in_the_body_stops_what_has_not_ended(self) -> None:
        bench = Bench(window=1)
        running, waiting = bench.call(), bench.call()
        commands = bench.body_ends(raised=True)
        assert bench.name(waiting) is StateName.CANCELLED
        assert engine.CancelBatch(batch=0, force=False) in commands
        bench.end(running, Outcome.CANCELLED)
        settled = bench.settled()
        assert settled is not None
        assert not settled.cancelled


class TestCancel:
    def test_nothing_starts_after_it(self) -> None:
        bench = Bench(window=1)
        running = bench.call(retry=RetryPolicy(retries=3))
        waiting = bench.call()
        unexpanded = bench.call("m", edge(running, 2, EdgeKind.ITEM), kind=NodeKind.MAP)
        commands = bench.feed(engine.CancelAsked(at=0, reason="enough"))
        assert engine.CancelBatch(batch=0, force=False) in commands
        assert engine.SetGraceTimer(due=5.0) in commands
        late = bench.call()
        for node in (waiting, unexpanded, late):
            assert bench.name(node) is StateName.CANCELLED
        assert bench.state(late).message == "enough"
        bench.end(running, Outcome.FAILED)
        assert bench.name(running) is StateName.FAILED
        bench.body_ends()
        settled = bench.settled()
        assert settled is not None
        assert settled.cancelled

    def test_what_does_not_stop_is_killed_after_the_grace(self) -> None:
        bench = Bench()
        node = bench.call()
        bench.feed(engine.CancelAsked(at=0, reason="enough"))
        assert bench.feed(engine.GraceOver(at=5)) == [engine.CancelBatch(batch=0, force=True)]
        bench.die(node, Outcome.CRASHED)
        assert bench.name(node) is StateName.CANCELLED

    def test_asking_twice_kills_at_once(self) -> None:
        bench = Bench()
        bench.call()
        bench.feed(engine.CancelAsked(at=0, reason="enough"))
        again = bench.feed(engine.CancelAsked(at=0, reason="now"))
        assert again == [engine.CancelBatch(batch=0, force=True)]

    def test_a_retry_that_waits_is_cancelled(self) -> None:
        bench = Bench()
        node = bench.call(retry=RetryPolicy(retries=1, delays=(60.0,)))
        bench.end(node, Outcome.FAILED)
        bench.feed(engine.CancelAsked(at=0, reason="enough"))
        assert bench.name(node) is StateName.CANCELLED
        assert bench.feed(engine.RetryDue(at=60, run=TaskRunKey(node))) == []


class TestSubflows:
    def test_a_subflow_takes_no_place_in_the_window(self) -> None:
        bench = Bench(window=1)
        bench.call()
        child = bench.call("child", kind=NodeKind.SUBFLOW)
        assert engine.StartSubflow(run=TaskRunKey(child)) in bench.log

    @pytest.mark.parametrize(
        "name",
        [
            StateName.COMPLETED,
            StateName.FAILED,
            StateName.TIMED_OUT,
            StateName.CRASHED,
            StateName.CANCELLED,
        ],
    )
    def test_its_final_state_is_the_childs(self, name: StateName) -> None:
        bench = Bench()
        child = bench.call("child", kind=NodeKind.SUBFLOW)
        ended = State(name=name, at=1.0, message="so")
        bench.feed(engine.SubflowEnded(at=1.0, run=TaskRunKey(child), state=ended))
        assert bench.state(child) == ended
        assert bench.engine.state(TaskRunKey(child)) == (name, 1.0)

    def test_cancel_reaches_it(self) -> None:
        bench = Bench()
        child = bench.call("child", kind=NodeKind.SUBFLOW)
        commands = bench.feed(engine.CancelAsked(at=0, reason="enough"))
        assert engine.CancelSubflow(run=TaskRunKey(child), reason="enough") in commands
