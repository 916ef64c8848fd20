"""Calls that hold slots of limits while they run."""

from __future__ import annotations

from collections.abc import Sequence

from raflow import engine
from raflow.model import CacheOptions, NodeKind, Outcome, RetryPolicy, StateName, TaskRunKey
from tests.unit.engine.harness import Bench, Told, edge, size

DB = (("db", 1),)


def asked(commands: Sequence[engine.Command]) -> list[TaskRunKey]:
    return [command.run for command in commands if isinstance(command, engine.AskSlots)]


def released(commands: Sequence[engine.Command]) -> list[TaskRunKey]:
    return [command.run for command in commands if isinstance(command, engine.ReleaseSlots)]


def grant(bench: Bench, node: int, item: int = -1) -> list[engine.Command]:
    return bench.feed(engine.SlotsGranted(at=bench.now, run=TaskRunKey(node, item)))


def wait(bench: Bench, node: int, reason: str, item: int = -1) -> list[engine.Command]:
    event = engine.SlotsAwaited(at=bench.now, run=TaskRunKey(node, item), reason=reason)
    return bench.feed(event)


def bench() -> Bench:
    return Bench(limits={"db": 1, "api": 3})


def test_a_call_asks_before_it_is_sent_and_gives_back_after() -> None:
    b = bench()
    node = b.call(limits=DB, priority=7)
    ask = engine.AskSlots(run=TaskRunKey(node), amounts=DB, priority=7)
    assert ask in b.log
    assert b.name(node) is StateName.PENDING
    grant(b, node)
    assert b.name(node) is StateName.SUBMITTED
    assert released(b.end(node)) == [TaskRunKey(node)]
    b.body_ends()
    b.referee.check_end()


def test_while_it_waits_the_state_says_who_holds_the_slots() -> None:
    b = bench()
    node = b.call(limits=DB)
    wait(b, node, "limit 'db' 1/1, held by load-0")
    assert b.state(node).name is StateName.AWAITING_SLOT
    assert b.state(node).reason == "limit 'db' 1/1, held by load-0"
    assert b.engine.waits_for(TaskRunKey(node)) == "limit 'db' 1/1, held by load-0"
    assert wait(b, node, "limit 'db' 1/1, held by load-0") == []
    assert len(wait(b, node, "limit 'db' 1/1, held by load-1")) == 1
    commands = grant(b, node)
    assert isinstance(commands[0], engine.StateEntered)
    assert commands[0].state.name is StateName.PENDING
    assert b.name(node) is StateName.SUBMITTED


def test_it_asks_once_its_inputs_are_there() -> None:
    b = bench()
    first = b.call()
    second = b.call("b", edge(first, 1), limits=DB)
    assert asked(b.log) == []
    assert asked(b.end(first)) == [TaskRunKey(second)]


def test_each_attempt_asks_anew() -> None:
    b = bench()
    node = b.call(limits=DB, retry=RetryPolicy(retries=1, delays=(3.0,), crash_retries=1))
    grant(b, node)
    commands = b.end(node, Outcome.FAILED)
    assert released(commands) == [TaskRunKey(node)]
    assert asked(commands) == []
    assert asked(b.feed(engine.RetryDue(at=3, run=TaskRunKey(node)))) == [TaskRunKey(node)]
    assert b.name(node) is StateName.AWAITING_RETRY
    wait(b, node, "full")
    grant(b, node)
    commands = b.die(node)
    assert released(commands) == [TaskRunKey(node)]
    b.feed(engine.RetryDue(at=9, run=TaskRunKey(node)))
    grant(b, node)
    b.end(node)
    assert b.name(node) is StateName.RECOVERED


def test_what_is_handed_back_asks_again() -> None:
    b = bench()
    node = b.call(limits=DB)
    grant(b, node)
    commands = b.finish(b.sent[TaskRunKey(node)], Told(unstarted=(0,)))
    assert released(commands) == asked(commands) == [TaskRunKey(node)]


def test_a_map_has_few_items_in_line() -> None:
    b = bench()
    node = b.call("m", kind=NodeKind.MAP, length=100, limits=(("api", 1), ("db", 0)))
    assert asked(b.log) == [TaskRunKey(node, item) for item in range(6)]
    waits = b.engine.waits_for(TaskRunKey(node, 50))
    assert waits == "6 other calls of m stand in line for 'api', 'db'"
    assert asked(grant(b, node, 1)) == [TaskRunKey(node, 6)]
    assert [size(batch) for batch in b.batches()] == [1]


def test_who_needs_more_slots_has_fewer_in_line() -> None:
    b = bench()
    b.call("m", kind=NodeKind.MAP, length=9, limits=(("api", 2),))
    assert len(asked(b.log)) == 2


def test_a_limit_that_nobody_knows_fails_the_call() -> None:
    b = bench()
    node = b.call(limits=DB)
    b.feed(engine.SlotsRefused(at=0, run=TaskRunKey(node), message="no limit 'db'"))
    assert b.state(node).name is StateName.FAILED
    assert b.state(node).message == "no limit 'db'"


def test_a_cancel_leaves_the_line() -> None:
    b = bench()
    nodes = [b.call(limits=DB) for _ in range(4)]
    wait(b, nodes[1], "full")
    assert asked(b.log) == [TaskRunKey(0), TaskRunKey(1)]
    commands = b.feed(engine.CancelAsked(at=0, reason="enough"))
    assert released(commands) == [TaskRunKey(0), TaskRunKey(1)]
    assert {b.name(node) for node in nodes} == {StateName.CANCELLED}
    assert grant(b, nodes[0]) == []
    b.body_ends()
    b.referee.check_end()


def test_the_cancel_of_one_lets_the_next_ask() -> None:
    b = bench()
    for _ in range(3):
        b.call(limits=DB)
    commands = b.feed(engine.CallCancelAsked(at=0, node=0, item=None, reason="not needed"))
    assert released(commands) == [TaskRunKey(0)]
    assert asked(commands) == [TaskRunKey(2)]


def test_a_slot_that_is_granted_and_not_used_is_given_back() -> None:
    b = Bench(window=1, limits={"db": 1})
    blocker, node = b.call(), b.call(limits=DB)
    grant(b, node)
    assert b.name(node) is StateName.PENDING
    commands = b.feed(engine.CallCancelAsked(at=0, node=node, item=None, reason="no"))
    assert released(commands) == [TaskRunKey(node)]
    b.end(blocker)
    b.body_ends()
    b.referee.check_end()


def test_a_pause_gives_all_slots_back_and_then_asks_again() -> None:
    b = Bench(window=1, limits={"db": 1})
    blocker = b.call()
    granted, waiting, behind = (b.call(limits=DB) for _ in range(3))
    grant(b, granted)
    wait(b, waiting, "full")
    commands = b.feed(engine.PauseAsked(at=0, reason="night"))
    assert set(released(commands)) == {(n, -1) for n in (granted, waiting, behind)}
    assert b.state(waiting).reason == "the flow run is paused: night"
    b.end(blocker)
    assert asked(b.log[-1:]) == []
    late = b.call(limits=DB)
    commands = b.feed(engine.UnpauseAsked(at=1))
    assert asked(commands) == [TaskRunKey(granted), TaskRunKey(waiting)]
    for node in (granted, waiting, behind, late):
        grant(b, node)
        b.end(node)
    b.body_ends()
    b.referee.check_end()


def test_the_cache_is_asked_before_slots_are() -> None:
    b = bench()
    node = b.call(limits=DB, cache=CacheOptions())
    assert asked(b.log) == []
    miss = engine.CacheVerdict.MISS
    commands = b.feed(engine.CacheAnswered(at=0, run=TaskRunKey(node), verdict=miss))
    assert asked(commands) == [TaskRunKey(node)]


def test_an_unknown_run_is_ignored() -> None:
    b = bench()
    node = b.call()
    assert grant(b, node) == wait(b, node, "x") == []
