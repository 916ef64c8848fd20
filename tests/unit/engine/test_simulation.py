from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raflow import engine
from raflow.model import (
    Edge,
    EdgeKind,
    NodeKind,
    RetryPolicy,
    StateName,
    StateType,
    TaskOptions,
    TriggerRule,
)
from tests.unit.engine.harness import Simulation, final_types


def random_flow(seed: int, task_runs: int) -> Iterator[engine.CallRegistered]:
    """Make calls of all kinds that depend on earlier ones at random."""
    rng = random.Random(seed)
    lengths: list[int | None] = []
    made = 0
    while made < task_runs:
        node = len(lengths)
        edges = []
        for source in {rng.randrange(node) for _ in range(rng.randrange(4))} if node else ():
            kind = rng.choice([EdgeKind.DATA, EdgeKind.DATA, EdgeKind.ORDER, EdgeKind.CONDITION])
            tolerant = rng.random() < 0.2
            edges.append(Edge(source=source, target=node, kind=kind, allow_failure=tolerant))
        length = rng.choice([None, None, None, 0, 1, 7, 40])
        maps = [n for n, known in enumerate(lengths) if known]
        if length is not None and maps and rng.random() < 0.5:
            source = rng.choice(maps)
            length = lengths[source]
            edges.append(Edge(source=source, target=node, kind=EdgeKind.ITEM))
        lengths.append(length)
        made += 1 if length is None else length
        rule = TriggerRule.ALL_SUCCESS if rng.random() < 0.7 else rng.choice(list(TriggerRule))
        yield engine.CallRegistered(
            at=0.0,
            node=node,
            kind=NodeKind.TASK if length is None else NodeKind.MAP,
            name="t",
            key=f"t-{node}",
            options=TaskOptions(
                trigger_rule=rule,
                retry=RetryPolicy(retries=rng.randrange(3), crash_retries=1, delays=(0.5,)),
            ),
            edges=tuple(edges),
            length=length,
        )


def check_outcome(simulation: Simulation, core: engine.Engine) -> None:
    assert len(simulation.settled) == 1
    for node in core.nodes:
        assert node.is_final
        for run in node.runs:
            names = [state.name for state in run.story]
            assert sum(name.type.is_final for name in names) == 1
            assert names[0] is StateName.PENDING
            policy = node.call.options.retry
            assert run.failures <= policy.retries + 1
            assert run.crashes <= policy.crash_retries + 1
            assert run.attempts <= 1 + policy.retries + policy.crash_retries
            for attempt in range(1, run.attempts + 1):
                assert simulation.started[run.key, attempt] == 1
    assert core.in_flight == 0


def test_ten_thousand_task_runs_with_failures() -> None:
    simulation = Simulation(seed=7, window=64)
    core = simulation.run(random_flow(7, 10_000))
    check_outcome(simulation, core)
    types = final_types(core)
    assert sum(types.values()) >= 10_000
    assert set(types) >= {StateType.COMPLETED, StateType.FAILED, StateType.SKIPPED}


@pytest.mark.parametrize("seed", range(20))
def test_invariants_hold_after_every_event(seed: int) -> None:
    simulation = Simulation(seed=seed, window=1 + seed, checked=True)
    check_outcome(simulation, simulation.run(random_flow(seed, 120)))


@given(seed=st.integers(0, 2**32), window=st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_the_same_seed_gives_the_same_story(seed: int, window: int) -> None:
    stories = []
    for _ in range(2):
        core = Simulation(seed=seed, window=window).run(random_flow(seed, 60))
        stories.append([(run.key, run.story) for node in core.nodes for run in node.runs])
    assert stories[0] == stories[1]


def test_without_failures_everything_completes_in_dependency_order() -> None:
    simulation = Simulation(seed=3, failure_rate=0, crash_rate=0)
    calls = [
        engine.CallRegistered(
            at=0.0,
            node=node,
            kind=NodeKind.TASK,
            name="t",
            key=f"t-{node}",
            options=TaskOptions(),
            edges=tuple(
                Edge(source=source, target=node) for source in {node // 2, node - 1} if source >= 0
            )
            if node
            else (),
        )
        for node in range(500)
    ]
    core = simulation.run(calls)
    assert final_types(core) == {StateType.COMPLETED: 500}
    for node in core.nodes:
        begun = next(s.at for s in node.runs[0].story if s.name is StateName.SUBMITTED)
        for edge in node.call.edges:
            assert core.nodes[edge.source].runs[0].state.at <= begun
