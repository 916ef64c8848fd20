"""Values are let go when nobody can use them any more, and not before."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from raflow import engine
from raflow.engine import Learned, Pace
from raflow.model import (
    Chunk,
    EdgeKind,
    NodeKind,
    Outcome,
    RetryPolicy,
    State,
    StateName,
    TaskRunKey,
)
from tests.unit.engine.harness import Bench, Told, edge


def released(commands: Sequence[engine.Command]) -> list[Chunk]:
    found = [command for command in commands if isinstance(command, engine.ReleaseValues)]
    return [chunk for command in found for chunk in command.chunks]


def drop(bench: Bench, *nodes: int) -> list[Chunk]:
    return released(bench.feed(engine.FuturesDropped(at=bench.now, nodes=nodes)))


def value(node: int, start: int = -1, stop: int = 0) -> Chunk:
    return Chunk(node, start, stop, 0)


def test_a_value_goes_with_its_future_once_the_call_has_ended() -> None:
    bench = Bench()
    early, late = bench.call(), bench.call()
    assert drop(bench, early) == []
    assert released(bench.end(early)) == [value(early)]
    assert released(bench.end(late)) == []
    assert drop(bench, late) == [value(late)]
    assert drop(bench, early, late) == []


def test_neighbours_go_together() -> None:
    bench = Bench(slots=1, pace=Pace({"t": Learned(1e-5, 8)}))
    bench.register(*[bench.made() for _ in range(5)])
    assert drop(bench, *range(5)) == []
    commands = bench.finish(bench.batches()[0], Told({2: Outcome.FAILED}))
    assert released(commands) == [value(node) for node in (0, 1, 3, 4)]


def test_a_consumer_keeps_it_to_its_end() -> None:
    bench = Bench()
    first = bench.call()
    second = bench.call("u", edge(first, 1), retry=RetryPolicy(retries=1))
    assert drop(bench, first) == []
    assert released(bench.end(first)) == []
    assert released(bench.end(second, Outcome.FAILED)) == []
    assert released(bench.end(second)) == [value(first)]


@pytest.mark.parametrize("kind", [EdgeKind.ORDER, EdgeKind.CONDITION])
def test_who_only_waits_needs_no_value(kind: EdgeKind) -> None:
    bench = Bench()
    first = bench.call()
    second = bench.call("u", edge(first, 1, kind))
    drop(bench, first)
    assert released(bench.end(first, truth=True)) == [value(first)]
    assert bench.name(second) is StateName.SUBMITTED


def test_what_did_not_complete_has_no_value() -> None:
    bench = Bench()
    first = bench.call()
    drop(bench, first)
    assert released(bench.end(first, Outcome.FAILED)) == []
    bench.body_ends()
    settled = bench.settled()
    assert settled is not None
    assert settled.unhandled == (TaskRunKey(first),)


def test_a_subflow_has_one_too() -> None:
    bench = Bench()
    child = bench.call("child", kind=NodeKind.SUBFLOW)
    drop(bench, child)
    state = State(name=StateName.COMPLETED, at=1.0)
    event = engine.SubflowEnded(at=1.0, run=TaskRunKey(child), state=state)
    assert released(bench.feed(event)) == [value(child)]


def test_a_map_goes_when_the_last_of_its_users_has_ended() -> None:
    bench = Bench()
    node = bench.call("m", kind=NodeKind.MAP, length=3)
    total = bench.call("total", edge(node, 1))
    drop(bench, node)
    for item in range(3):
        outcome = Outcome.FAILED if item == 1 else Outcome.COMPLETED
        commands = bench.end(node, outcome, item=item)
    assert bench.name(total) is StateName.UPSTREAM_FAILED
    assert released(commands) == [value(node, 0, 1), value(node, 2, 3)]


def test_between_maps_items_go_one_by_one() -> None:
    bench = Bench()
    first = bench.call("a", kind=NodeKind.MAP, length=3)
    second = bench.call("b", edge(first, 1, EdgeKind.ITEM), kind=NodeKind.MAP)
    bench.end(first, item=0)
    assert released(bench.end(second, item=0)) == []
    assert drop(bench, first) == [value(first, 0, 1)]
    bench.end(first, item=1)
    assert released(bench.end(second, item=1)) == [value(first, 1, 2)]
    bench.end(first, item=2)
    assert released(bench.end(second, item=2)) == [value(first, 2, 3)]
    assert drop(bench, second) == [value(second, 0, 3)]


def test_but_not_if_somebody_needs_them_all() -> None:
    bench = Bench()
    first = bench.call("a", kind=NodeKind.MAP, length=2)
    second = bench.call("b", edge(first, 1, EdgeKind.ITEM), kind=NodeKind.MAP)
    total = bench.call("c", edge(first, 2))
    drop(bench, first)
    for item in (0, 1):
        bench.end(first, item=item)
        assert released(bench.end(second, item=item)) == []
    assert released(bench.end(total)) == [value(first, 0, 2)]


def test_what_is_released_is_forgotten() -> None:
    bench = Bench()
    node, mapped = bench.call(), bench.call("m", kind=NodeKind.MAP, length=2)
    bench.end(node, length=3)
    for item in (0, 1):
        bench.end(mapped, item=item)
    drop(bench, node, mapped)
    ledger = bench.engine._ledger
    assert ledger.calls.calls == [None, None]
    assert ledger.calls.keys == ["", ""]
    assert not ledger.calls.lengths
    assert not ledger.maps
    assert bench.engine.state(TaskRunKey(mapped, 1))[0] is StateName.COMPLETED


def test_a_million_dropped_calls_cost_little() -> None:
    core = engine.Engine(window=4, slots=lambda _: 1, pace=Pace({"t": Learned(1e-5, 8)}))
    bench = Bench()
    bench.engine = core
    calls = [bench.made() for _ in range(10_000)]
    core.handle(engine.CallsRegistered(at=0, calls=calls))
    core.handle(engine.FuturesDropped(at=0, nodes=range(10_000)))
    columns = core._ledger.calls
    assert len(columns.states) + 8 * len(columns.since) + len(columns.truths) == 100_000
    assert not any([columns.tallies, columns.waiters, columns.lengths, core._ledger.waiting])
