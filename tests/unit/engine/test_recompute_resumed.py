"""Runs of a resumed flow run whose values are lost, and whose inputs run for the first time."""

from __future__ import annotations

from raflow import engine
from raflow.engine import Answer
from raflow.model import Chunk, EdgeKind, NodeKind, Outcome, StateName, TaskRunKey
from tests.unit.engine.harness import Bench, edge

LOST = (Answer(has_value=False),)


def test_it_waits_for_an_input_that_runs_for_the_first_time() -> None:
    bench = Bench()
    first = bench.call()
    second = bench.call("b", edge(first, 1), answers=LOST)
    user = bench.call("c", edge(second, 2))
    assert bench.name(second) is bench.name(user) is StateName.PENDING
    bench.end(first)
    assert bench.name(second) is StateName.SUBMITTED
    bench.end(second)
    assert bench.name(user) is StateName.SUBMITTED


def test_and_fails_with_it() -> None:
    bench = Bench()
    first = bench.call()
    second = bench.call("b", edge(first, 1), answers=LOST)
    user = bench.call("c", edge(second, 2))
    bench.end(first, Outcome.FAILED)
    assert bench.name(second) is bench.name(user) is StateName.UPSTREAM_FAILED


def test_it_waits_for_a_stream_to_end() -> None:
    bench = Bench()
    stream = bench.call("m", kind=NodeKind.MAP, streamed=True)
    total = bench.call("total", edge(stream, 1), answers=LOST)
    user = bench.call("c", edge(total, 2))
    bench.feed(engine.ItemsArrived(at=1, node=stream, length=1))
    bench.end(stream, item=0)
    assert bench.name(total) is StateName.PENDING
    bench.feed(engine.ItemsArrived(at=2, node=stream, length=1, complete=True))
    bench.end(total)
    assert bench.name(user) is StateName.SUBMITTED


def test_it_does_not_wait_for_what_it_takes_nothing_from() -> None:
    bench = Bench()
    first = bench.call()
    second = bench.call("b", edge(first, 1, EdgeKind.ORDER), answers=LOST)
    bench.call("c", edge(second, 2))
    assert bench.name(second) is StateName.SUBMITTED


def test_slots_that_are_granted_too_late_are_given_back() -> None:
    bench = Bench(limits={"db": 1})
    first = bench.call()
    bench.end(first)
    user = bench.call("u", edge(first, 1), limits=(("db", 1),))
    bench.feed(engine.ValuesLost(at=0, chunks=(Chunk(first),)))
    granted = engine.SlotsGranted(at=0, run=TaskRunKey(user))
    assert engine.ReleaseSlots(run=TaskRunKey(user)) in bench.feed(granted)
    assert bench.name(first) is StateName.SUBMITTED
    bench.end(first)
    bench.feed(granted)
    assert bench.name(user) is StateName.SUBMITTED
