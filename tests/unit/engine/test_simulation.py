from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raflow.model import NodeKind, Outcome, StateType
from tests.unit.engine.simulation import Simulation, random_flow, types_of


def check_outcome(simulation: Simulation) -> None:
    referee = simulation.referee
    referee.check_end()
    assert simulation.core.open_calls == simulation.core.in_flight == 0
    for key, outcomes in referee.ended.items():
        policy = referee.calls[key.node].options.retry
        counts = Counter(outcomes)
        times = 1 + referee.reopened.count(key)
        assert counts[Outcome.FAILED] <= times * (policy.retries + 1)
        assert counts[Outcome.CRASHED] <= times * (policy.crash_retries + 1)


def test_ten_thousand_task_runs_with_failures() -> None:
    simulation = Simulation(seed=7, crash_rate=0.01)
    simulation.run(random_flow(7, 10_000), drop=True)
    check_outcome(simulation)
    types = types_of(simulation)
    assert sum(types.values()) >= 10_000
    assert set(types) >= {StateType.COMPLETED, StateType.FAILED, StateType.SKIPPED}


@pytest.mark.parametrize("seed", range(12))
def test_invariants_hold_after_every_event(seed: int) -> None:
    simulation = Simulation(seed=seed, window=1 + seed, slots=1 + seed % 4, checked=True)
    simulation.run(random_flow(seed, 200), drop=True)
    check_outcome(simulation)


@pytest.mark.parametrize("seed", range(16))
def test_invariants_hold_for_durable_runs(seed: int) -> None:
    simulation = Simulation(
        seed=seed,
        window=1 + seed,
        slots=1 + seed % 4,
        loss_rate=0.05,
        steering_rate=0.02,
        checked=True,
    )
    simulation.run(random_flow(seed, 200, special=0.3, answered=0.3), drop=True)
    check_outcome(simulation)
    assert not simulation.held_slots
    assert simulation.most_slots <= 2


def test_a_large_run_that_is_resumed_computes_only_what_is_needed() -> None:
    simulation = Simulation(seed=3, crash_rate=0.01, loss_rate=0.01)
    flow = random_flow(3, 10_000, special=0.1, answered=0.7)
    simulation.run(flow, drop=True)
    check_outcome(simulation)
    answered = {call.node for call in flow if call.answers and call.kind is not NodeKind.MAP}
    again = [run for run in simulation.referee.reopened if run.node in answered]
    assert 0 < len(again) < len(answered) / 2


@given(seed=st.integers(0, 2**32), window=st.integers(1, 40))
@settings(max_examples=15, deadline=None)
def test_the_same_seed_gives_the_same_story(seed: int, window: int) -> None:
    stories = []
    for _ in range(2):
        simulation = Simulation(seed=seed, window=window)
        simulation.run(random_flow(seed, 60), drop=True)
        check_outcome(simulation)
        stories.append(simulation.story)
    assert stories[0] == stories[1]
