"""Teardowns run whatever happened, as long as there is something to tear down."""

from __future__ import annotations

import pytest

from raflow import engine
from raflow.model import (
    Edge,
    EdgeKind,
    NodeKind,
    Outcome,
    RetryPolicy,
    StateName,
    TaskRunKey,
)
from tests.unit.engine.harness import Bench, edge


def after(*sources: int, target: int) -> list[Edge]:
    return [edge(source, target, EdgeKind.ORDER) for source in sources]


def cluster(bench: Bench, **more: object) -> tuple[int, int, int]:
    """Make a setup, work that needs it, and its teardown."""
    setup = bench.call("up")
    work = bench.call("work", edge(setup, 1))
    teardown = bench.call(
        "down",
        *after(setup, work, target=2),
        teardown=True,
        teardown_of=(setup,),
        **more,
    )
    return setup, work, teardown


def unhandled(bench: Bench) -> tuple[TaskRunKey, ...]:
    bench.body_ends()
    settled = bench.settled()
    assert settled is not None
    return settled.unhandled


@pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.FAILED, Outcome.SKIPPED])
def test_it_runs_after_the_work_however_that_ended(outcome: Outcome) -> None:
    bench = Bench()
    setup, work, teardown = cluster(bench)
    bench.end(setup)
    assert bench.name(teardown) is StateName.PENDING
    bench.end(work, outcome)
    assert bench.name(teardown) is StateName.SUBMITTED
    bench.end(teardown)
    failed = outcome is Outcome.FAILED
    assert unhandled(bench) == ((TaskRunKey(work),) if failed else ())


def test_without_a_setup_that_succeeded_there_is_nothing_to_tear_down() -> None:
    bench = Bench()
    setup, _, teardown = cluster(bench)
    bench.end(setup, Outcome.FAILED)
    assert bench.state(teardown).name is StateName.UPSTREAM_FAILED
    assert bench.state(teardown).message == "up-0 did not complete"
    assert unhandled(bench) == (TaskRunKey(0), TaskRunKey(1))


def test_a_setup_that_was_skipped_skips_it() -> None:
    bench = Bench()
    setup, _, teardown = cluster(bench)
    bench.end(setup, Outcome.SKIPPED)
    assert bench.name(teardown) is StateName.SKIPPED


@pytest.mark.parametrize("counts", [False, True])
def test_its_failure_fails_the_run_only_if_declared(counts: bool) -> None:
    bench = Bench()
    setup, work, teardown = cluster(bench, teardown_counts=counts)
    bench.end(setup)
    bench.end(work)
    bench.end(teardown, Outcome.FAILED)
    assert unhandled(bench) == ((TaskRunKey(teardown),) if counts else ())


def test_it_runs_after_a_cancel() -> None:
    bench = Bench()
    setup, work, teardown = cluster(bench, retry=RetryPolicy(retries=1, crash_retries=1))
    bench.end(setup)
    bench.feed(engine.CancelAsked(at=0, reason="enough"))
    bench.end(work, Outcome.CANCELLED)
    assert bench.name(teardown) is StateName.SUBMITTED
    assert bench.feed(engine.GraceOver(at=5)) == []
    bench.end(teardown, Outcome.FAILED)
    bench.die(teardown)
    bench.end(teardown)
    assert bench.name(teardown) is StateName.RECOVERED
    bench.body_ends()
    settled = bench.settled()
    assert settled is not None
    assert settled.cancelled


def test_it_is_not_disturbed_by_a_cancel_when_it_runs() -> None:
    bench = Bench()
    setup, work, teardown = cluster(bench)
    bench.end(setup)
    bench.end(work)
    assert bench.feed(engine.CancelAsked(at=0, reason="enough")) == []
    bench.die(teardown)
    assert bench.name(teardown) is StateName.CRASHED


def test_it_runs_after_the_body_has_raised() -> None:
    bench = Bench(window=1)
    setup, work, teardown = cluster(bench)
    bench.end(setup)
    bench.body_ends(raised=True)
    assert bench.settled() is None
    bench.end(work, Outcome.CANCELLED)
    bench.end(teardown)
    assert bench.name(teardown) is StateName.COMPLETED
    assert bench.settled() is not None


def test_one_that_is_called_after_a_cancel_runs_too() -> None:
    bench = Bench()
    setup = bench.call("up")
    bench.end(setup)
    bench.feed(engine.CancelAsked(at=0, reason="enough"))
    link = after(setup, target=1)
    teardown = bench.call("down", *link, teardown=True, teardown_of=(setup,))
    assert bench.name(teardown) is StateName.SUBMITTED
    alone = bench.call("down", teardown=True)
    assert bench.name(alone) is StateName.SUBMITTED


def test_one_that_is_queued_at_a_cancel_stays_queued() -> None:
    bench = Bench(window=1)
    blocker = bench.call()
    teardown = bench.call("down", teardown=True)
    bench.feed(engine.CancelAsked(at=0, reason="enough"))
    assert bench.name(teardown) is StateName.PENDING
    bench.end(blocker, Outcome.CANCELLED)
    assert bench.name(teardown) is StateName.SUBMITTED


def test_a_second_cancel_spares_nothing() -> None:
    bench = Bench()
    setup, work, teardown = cluster(bench)
    running = bench.call("down", teardown=True)
    bench.end(setup)
    for reason in ("enough", "now"):
        commands = bench.feed(engine.CancelAsked(at=0, reason=reason))
    assert bench.name(teardown) is StateName.CANCELLED
    batches = {bench.sent[TaskRunKey(node)].batch for node in (work, running)}
    assert {c.batch for c in commands if isinstance(c, engine.CancelBatch) and c.force} == batches
    bench.die(running)
    assert bench.name(running) is StateName.CANCELLED
    late = bench.call("down", teardown=True)
    assert bench.name(late) is StateName.CANCELLED


def test_a_mapped_one_runs_after_a_cancel() -> None:
    bench = Bench()
    setup = bench.call("up", kind=NodeKind.MAP, length=2)
    down = bench.call(
        "down",
        edge(setup, 1, EdgeKind.ITEM),
        kind=NodeKind.MAP,
        teardown=True,
        teardown_of=(setup,),
    )
    bench.end(setup, item=0)
    bench.feed(engine.CancelAsked(at=0, reason="enough"))
    bench.end(setup, Outcome.CANCELLED, item=1)
    assert bench.name(down, 0) is StateName.SUBMITTED
    bench.end(down, item=0)
    bench.body_ends()
    assert bench.settled() is not None


def test_it_can_be_cancelled_by_the_body() -> None:
    bench = Bench()
    _, _, teardown = cluster(bench)
    bench.feed(engine.CallCancelAsked(at=0, node=teardown, item=None, reason="no"))
    assert bench.name(teardown) is StateName.CANCELLED


def test_it_waits_for_the_end_of_a_pause_but_not_after_a_cancel() -> None:
    bench = Bench()
    bench.feed(engine.PauseAsked(at=0, reason="night"))
    teardown = bench.call("down", teardown=True)
    assert bench.name(teardown) is StateName.PENDING
    bench.feed(engine.CancelAsked(at=0, reason="enough"))
    assert bench.name(teardown) is StateName.SUBMITTED
