"""Calls whose values may be there already."""

from __future__ import annotations

from raflow import engine
from raflow.engine import CacheVerdict
from raflow.model import (
    CacheOptions,
    Chunk,
    EdgeKind,
    NodeKind,
    Outcome,
    RetryPolicy,
    StateName,
    TaskRunKey,
)
from tests.unit.engine.harness import Bench, Told, edge

CACHE = CacheOptions()


def asked(bench: Bench) -> list[Chunk]:
    return [command.chunk for command in bench.log if isinstance(command, engine.AskCache)]


def answer(
    bench: Bench, node: int, verdict: CacheVerdict, reason: str = "", item: int = -1
) -> list[engine.Command]:
    event = engine.CacheAnswered(
        at=bench.now, run=TaskRunKey(node, item), verdict=verdict, reason=reason
    )
    return bench.feed(event)


def test_a_hit_is_final_without_an_attempt() -> None:
    bench = Bench()
    node = bench.call(cache=CACHE)
    after = bench.call("b", edge(node, 1))
    assert asked(bench) == [Chunk(node, attempt=0)]
    commands = answer(bench, node, CacheVerdict.HIT, "from run etl-1")
    assert isinstance(commands[0], engine.StateEntered)
    assert commands[0].attempts == 0
    assert bench.state(node).name is StateName.CACHED
    assert bench.state(node).message == "from run etl-1"
    assert bench.name(after) is StateName.SUBMITTED


def test_a_hit_tells_length_and_truth() -> None:
    bench = Bench()
    node = bench.call(cache=CACHE)
    mapped = bench.call("m", edge(node, 1, EdgeKind.ITEM), kind=NodeKind.MAP)
    skipped = bench.call("s", edge(node, 2, EdgeKind.CONDITION))
    bench.feed(
        engine.CacheAnswered(
            at=0, run=TaskRunKey(node), verdict=CacheVerdict.HIT, length=3, truth=False
        )
    )
    assert bench.referee.lengths == {mapped: 3}
    assert bench.name(skipped) is StateName.SKIPPED


def test_a_miss_runs_and_a_retry_does_not_ask_again() -> None:
    bench = Bench()
    node = bench.call(cache=CACHE, retry=RetryPolicy(retries=1))
    assert bench.name(node) is StateName.PENDING
    answer(bench, node, CacheVerdict.MISS)
    assert bench.name(node) is StateName.SUBMITTED
    bench.end(node, Outcome.FAILED)
    assert bench.name(node) is StateName.SUBMITTED
    bench.finish(bench.sent[TaskRunKey(node)], Told(unstarted=(0,)))
    bench.end(node)
    assert len(asked(bench)) == 1


def test_it_asks_once_its_inputs_are_there() -> None:
    bench = Bench()
    first = bench.call()
    bench.call("b", edge(first, 1), cache=CACHE)
    assert asked(bench) == []
    bench.end(first)
    assert asked(bench) == [Chunk(1, attempt=0)]


def test_it_does_not_follow_its_source_in_a_batch() -> None:
    bench = Bench(slots=1, pace=engine.Pace({"t": engine.Learned(1e-5, 8)}))
    bench.register(bench.made(), bench.made("t", edge(0, 1), cache=CACHE))
    assert bench.sent[TaskRunKey(0)].chunks == (Chunk(0),)
    assert TaskRunKey(1) not in bench.sent


def test_while_somebody_else_computes_it_it_waits() -> None:
    bench = Bench()
    node = bench.call(cache=CACHE)
    assert bench.engine.waits_for(TaskRunKey(node)) == "its value is looked for in the cache"
    answer(bench, node, CacheVerdict.BUSY, "run etl-1 computes it")
    assert bench.name(node) is StateName.PENDING
    assert bench.engine.waits_for(TaskRunKey(node)) == "run etl-1 computes it"
    answer(bench, node, CacheVerdict.HIT)
    assert bench.name(node) is StateName.CACHED
    assert answer(bench, node, CacheVerdict.HIT) == []


def test_a_key_that_cannot_be_made_fails_the_call() -> None:
    bench = Bench()
    node = bench.call(cache=CACHE)
    answer(bench, node, CacheVerdict.FAILED, "argument 'x' cannot be hashed")
    assert bench.state(node).name is StateName.FAILED
    assert bench.state(node).message == "argument 'x' cannot be hashed"


def test_items_ask_together_and_are_answered_one_by_one() -> None:
    bench = Bench()
    node = bench.call("m", kind=NodeKind.MAP, length=3, cache=CACHE)
    total = bench.call("total", edge(node, 1))
    assert asked(bench) == [Chunk(node, 0, 3, 0)]
    for item, verdict in enumerate([CacheVerdict.HIT, CacheVerdict.MISS, CacheVerdict.HIT]):
        answer(bench, node, verdict, item=item)
    bench.end(node, item=1)
    assert bench.name(total) is StateName.SUBMITTED


def test_an_answer_after_a_cancel_changes_nothing() -> None:
    bench = Bench()
    node = bench.call(cache=CACHE)
    bench.feed(engine.CancelAsked(at=0, reason="enough"))
    assert bench.name(node) is StateName.CANCELLED
    assert answer(bench, node, CacheVerdict.MISS) == []


def test_nothing_asks_during_a_pause() -> None:
    bench = Bench()
    before = bench.call(cache=CACHE)
    bench.feed(engine.PauseAsked(at=0, reason=""))
    late = bench.call(cache=CACHE)
    answer(bench, before, CacheVerdict.MISS)
    assert len(asked(bench)) == 1
    bench.feed(engine.UnpauseAsked(at=1))
    assert bench.name(before) is StateName.SUBMITTED
    assert asked(bench)[1:] == [Chunk(late, attempt=0)]


def test_the_value_of_a_hit_may_be_lost_too() -> None:
    bench = Bench()
    node = bench.call(cache=CACHE)
    answer(bench, node, CacheVerdict.HIT)
    bench.feed(engine.ValuesLost(at=0, chunks=(Chunk(node),)))
    user = bench.call("u", edge(node, 1))
    answer(bench, node, CacheVerdict.MISS)
    assert bench.sent[TaskRunKey(node)].chunks == (Chunk(node),)
    bench.end(node)
    assert bench.name(node) is StateName.COMPLETED
    assert bench.name(user) is StateName.SUBMITTED
