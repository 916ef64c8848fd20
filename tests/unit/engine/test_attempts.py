"""Attempts out of the ordinary: at most once, and with more memory."""

from __future__ import annotations

import pytest

from raflow import engine
from raflow.engine import Learned, Pace
from raflow.model import (
    Cause,
    NodeKind,
    Outcome,
    Resources,
    RetryPolicy,
    StateName,
    TaskRunKey,
)
from tests.unit.engine.harness import Bench, Told, calls_of, size

GIB = 2**30
MANY = RetryPolicy(retries=5, crash_retries=5)


class TestAtMostOnce:
    def test_it_travels_alone_and_is_recorded_first(self) -> None:
        bench = Bench(slots=1, pace=Pace({"t": Learned(1e-5, 8)}))
        bench.register(bench.made(at_most_once=True), bench.made(at_most_once=True), bench.made())
        told = {batch.record_first: size(batch) for batch in bench.batches()}
        assert told == {True: 1, False: 1}

    @pytest.mark.parametrize(
        ("outcome", "name"),
        [
            (Outcome.FAILED, StateName.FAILED),
            (Outcome.TIMED_OUT, StateName.TIMED_OUT),
            (Outcome.OUT_OF_MEMORY, StateName.OUT_OF_MEMORY),
        ],
    )
    def test_it_is_not_tried_again(self, outcome: Outcome, name: StateName) -> None:
        bench = Bench()
        node = bench.call(at_most_once=True, retry=MANY)
        bench.end(node, outcome)
        assert bench.name(node) is name

    @pytest.mark.parametrize("running", [None, (0,)])
    @pytest.mark.parametrize("outcome", [Outcome.LOST, Outcome.CRASHED])
    def test_nor_if_it_may_have_run_when_its_process_died(
        self, running: tuple[int, ...] | None, outcome: Outcome
    ) -> None:
        bench = Bench()
        node = bench.call(at_most_once=True, retry=MANY)
        bench.die(node, outcome, running=running)
        assert bench.name(node).value == outcome.value.title()

    def test_one_that_had_not_begun_is_sent_again(self) -> None:
        bench = Bench()
        node = bench.call(at_most_once=True)
        bench.die(node, running=())
        assert bench.name(node) is StateName.SUBMITTED
        bench.finish(bench.sent[TaskRunKey(node)], Told(unstarted=(0,)))
        bench.end(node)
        assert bench.name(node) is StateName.COMPLETED

    def test_items_too(self) -> None:
        bench = Bench()
        node = bench.call("m", kind=NodeKind.MAP, length=2, at_most_once=True, retry=MANY)
        bench.die(node, item=0)
        assert bench.name(node, 0) is StateName.CRASHED
        assert bench.name(node, 1) is StateName.SUBMITTED


class TestMemory:
    def run_out(self, bench: Bench, node: int, peak: int = 0) -> int:
        """Let a call run out of memory; return what it asks for then."""
        told = Told({0: Outcome.OUT_OF_MEMORY}, peak_memory=peak)
        bench.finish(bench.sent[TaskRunKey(node)], told)
        return bench.sent[TaskRunKey(node)].resources.memory

    def test_a_retry_asks_for_more_each_time(self) -> None:
        bench = Bench()
        hint = Resources(memory=GIB)
        node = bench.call(resources=hint, memory_growth=2.0, retry=MANY)
        assert self.run_out(bench, node) == 2 * GIB
        assert self.run_out(bench, node) == 4 * GIB
        bench.end(node)
        assert bench.name(node) is StateName.RECOVERED
        ended = [c for c in bench.log if isinstance(c, engine.AttemptEnded)]
        assert [attempt.memory for attempt in ended] == [0, 2 * GIB, 4 * GIB]

    def test_without_a_hint_what_was_measured_counts(self) -> None:
        bench = Bench()
        node = bench.call(memory_growth=1.5, retry=MANY)
        assert self.run_out(bench, node, peak=2 * GIB) == 3 * GIB

    def test_so_does_what_the_death_of_its_process_has_told(self) -> None:
        bench = Bench()
        node = bench.call(memory_growth=2.0, retry=MANY)
        cause = Cause(kind="out of memory", peak_memory=GIB)
        commands = bench.feed(
            engine.BatchDied(
                at=0, batch=0, outcome=Outcome.OUT_OF_MEMORY, message="killed", cause=cause
            )
        )
        assert isinstance(commands[0], engine.AttemptEnded)
        assert commands[0].cause == cause
        assert bench.sent[TaskRunKey(node)].resources.memory == 2 * GIB

    def test_no_more_than_some_node_has(self) -> None:
        bench = Bench()
        bench.engine = engine.Engine(
            window=9, slots=lambda resources: int(5 * GIB // max(1, resources.memory))
        )
        node = bench.call(resources=Resources(memory=4 * GIB), memory_growth=2.0, retry=MANY)
        asked = self.run_out(bench, node)
        assert 5 * GIB - 2**20 <= asked <= 5 * GIB
        assert self.run_out(bench, node) == pytest.approx(5 * GIB, abs=2**20)

    def test_if_nothing_is_known_it_asks_for_the_same(self) -> None:
        bench = Bench()
        node = bench.call(memory_growth=2.0, retry=MANY)
        assert self.run_out(bench, node) == 0

    def test_other_failures_do_not_count(self) -> None:
        bench = Bench()
        node = bench.call(resources=Resources(memory=GIB), memory_growth=2.0, retry=MANY)
        bench.die(node)
        assert bench.sent[TaskRunKey(node)].resources.memory == GIB

    def test_neighbours_are_not_concerned(self) -> None:
        bench = Bench(slots=1, pace=Pace({"t": Learned(1e-5, 8)}))
        hint = Resources(memory=GIB)
        node = bench.made(
            kind=NodeKind.MAP, length=3, resources=hint, memory_growth=2.0, retry=MANY
        )
        bench.register(node)
        bench.finish(bench.batches()[0], Told({1: Outcome.OUT_OF_MEMORY}, unstarted=(2,)))
        later = {b.resources.memory: calls_of(b) for b in bench.batches()[1:]}
        assert later == {GIB: [(TaskRunKey(0, 2), 1)], 2 * GIB: [(TaskRunKey(0, 1), 2)]}
