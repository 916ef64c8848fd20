"""How well simulated workers are used: with random durations, on a virtual clock."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from raflow import engine
from raflow.model import Edge, NodeKind, TaskOptions, TaskRunKey
from tests.unit.engine.simulation import EXACT, Simulation

BUDGET = 0.05
OPTIONS = TaskOptions()


def play(
    seconds: Sequence[float],
    links: Sequence[Sequence[int]] = (),
    *,
    slots: int = 2,
    known: bool = False,
    every: float = 0.0,
    body_ends: bool = True,
) -> tuple[float, Simulation]:
    """Run single calls that take this long, made one `every` so many seconds."""
    simulation = Simulation(
        seed=1,
        slots=slots,
        budget=BUDGET,
        failure_rate=0,
        crash_rate=0,
        latency=0.0005,
        seconds=lambda key, _: seconds[key.node],
        watched=False,
    )
    if known:
        simulation.core.pace.learn("t", sum(seconds) / len(seconds), 8)
    calls = [
        engine.CallMade(
            at=0.0,
            node=node,
            kind=NodeKind.TASK,
            name="t",
            key=f"t-{node}",
            options=OPTIONS,
            edges=tuple(Edge(source=n, target=node) for n in links[node]) if links else (),
        )
        for node in range(len(seconds))
    ]
    begin = at = simulation.now
    step = 50 if every else len(calls)
    simulation.calls = calls
    for start in range(0, len(calls), step):
        simulation.register(at, calls[start : start + step])
        at += every * step
    if body_ends:
        simulation.at(at, lambda now: engine.BodyEnded(at=now))
    simulation.play()
    assert simulation.core.open_calls == 0
    return simulation.now - begin, simulation


def log_normal(count: int, median: float, spread: float) -> list[float]:
    rng = random.Random(5)
    return [min(2.0, max(1e-4, median * rng.lognormvariate(0, spread))) for _ in range(count)]


@pytest.mark.parametrize("slots", [2, 4])
@pytest.mark.parametrize(("median", "spread"), [(0.02, 1.3), (0.007, 1.5), (0.0025, 2.0)])
def test_a_log_normal_mix_takes_hardly_longer_than_it_must(
    slots: int, median: float, spread: float
) -> None:
    seconds = log_normal(5000, median, spread)
    taken, _ = play(seconds, slots=slots)
    assert taken <= 1.1 * max(sum(seconds) / slots, *seconds)


@pytest.mark.parametrize(("count", "each"), [(600, 0.01), (60, 0.1), (10, 1.0)])
def test_equal_calls_keep_the_workers_busy(count: int, each: float) -> None:
    taken, _ = play([each] * count)
    assert count * each / 2 / taken >= 0.95


@pytest.mark.parametrize("seed", range(5))
def test_a_long_call_delays_others_by_one_budget_at_most(seed: int) -> None:
    """Whatever stands behind a long call in its batch is free again after one budget.

    So the short calls, none of which takes longer than `short`, are done once the slots without a
    long call have shared their work, plus, for each batch with a long call in it, at most one
    budget, one short call, and the way of the messages. (What stands before a long call has run
    by then, though its batch tells of it only at its end.)
    """
    rng = random.Random(seed)
    short, long, slots = 0.004, 10.0, 4
    seconds = [rng.random() * short for _ in range(2000)]
    longs = rng.sample(range(2000), 2)
    for node in longs:
        seconds[node] = long
    _, simulation = play(seconds, slots=slots)
    assert max(simulation.held) <= BUDGET + EXACT
    done = [simulation.ran[TaskRunKey(node)] for node in range(2000) if node not in longs]
    work = sum(seconds) - long * len(longs)
    bound = work / (slots - len(longs)) + len(longs) * (BUDGET + short + 0.002)
    assert max(done) - 1000.0 <= bound


def test_empty_calls_travel_by_the_thousand() -> None:
    _, simulation = play([1e-6] * 20_000)
    assert simulation.batches <= 25


def test_a_loop_of_light_calls_yields_batches_of_hundreds() -> None:
    _, simulation = play([1e-6] * 20_000, every=18e-6)
    assert 20_000 / simulation.batches >= 100


def test_a_call_beside_a_long_one_is_not_held_up() -> None:
    _, simulation = play([1.0, 1e-5, 1e-5], every=0.01, known=True, body_ends=False)
    assert simulation.ran[TaskRunKey(2)] - 1000.0 < 0.01


def chain(length: int) -> list[list[int]]:
    return [[node - 1] if node else [] for node in range(length)]


def test_a_chain_of_empty_calls_is_two_batches() -> None:
    taken, simulation = play([1e-6] * 1000, chain(1000))
    assert simulation.batches == 2
    assert taken < 0.02


@pytest.mark.parametrize("each", [1e-4, 1e-3])
def test_chains_run_side_by_side(each: float) -> None:
    links = [[node - 2] if node > 1 else [] for node in range(400)]
    taken, _ = play([each] * 400, links)
    assert taken <= 1.25 * 200 * each


@pytest.mark.parametrize("each", [5e-4, 1e-3])
def test_a_tree_keeps_the_workers_busy(each: float) -> None:
    links = [[(node - 1) // 2] if node else [] for node in range(1023)]
    taken, _ = play([each] * 1023, links)
    assert 1023 * each / 2 / taken >= 0.9


def stencil(width: int, steps: int) -> list[list[int]]:
    return [
        [(step - 1) * width + n for n in (c - 1, c, c + 1) if 0 <= n < width] if step else []
        for step in range(steps)
        for c in range(width)
    ]


@pytest.mark.parametrize("each", [5e-4, 1e-3])
def test_a_stencil_of_half_a_millisecond_keeps_half_the_workers_busy(each: float) -> None:
    taken, _ = play([each] * 400, stencil(8, 50))
    assert 400 * each / 2 / taken >= 0.5
