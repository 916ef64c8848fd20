"""Random faults from seeds; `CHAOS_SEEDS=200 pytest tests/chaos/test_random.py` is a night's work.

A seed that fails is run again with ever fewer of its faults, until none can be left out.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence

import pytest

from tests.chaos.cluster import Cluster
from tests.chaos.conftest import MakeWorld
from tests.chaos.faults import Fault, Kind, inflict, plan, shrink
from tests.chaos.promises import Budget
from tests.chaos.world import World

ITEMS = 24
FIRST = int(os.environ.get("CHAOS_FIRST_SEED", "1"))
SEEDS = range(FIRST, FIRST + int(os.environ.get("CHAOS_SEEDS", "2")))
BUDGETS = {"sturdy": Budget(crash_retries=3)}


def _play(world: World, faults: Sequence[Fault], seed: int) -> str:
    """Run a flow through faults; returns what is wrong afterwards, empty if nothing is."""
    try:
        child = world.launch("hardy", seconds=0.3, items=ITEMS)
        inflict(world, faults, random.Random(seed))
        child.wait()
        if not world.earlier:
            child.finish()
        world.check(budgets=BUDGETS, abandoned=bool(world.earlier))
    except AssertionError as error:
        return str(error)
    return ""


@pytest.mark.chaos
@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_run_keeps_its_promises(seed: int, make_world: MakeWorld, shared_ray: Cluster) -> None:
    def play(faults: Sequence[Fault]) -> str:
        return _play(make_world("ray", **shared_ray.environment), faults, seed)

    faults = plan(seed, ITEMS)
    wrong = play(faults)
    if wrong:
        fewest = shrink(faults, lambda fewer: bool(play(fewer)))
        told = "\n".join(map(str, fewest))
        pytest.fail(f"CHAOS_FIRST_SEED={seed} CHAOS_SEEDS=1: {wrong}\nfewest faults:\n{told}")


def test_a_seed_always_does_the_same() -> None:
    assert plan(7, ITEMS) == plan(7, ITEMS)
    assert len({tuple(plan(seed, ITEMS)) for seed in range(50)}) == 50
    assert {fault.kind for seed in range(50) for fault in plan(seed, ITEMS)} == set(Kind)


@pytest.mark.parametrize("guilty", [{0}, {5}, {2, 7}, {0, 1, 2, 3}])
def test_only_the_faults_that_are_needed_are_left(guilty: set[int]) -> None:
    faults = [Fault(Kind.KILL_WORKER, after, 0.0, 0.0) for after in range(8)]

    def fails(some: Sequence[Fault]) -> bool:
        return guilty <= {fault.after for fault in some}

    assert {fault.after for fault in shrink(faults, fails)} == guilty
