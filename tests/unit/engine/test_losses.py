"""A batch that ends without a report: who is charged, and what becomes of the others."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from raflow import engine
from raflow.engine import Learned, Pace
from raflow.engine._losses import blame
from raflow.model import Chunk, NodeKind, Outcome, RetryPolicy, StateName, TaskRunKey
from tests.unit.engine.harness import Bench, Told, calls_of, edge, size


def bench(slots: int = 1) -> Bench:
    """Make a bench whose calls are known to be light."""
    return Bench(slots=slots, pace=Pace({"t": Learned(1e-5, 8)}))


def ended(commands: Sequence[engine.Command]) -> list[tuple[int, int, Outcome]]:
    found = [command for command in commands if isinstance(command, engine.AttemptEnded)]
    return [(command.run.node, command.number, command.outcome) for command in found]


@pytest.mark.parametrize(
    ("running", "charged", "begun", "untouched"),
    [
        ((1,), [1], [0], [2, 3]),
        ((0,), [0], [], [1, 2, 3]),
        ((1, 3), [1, 3], [0, 2], []),
        ((), [], [], [0, 1, 2, 3]),
        (None, [], [0, 1, 2, 3], []),
    ],
)
def test_blame(
    running: tuple[int, ...] | None, charged: list[int], begun: list[int], untouched: list[int]
) -> None:
    parts = blame([0, 1, 2, 3], running)
    assert [list(part) for part in parts] == [charged, begun, untouched]


def test_one_alone_is_to_blame() -> None:
    assert blame([7], None).charged == [7]


def test_the_call_that_ran_is_charged_and_the_others_run_again() -> None:
    b = bench()
    b.register(*[b.made() for _ in range(4)])
    commands = b.die(0, running=(1,))
    assert ended(commands) == [(0, 1, Outcome.LOST), (1, 1, Outcome.CRASHED)]
    assert b.name(1) is StateName.CRASHED
    again = b.batches()[1]
    assert calls_of(again) == [
        (TaskRunKey(0), 2),
        (TaskRunKey(2), 1),
        (TaskRunKey(3), 1),
    ]
    commands = b.finish(again)
    assert isinstance(commands[0], engine.CallsCompleted)
    assert [chunk.chunk for chunk in commands[0].chunks] == [Chunk(2), Chunk(3)]
    assert b.name(0) is StateName.RECOVERED
    assert b.name(2) is StateName.COMPLETED


def test_the_budget_of_the_innocent_is_not_touched() -> None:
    b = bench()
    first = b.made(retry=RetryPolicy(crash_retries=1))
    b.register(first, b.made())
    b.die(0, running=(1,))
    b.die(0, running=(0,))
    assert b.name(0) is StateName.SUBMITTED
    b.die(0, running=(0,))
    assert b.name(0) is StateName.CRASHED
    assert b.referee.ended[TaskRunKey(0)] == [Outcome.LOST, Outcome.CRASHED, Outcome.CRASHED]


def test_what_has_been_handed_back_is_not_concerned() -> None:
    b = bench()
    b.register(*[b.made() for _ in range(3)])
    first = b.batches()[0]
    b.feed(engine.CallsReturned(at=0, batch=first.batch, positions=[2]))
    commands = b.die(0, running=(0,))
    assert ended(commands) == [(0, 1, Outcome.CRASHED)]
    assert calls_of(b.batches()[1]) == [(TaskRunKey(2), 1), (TaskRunKey(1), 1)]


def test_items_before_and_after_the_killer_run_again() -> None:
    b = bench()
    b.call(kind=NodeKind.MAP, length=6)
    b.die(0, item=0, running=(2,))
    assert b.name(0, 2) is StateName.CRASHED
    again = b.batches()[1]
    assert again.chunks == (Chunk(0, 0, 1, 2), Chunk(0, 1, 2, 2), Chunk(0, 3, 6))
    b.finish(again)
    assert [b.name(0, item) for item in (0, 1, 3)] == [
        StateName.RECOVERED,
        StateName.RECOVERED,
        StateName.COMPLETED,
    ]


@pytest.mark.parametrize("killer", [0, 5, 12, 30])
def test_an_unknown_killer_is_found_by_halves(killer: int) -> None:
    b = bench()
    b.register(*[b.made() for _ in range(31)])
    deaths = 0
    for _ in range(60):
        out = [b.referee.out[batch] for batch in sorted(b.referee.out)]
        if not out:
            break
        if (TaskRunKey(killer), deaths + 1) in calls_of(out[0]):
            deaths += 1
            b.feed(
                engine.BatchDied(
                    at=0, batch=out[0].batch, outcome=Outcome.CRASHED, message="killed"
                )
            )
        else:
            b.finish(out[0], Told(seconds=1e-5))
    assert deaths <= 6
    assert b.name(killer) is StateName.CRASHED
    others = {b.name(node) for node in range(31) if node != killer}
    assert others <= {StateName.RECOVERED, StateName.COMPLETED}


def test_nothing_is_lost_for_ever() -> None:
    b = bench()
    b.register(b.made(), b.made())
    for _ in range(5):
        b.feed(
            engine.BatchDied(
                at=0,
                batch=max(b.referee.out),
                outcome=Outcome.LOST,
                message="the node is gone",
                running=(),
            )
        )
    # None of them ever began; yet from now on each travels alone, and is charged.
    alone = list(b.referee.out.values())
    assert [size(batch) for batch in alone] == [1, 1]
    for batch in alone:
        died = engine.BatchDied(
            at=0, batch=batch.batch, outcome=Outcome.LOST, message="gone", running=()
        )
        b.feed(died)
    assert b.name(0) is b.name(1) is StateName.LOST


def test_a_follower_is_not_sent_before_its_source_has_run_again() -> None:
    b = bench()
    retry = RetryPolicy(crash_retries=1)
    b.register(b.made(), b.made("t", edge(0, 1), retry=retry), b.made("t", edge(1, 2)))
    commands = b.die(0, running=(1,))
    assert ended(commands) == [(0, 1, Outcome.LOST), (1, 1, Outcome.CRASHED)]
    again = b.batches()[1]
    assert calls_of(again) == [(TaskRunKey(0), 2), (TaskRunKey(1), 2), (TaskRunKey(2), 1)]


def test_a_retry_with_delay_waits_for_its_source_too() -> None:
    b = bench(slots=4)
    retry = RetryPolicy(crash_retries=1, delays=(3.0,))
    b.register(b.made(retry=retry), b.made("t", edge(0, 1), retry=retry))
    b.die(0, running=(0, 1))
    b.feed(engine.RetryDue(at=3, run=TaskRunKey(1)))
    assert b.name(1) is StateName.PENDING
    b.feed(engine.RetryDue(at=3, run=TaskRunKey(0)))
    assert calls_of(b.batches()[1]) == [(TaskRunKey(0), 2), (TaskRunKey(1), 2)]


def test_during_a_stop_all_end_cancelled() -> None:
    b = bench()
    b.register(*[b.made(retry=RetryPolicy(crash_retries=5)) for _ in range(3)])
    b.feed(engine.CancelAsked(at=0, reason="enough"))
    commands = b.die(0, running=(1,))
    assert ended(commands) == [(0, 1, Outcome.CANCELLED), (1, 1, Outcome.CANCELLED)]
    assert {b.name(node) for node in range(3)} == {StateName.CANCELLED}


def test_what_is_handed_back_during_a_stop_ends_cancelled() -> None:
    b = bench()
    b.call(kind=NodeKind.MAP, length=3)
    b.feed(engine.CancelAsked(at=0, reason="enough"))
    commands = b.finish(b.batches()[0], Told({0: Outcome.CANCELLED}, unstarted=(1, 2)))
    assert ended(commands) == [(0, 1, Outcome.CANCELLED)]
    entered = [c for c in commands if isinstance(c, engine.StateEntered)]
    assert [(c.run.map_index, c.attempts) for c in entered] == [(0, 1), (1, 0), (2, 0)]


def test_the_death_of_an_unknown_batch_changes_nothing() -> None:
    b = bench()
    b.call()
    assert b.feed(engine.BatchDied(at=0, batch=9, outcome=Outcome.LOST, message="x")) == []
