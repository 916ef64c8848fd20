"""Runs that are paused: nothing begins, what runs goes on."""

from __future__ import annotations

from raflow import engine
from raflow.model import NodeKind, Outcome, RetryPolicy, StateName, TaskRunKey
from tests.unit.engine.harness import Bench, edge


def pause(bench: Bench, reason: str = "night") -> list[engine.Command]:
    return bench.feed(engine.PauseAsked(at=bench.now, reason=reason))


def unpause(bench: Bench) -> list[engine.Command]:
    return bench.feed(engine.UnpauseAsked(at=bench.now))


def test_nothing_is_sent_and_what_runs_goes_on() -> None:
    bench = Bench()
    first = bench.call()
    after = bench.call("b", edge(first, 1))
    assert pause(bench) == []
    late = bench.call()
    bench.end(first)
    assert bench.name(first) is StateName.COMPLETED
    assert bench.name(after) is bench.name(late) is StateName.PENDING
    waits = bench.engine.waits_for(TaskRunKey(after))
    assert waits == "the flow run is paused: night"
    unpause(bench)
    assert bench.name(after) is bench.name(late) is StateName.SUBMITTED
    assert bench.engine.waits_for(TaskRunKey(after)) == ""


def test_it_says_once_that_nothing_is_in_flight() -> None:
    bench = Bench()
    node = bench.call()
    pause(bench)
    assert bench.end(node)[-1] == engine.AtRest()
    bench.call()
    unpause(bench)
    assert bench.log.count(engine.AtRest()) == 1
    assert bench.name(1) is StateName.SUBMITTED
    pause(bench)
    bench.end(1)
    assert bench.log.count(engine.AtRest()) == 2


def test_a_run_with_nothing_in_flight_is_at_rest_at_once() -> None:
    bench = Bench()
    assert pause(bench, "") == [engine.AtRest()]
    assert pause(bench, "") == []


def test_retries_wait_too() -> None:
    bench = Bench()
    node = bench.call(retry=RetryPolicy(retries=1, delays=(3.0,)))
    pause(bench)
    bench.end(node, Outcome.FAILED)
    assert bench.engine.waits_for(TaskRunKey(node)) == "retry 1 of 1 in 3 s"
    bench.feed(engine.RetryDue(at=3, run=TaskRunKey(node)))
    assert bench.name(node) is StateName.AWAITING_RETRY
    unpause(bench)
    assert bench.name(node) is StateName.SUBMITTED


def test_child_runs_are_not_started() -> None:
    bench = Bench()
    pause(bench)
    child = bench.call("child", kind=NodeKind.SUBFLOW)
    gone = bench.call("gone", kind=NodeKind.SUBFLOW)
    assert bench.engine.waits_for(TaskRunKey(child)) == "the flow run is paused: night"
    bench.feed(engine.CallCancelAsked(at=0, node=gone, item=None, reason="no"))
    assert unpause(bench)[-1] == engine.StartSubflow(run=TaskRunKey(child))
    assert bench.name(gone) is StateName.CANCELLED


def test_a_cancel_ends_it() -> None:
    bench = Bench()
    pause(bench)
    node = bench.call()
    bench.feed(engine.CancelAsked(at=0, reason="enough"))
    assert bench.name(node) is StateName.CANCELLED
    assert pause(bench) == []
    bench.body_ends()
    settled = bench.settled()
    assert settled is not None
    assert settled.cancelled


def test_a_run_whose_last_call_ends_during_a_pause_settles() -> None:
    bench = Bench()
    node = bench.call()
    bench.body_ends()
    pause(bench)
    bench.end(node)
    assert bench.settled() is not None
