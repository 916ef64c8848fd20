"""The flow's body cancels a call, an item of a map, or all of a map."""

from __future__ import annotations

import pytest

from raflow import engine
from raflow.engine import Learned, Pace
from raflow.model import (
    Chunk,
    EdgeKind,
    NodeKind,
    Outcome,
    RetryPolicy,
    StateName,
    TaskRunKey,
)
from tests.unit.engine.harness import Bench, Told, edge


def cancel(bench: Bench, node: int, item: int | None = None) -> list[engine.Command]:
    event = engine.CallCancelAsked(at=bench.now, node=node, item=item, reason="not needed")
    return bench.feed(event)


def light() -> Bench:
    return Bench(slots=1, pace=Pace({"t": Learned(1e-5, 8)}))


def test_one_that_waits_for_its_inputs_ends_at_once() -> None:
    bench = Bench()
    first = bench.call()
    second = bench.call("b", edge(first, 1))
    third = bench.call("c", edge(second, 2))
    cancel(bench, second)
    assert bench.state(second).name is StateName.CANCELLED
    assert bench.state(second).message == "not needed"
    assert bench.name(third) is StateName.UPSTREAM_FAILED
    bench.end(first)
    bench.body_ends()
    settled = bench.settled()
    assert settled is not None
    assert settled.unhandled == (TaskRunKey(third),)


def test_one_that_is_queued_is_not_sent() -> None:
    bench = Bench(window=1)
    blocker = bench.call()
    bench.register(*[bench.made() for _ in range(3)])
    cancel(bench, 2)
    bench.end(blocker)
    bench.end(1)
    bench.end(3)
    assert bench.name(2) is StateName.CANCELLED
    bench.body_ends()
    assert bench.settled() == engine.RunSettled(cancelled=False, unhandled=())


def test_one_that_waits_for_a_retry() -> None:
    bench = Bench()
    node = bench.call(retry=RetryPolicy(retries=1, delays=(9.0,)))
    bench.end(node, Outcome.FAILED)
    cancel(bench, node)
    assert bench.name(node) is StateName.CANCELLED
    assert bench.feed(engine.RetryDue(at=9, run=TaskRunKey(node))) == []


class TestInFlight:
    def test_it_is_asked_to_stop_and_killed_after_the_grace(self) -> None:
        bench = Bench()
        node = bench.call(retry=RetryPolicy(retries=3, crash_retries=3))
        gently = engine.CancelCalls(batch=0, positions=(0,), force=False)
        assert cancel(bench, node) == [gently, engine.SetGraceTimer(due=5.0, batch=0)]
        assert bench.name(node) is StateName.SUBMITTED
        commands = bench.feed(engine.GraceOver(at=5, batch=0))
        assert commands == [engine.CancelCalls(batch=0, positions=(0,), force=True)]
        bench.die(node)
        assert bench.name(node) is StateName.CANCELLED
        assert bench.feed(engine.GraceOver(at=5, batch=0)) == []

    @pytest.mark.parametrize(
        ("outcome", "name"),
        [
            (Outcome.CANCELLED, StateName.CANCELLED),
            (Outcome.COMPLETED, StateName.COMPLETED),
            (Outcome.FAILED, StateName.FAILED),
            (Outcome.OUT_OF_MEMORY, StateName.CANCELLED),
        ],
    )
    def test_it_ends_as_it_ends_and_is_not_tried_again(
        self, outcome: Outcome, name: StateName
    ) -> None:
        bench = Bench()
        node = bench.call(retry=RetryPolicy(retries=3, crash_retries=3))
        cancel(bench, node)
        bench.end(node, outcome)
        assert bench.name(node) is name
        bench.body_ends()
        assert bench.settled() == engine.RunSettled(cancelled=False, unhandled=())

    def test_its_neighbours_run_again_uncharged(self) -> None:
        bench = light()
        bench.register(*[bench.made() for _ in range(4)])
        cancel(bench, 1)
        bench.feed(engine.GraceOver(at=5, batch=0))
        bench.die(0, running=(1,))
        assert bench.name(1) is StateName.CANCELLED
        assert {bench.name(node) for node in (0, 2, 3)} == {StateName.SUBMITTED}
        assert bench.referee.ended[TaskRunKey(0)] == [Outcome.LOST]
        bench.finish(bench.batches()[-1])
        assert bench.name(0) is StateName.RECOVERED
        assert bench.name(2) is StateName.COMPLETED

    @pytest.mark.parametrize("running", [None, (0, 1, 2)])
    def test_even_those_that_ran(self, running: tuple[int, ...] | None) -> None:
        bench = light()
        bench.register(*[bench.made(width=3) for _ in range(3)])
        cancel(bench, 1)
        bench.feed(engine.GraceOver(at=5, batch=0))
        bench.die(0, running=running)
        assert bench.name(1) is StateName.CANCELLED
        assert bench.name(0) is bench.name(2) is StateName.SUBMITTED

    def test_one_that_had_not_begun_is_handed_back(self) -> None:
        bench = light()
        bench.register(*[bench.made() for _ in range(3)])
        batch = bench.batches()[0]
        cancel(bench, 2)
        bench.feed(engine.CallsReturned(at=0, batch=batch.batch, positions=[1, 2]))
        assert bench.name(2) is StateName.CANCELLED
        assert bench.name(1) is StateName.PENDING
        bench.finish(batch, Told(unstarted=(1, 2)))
        assert bench.name(1) is StateName.SUBMITTED

    def test_a_child_run_is_cancelled(self) -> None:
        bench = Bench()
        child = bench.call("child", kind=NodeKind.SUBFLOW)
        told = engine.CancelSubflow(run=TaskRunKey(child), reason="not needed")
        assert told in cancel(bench, child)


class TestMaps:
    def test_one_item(self) -> None:
        bench = Bench(window=1)
        node = bench.call("m", kind=NodeKind.MAP, length=4)
        after = bench.call("n", edge(node, 1, EdgeKind.ITEM), kind=NodeKind.MAP)
        cancel(bench, node, 2)
        assert bench.name(node, 2) is StateName.CANCELLED
        assert bench.name(after, 2) is StateName.UPSTREAM_FAILED
        for item in (0, 1, 3):
            bench.end(node, item=item)
            bench.end(after, item=item)
        assert bench.name(after, 3) is StateName.COMPLETED

    def test_all_of_it(self) -> None:
        bench = Bench(window=2)
        node = bench.call("m", kind=NodeKind.MAP, length=5)
        commands = cancel(bench, node)
        assert [c.batch for c in commands if isinstance(c, engine.CancelCalls)] == [0, 1]
        assert [bench.name(node, item) for item in (2, 3, 4)] == [StateName.CANCELLED] * 3
        for item in (0, 1):
            bench.end(node, Outcome.CANCELLED, item=item)
        bench.body_ends()
        assert bench.settled() == engine.RunSettled(cancelled=False, unhandled=())

    def test_one_that_has_no_items_yet(self) -> None:
        bench = Bench()
        first = bench.call()
        node = bench.call("m", edge(first, 1, EdgeKind.ITEM), kind=NodeKind.MAP)
        cancel(bench, node)
        assert bench.name(node) is StateName.CANCELLED
        bench.end(first, length=3)
        bench.body_ends()
        assert bench.settled() == engine.RunSettled(cancelled=False, unhandled=())

    def test_a_stream_ends(self) -> None:
        bench = Bench(window=1)
        node = bench.call("m", kind=NodeKind.MAP, streamed=True)
        bench.feed(engine.ItemsArrived(at=1, node=node, length=2))
        commands = cancel(bench, node)
        assert engine.MapExpanded(node=node, length=2) in commands
        assert bench.feed(engine.ItemsArrived(at=3, node=node, length=9)) == []
        bench.end(node, Outcome.CANCELLED, item=0)
        bench.body_ends()
        assert bench.settled() is not None

    def test_what_is_final_already_does_not_change(self) -> None:
        bench = Bench()
        node, single = bench.call("m", kind=NodeKind.MAP, length=1), bench.call()
        bench.end(node, item=0)
        bench.end(single)
        assert cancel(bench, node, 0) == cancel(bench, node, 7) == cancel(bench, single) == []
        assert cancel(bench, 99) == []
        assert Chunk(single) in [
            part.chunk
            for command in bench.log
            if isinstance(command, engine.CallsCompleted)
            for part in command.chunks
        ]
