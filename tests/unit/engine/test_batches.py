"""Which calls travel together, when, and in which order."""

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
    Resources,
    RetryPolicy,
    StateName,
    TriggerRule,
)
from tests.unit.engine.harness import Bench, Told, edge, size

_ONCE = RetryPolicy(retries=1)


def bench(seconds: float | None = 1e-5, *, slots: int = 2, **more: float) -> Bench:
    """Make a bench whose tasks `t` take this long, as an earlier run has shown."""
    known = {} if seconds is None else {"t": Learned(seconds, 8)}
    known |= {name: Learned(cost, 8) for name, cost in more.items()}
    return Bench(slots=slots, pace=Pace(known))


def sizes(commands: Sequence[engine.Command]) -> list[int]:
    return [size(command) for command in commands if isinstance(command, engine.SendBatch)]


def batches(commands: Sequence[engine.Command]) -> list[engine.SendBatch]:
    return [command for command in commands if isinstance(command, engine.SendBatch)]


class TestSize:
    def test_light_calls_fill_the_budget(self) -> None:
        b = bench(1e-3, slots=1)
        commands = b.register(*[b.made() for _ in range(1000)])
        assert sizes(commands) == [49, 49]

    def test_at_the_end_the_slots_share_what_is_left(self) -> None:
        b = bench(1e-3)
        commands = b.register(*[b.made() for _ in range(40)])
        assert sizes(commands) == [10, 7, 5, 4]

    def test_tiny_work_is_not_divided(self) -> None:
        b = bench(1e-5)
        assert sizes(b.register(*[b.made() for _ in range(50)])) == [50]

    def test_no_batch_is_larger_than_ten_thousand(self) -> None:
        b = bench(0.0, slots=1)
        b.engine._dispatch._costs._call = 0.0
        commands = b.register(b.made(kind=NodeKind.MAP, length=50_000))
        assert sizes(commands)[0] == 10_000

    def test_long_calls_travel_alone(self) -> None:
        b = bench(0.06)
        assert sizes(b.register(*[b.made() for _ in range(10)])) == [1, 1, 1, 1]

    def test_unknown_calls_are_few_and_leave_no_slot_empty(self) -> None:
        b = bench(None, slots=4)
        assert sizes(b.register(*[b.made() for _ in range(6)])) == [2, 1, 1, 1, 1]
        many = bench(None)
        assert sizes(many.register(*[many.made() for _ in range(100)])) == [4, 4, 4, 4]

    def test_a_task_that_opts_out_travels_alone(self) -> None:
        b = bench(1e-5)
        commands = b.register(*[b.made(batch=False) for _ in range(3)])
        assert sizes(commands) == [1, 1, 1]
        mapped = bench(1e-5)
        node = mapped.made(kind=NodeKind.MAP, length=3, batch=False)
        assert batches(mapped.register(node))[0].chunks == (Chunk(0, 0, 1),)

    def test_different_resources_never_share_a_batch(self) -> None:
        b = bench(1e-5)
        half = Resources(num_cpus=0.5)
        calls = [b.made(resources=half if n % 2 else None) for n in range(10)]
        sent = batches(b.register(*calls))
        assert [(batch.resources, size(batch)) for batch in sent] == [(Resources(), 5), (half, 5)]

    def test_different_tasks_share_a_batch(self) -> None:
        b = bench(1e-5, u=1e-5)
        assert sizes(b.register(b.made("t"), b.made("u"), b.made("t"))) == [3]

    def test_calls_that_overlap_in_a_worker_stay_together(self) -> None:
        b = bench(0.5)
        assert sizes(b.register(*[b.made(width=10) for _ in range(100)])) == [10, 10, 10, 10]
        few = bench(0.5)
        assert sizes(few.register(*[few.made(width=10) for _ in range(6)])) == [3, 2, 1]

    @pytest.mark.parametrize("pace", [0.5, None])
    def test_calls_that_overlap_and_ask_for_nothing_fill_one_worker_first(
        self, pace: float | None
    ) -> None:
        b = Bench(slots=4) if pace is None else bench(pace)
        idle = Resources(num_cpus=0)
        assert sizes(b.register(*[b.made(width=10, resources=idle) for _ in range(25)])) == [
            10,
            10,
            5,
        ]

    def test_large_values_may_become_objects_of_their_own(self) -> None:
        b = Bench(slots=1, pace=Pace({"t": Learned(1e-4, 200 * 1024)}))
        first, _ = batches(b.register(*[b.made() for _ in range(400)]))
        assert first.own_values == 8
        assert batches(bench().register(b.made()._replace(node=0)))[0].own_values == 1


class TestTime:
    def test_a_second_batch_waits_at_the_door_if_it_is_worth_it(self) -> None:
        b = bench(1e-4, slots=1)
        assert len(sizes(b.register(*[b.made() for _ in range(400)]))) == 2
        thin = bench(1e-4, slots=1)
        assert sizes(thin.register(*[thin.made() for _ in range(100)])) == [50]

    def test_light_calls_wait_for_company_while_others_run(self) -> None:
        b = bench()
        assert sizes(b.register(b.made())) == [1]
        assert b.register(b.made()) == [engine.SetSendTimer(due=0.002)]
        b.now = 0.001
        assert b.register(b.made()) == []
        b.now = 0.002
        again = b.feed(engine.SendDue(at=b.now))
        assert again == [engine.SetSendTimer(due=0.003)]
        b.now = 0.003
        assert sizes(b.feed(engine.SendDue(at=b.now))) == [2]

    def test_but_not_for_long(self) -> None:
        b = bench()
        b.register(b.made())
        for step in range(5):
            b.now = 0.001 * step
            assert sizes(b.register(b.made())) == []
        b.now = 0.005
        assert sizes(b.register(b.made())) == [6]

    def test_they_do_not_wait_while_nothing_runs(self) -> None:
        b = bench()
        (first,) = batches(b.register(b.made()))
        b.register(b.made(), b.made())
        assert sizes(b.finish(first, Told(seconds=1e-5))) == [2]

    def test_nor_once_the_body_has_ended(self) -> None:
        b = bench()
        b.register(b.made())
        b.register(b.made())
        assert sizes(b.body_ends()) == [1]

    def test_what_a_result_frees_goes_first(self) -> None:
        b = bench(0.06, slots=1)
        b.register(b.made(), b.made("t", edge(0, 1)), *[b.made() for _ in range(5)])
        assert [batch.chunks for batch in b.batches()] == [(Chunk(0),), (Chunk(2),)]
        (sent,) = batches(b.finish(b.batches()[0], Told(seconds=0.06)))
        assert sent.chunks == (Chunk(1),)


class TestHandedBack:
    def test_calls_that_were_not_started_are_sent_again_as_a_first_attempt(self) -> None:
        b = bench(0.01, slots=1)
        b.register(*[b.made() for _ in range(20)])
        first, second = b.batches()
        assert [size(first), size(second)] == [4, 4]
        commands = b.finish(first, Told(unstarted=(2, 3), seconds=0.01))
        completed, sent = commands
        assert isinstance(completed, engine.CallsCompleted)
        assert [chunk for chunk, _ in completed.chunks] == [Chunk(0), Chunk(1)]
        assert isinstance(sent, engine.SendBatch)
        assert sent.chunks[:2] == (Chunk(2), Chunk(3))

    def test_those_of_a_map_stay_together(self) -> None:
        b = bench(1e-3, slots=1)
        b.call(kind=NodeKind.MAP, length=200)
        first = b.batches()[0]
        assert first.chunks == (Chunk(0, 0, 49),)
        commands = b.finish(first, Told(unstarted=tuple(range(10, 49)), seconds=1e-3))
        assert isinstance(commands[0], engine.CallsCompleted)
        assert commands[0].chunks == (engine.CompletedChunk(Chunk(0, 0, 10), 0),)
        assert batches(commands)[0].chunks[0] == Chunk(0, 10, 49)

    def test_a_batch_may_hand_back_while_it_goes_on(self) -> None:
        b = bench(0.01, slots=1)
        b.register(*[b.made() for _ in range(8)])
        first, second = b.batches()
        returned = engine.CallsReturned(at=0, batch=first.batch, positions=[1])
        assert b.feed(returned) == []
        assert b.name(1) is StateName.PENDING
        (sent,) = batches(b.finish(second, Told(seconds=0.01)))
        assert sent.chunks[0] == Chunk(1)
        b.feed(returned)
        assert b.name(1) is StateName.SUBMITTED
        b.finish(first, Told(unstarted=(1,), seconds=0.01))
        assert b.name(1) is StateName.SUBMITTED

    def test_a_retry_that_was_handed_back_is_pending_again(self) -> None:
        b = bench(1e-5, slots=1)
        node = b.call(retry=_ONCE)
        b.finish(b.batches()[0], Told({0: Outcome.FAILED}))
        assert b.batches()[1].chunks == (Chunk(node, attempt=2),)
        commands = b.finish(b.batches()[1], Told(unstarted=(0,)))
        entered = [c for c in commands if isinstance(c, engine.StateEntered)]
        assert [(c.state.name, c.attempts) for c in entered] == [(StateName.PENDING, 1)]
        assert batches(commands)[0].chunks == (Chunk(node, attempt=2),)


class TestReports:
    def test_a_retry_that_completes_has_its_report(self) -> None:
        b = bench(1e-5, slots=1)
        b.call(retry=_ONCE)
        b.finish(b.batches()[0], Told({0: Outcome.FAILED}))
        commands = b.finish(b.batches()[1])
        ended = commands[0]
        assert isinstance(ended, engine.AttemptEnded)
        assert ended.report is not None
        assert (ended.number, ended.report.ended_at, ended.position) == (2, 0.0, 0)
        assert b.name(0) is StateName.RECOVERED

    def test_failures_split_what_completed(self) -> None:
        b = bench(1e-5)
        b.call(kind=NodeKind.MAP, length=10)
        commands = b.finish(b.batches()[0], Told({4: Outcome.FAILED}))
        assert isinstance(commands[0], engine.CallsCompleted)
        assert commands[0].chunks == (
            engine.CompletedChunk(Chunk(0, 0, 4), 0),
            engine.CompletedChunk(Chunk(0, 5, 10), 5),
        )
        assert b.engine.open_calls == 0

    def test_durations_are_learned_per_task(self) -> None:
        b = bench(None, slots=1)
        b.register(b.made("a"), b.made("b"))
        b.finish(b.batches()[0], Told(times=((1.0, 3.0), (3.0, 3.5))))
        assert b.engine.pace.seconds("a") == 2.0
        assert b.engine.pace.seconds("b") == 0.5

    def test_what_overlapped_tells_nothing_of_the_time_between_calls(self) -> None:
        b = bench(None, slots=1)
        b.register(b.made("a"), b.made("a"))
        costs = b.engine._dispatch._costs
        before = costs._call
        b.finish(b.batches()[0], Told(times=((1.0, 2.0), (1.0, 2.0))))
        assert costs._call == before

    def test_the_time_between_calls_is_learned(self) -> None:
        b = bench(1e-3, slots=1)
        b.register(b.made(), b.made())
        b.finish(b.batches()[0], Told(times=((1.0, 1.001), (1.0014, 1.0024))))
        assert b.engine._dispatch._costs._call == pytest.approx(0.9 * 1e-5 + 0.1 * 2e-4)

    def test_what_was_not_started_teaches_nothing(self) -> None:
        b = bench(None, slots=1)
        b.register(b.made("a"), b.made("a"), b.made("b"))
        told = Told(unstarted=(1, 2), times=((1.0, 3.0), (0.0, 0.0), (0.0, 0.0)))
        b.finish(b.batches()[0], told)
        assert b.engine.pace.seconds("a") == 2.0
        assert b.engine.pace.seconds("b") is None


class TestFusion:
    def chain(self, b: Bench, length: int) -> None:
        links = [[edge(n - 1, n)] if n else [] for n in range(length)]
        b.register(*[b.made("t", *link) for link in links])

    def test_a_chain_travels_in_one_batch(self) -> None:
        b = bench(1e-6)
        self.chain(b, 1000)
        (sent,) = b.batches()
        assert sent.chunks == tuple(Chunk(n) for n in range(1000))
        assert b.name(999) is StateName.SUBMITTED

    def test_of_an_unknown_task_two_calls_may_follow(self) -> None:
        b = bench(None)
        self.chain(b, 1000)
        assert sizes(b.log) == [3]
        b.finish(b.batches()[0], Told(seconds=1e-6))
        assert sizes(b.log) == [3, 997]

    def test_large_values_are_not_kept_together(self) -> None:
        b = Bench(slots=2, pace=Pace({"t": Learned(1e-6, 200 * 1024)}))
        self.chain(b, 10)
        assert sizes(b.log) == [1]

    def test_a_follower_waits_again_if_its_source_did_not_complete(self) -> None:
        b = bench(1e-6)
        self.chain(b, 3)
        b.finish(b.batches()[0], Told({1: Outcome.FAILED}, unstarted=(2,)))
        assert b.name(2) is StateName.UPSTREAM_FAILED

    def test_a_follower_handed_back_early_waits_for_its_source(self) -> None:
        b = bench(1e-6)
        self.chain(b, 3)
        (sent,) = b.batches()
        b.feed(engine.CallsReturned(at=0, batch=sent.batch, positions=[1, 2]))
        assert b.name(1) is b.name(2) is StateName.PENDING
        b.finish(sent, Told(unstarted=(1, 2), seconds=1e-5))
        assert b.batches()[1].chunks == (Chunk(1), Chunk(2))

    def test_what_needs_two_of_a_batch_follows_both(self) -> None:
        b = bench(1e-6)
        b.register(b.made(), b.made(), b.made("t", edge(0, 2), edge(1, 2, EdgeKind.ORDER)))
        assert b.batches()[0].chunks == (Chunk(0), Chunk(1), Chunk(2))

    @pytest.mark.parametrize(
        "follower",
        [
            {"edges": [edge(0, 1, EdgeKind.CONDITION)]},
            {"edges": [edge(0, 1)], "rule": TriggerRule.ALL_DONE},
            {"edges": [edge(0, 1)], "batch": False},
            {"edges": [edge(0, 1)], "resources": Resources(num_cpus=2)},
            {"edges": [edge(0, 1)], "kind": NodeKind.SUBFLOW},
            {"edges": [edge(0, 1)], "kind": NodeKind.MAP, "length": 2},
            {"edges": [edge(0, 1)], "runnable": False},
        ],
    )
    def test_what_does_not_follow(self, follower: dict[str, object]) -> None:
        b = bench(1e-6)
        edges = follower.pop("edges")
        assert isinstance(edges, list)
        b.register(b.made(), b.made("t", *edges, **follower))  # type: ignore[arg-type]
        assert b.batches()[0].chunks == (Chunk(0),)

    def test_none_follows_before_what_it_waits_for_is_reported_if_so_wanted(self) -> None:
        b = Bench(slots=2, pace=Pace({"t": Learned(1e-6, 8)}), fuses=False)
        self.chain(b, 3)
        assert [sent.chunks for sent in b.batches()] == [(Chunk(0),)]
        b.finish(b.batches()[0])
        assert [sent.chunks for sent in b.batches()] == [(Chunk(0),), (Chunk(1),)]

    def test_long_followers_are_left_for_idle_workers(self) -> None:
        b = bench(1e-5, slow=0.02)
        b.register(b.made(), *[b.made("slow", edge(0, n)) for n in (1, 2, 3)])
        assert b.batches()[0].chunks == (Chunk(0),)

    def test_one_light_follower_is_taken_along_while_workers_idle(self) -> None:
        b = bench(1e-5)
        b.register(b.made(), *[b.made("t", edge(0, n)) for n in (1, 2, 3)])
        assert b.batches()[0].chunks == (Chunk(0), Chunk(1))

    def test_heads_of_chains_are_divided_among_idle_workers(self) -> None:
        b = bench(1e-4, start=0.06)
        links = [edge(max(n - 2, 0), n) for n in range(1, 41)]
        b.register(b.made("start"), *[b.made("t", link) for link in links])
        b.finish(b.batches()[0])
        assert sizes(b.log) == [1, 20, 20]
        assert {chunk.node % 2 for chunk in b.batches()[1].chunks} == {1}

    def test_heads_with_a_common_follower_stay_together(self) -> None:
        b = bench(1e-4)
        b.register(b.made(), b.made(), b.made("t", edge(0, 2), edge(1, 2)))
        assert sizes(b.log) == [3]

    def test_a_follower_is_not_charged_for_its_source(self) -> None:
        b = bench(1e-6)
        self.chain(b, 3)
        (sent,) = b.batches()
        died = engine.BatchDied(
            at=0, batch=sent.batch, outcome=Outcome.CRASHED, message="x", running=[0]
        )
        b.feed(died)
        assert b.name(0) is StateName.CRASHED
        assert b.name(1) is b.name(2) is StateName.UPSTREAM_FAILED
