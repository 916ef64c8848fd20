"""From a death to the moment when raflow knows of it.

Real processes are killed, stopped or cut off while they run a task that takes long. That raflow
knows is when the attempt, or the flow run, ends on record; of a killed driver, when its lease has
run out, so that another machine may take the run (on the same machine its process is seen to be
gone at once). The hosts that are cut off are network namespaces, for which one must be root.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmarks._charts import bars
from benchmarks._harness import Bench, Figure, Goal, Size
from tests.chaos.cluster import Cluster
from tests.chaos.hosts import TwoHosts, two_hosts
from tests.chaos.journal import Event
from tests.chaos.world import World, wait_until

SIZES: Mapping[str, Size] = {}
LONG = 60.0
PATIENCE = 120.0


@contextlib.contextmanager
def a_world(environment: Mapping[str, str]) -> Iterator[World]:
    with tempfile.TemporaryDirectory(
        prefix="raflow-benchmark-", ignore_cleanup_errors=True
    ) as folder:
        world = World(folder=Path(folder), backend="ray", environment=dict(environment))
        try:
            yield world
        finally:
            world.close()


def attempt_lost(world: World, strike: Callable[[], None]) -> float:
    """Strike what runs an attempt; return the seconds until that has ended on record."""
    begun = time.time()
    strike()

    def ends() -> list[float]:
        attempts = world.record().attempts.values()
        return [a.ended_at for found in attempts for a in found]

    wait_until(lambda: bool(ends()), "an attempt that has ended", PATIENCE)
    seconds = min(ends()) - begun
    assert seconds > 0, "an attempt had ended before anything was struck"
    return seconds


def run_ended(world: World, strike: Callable[[], None]) -> float:
    """Strike what a run stands on; return the seconds until it has ended on record."""
    begun = time.time()
    strike()

    def ends() -> list[float]:
        return [run.ended_at for run in world.record().runs.values() if run.ended_at is not None]

    wait_until(lambda: bool(ends()), "a run that has ended", PATIENCE)
    return min(ends()) - begun


def lease_over(world: World, strike: Callable[[], None]) -> float:
    """Kill the driver of a run; return the seconds until others may have it."""
    begun = time.time()
    strike()
    with world.store() as store:
        [run] = store.flow_runs(roots=True)
        wait_until(lambda: not store.leases.is_alive(run.id), "the end of a lease", PATIENCE)
    return time.time() - begun


def start(world: World) -> int:
    """Begin a task that takes long; return the process that runs it."""
    world.launch("hardy", seconds=LONG, items=1)
    [entry] = world.wait_for(Event.BEGUN)
    time.sleep(2.5)  # the lease of the run is renewed every two seconds
    return entry.pid


def of_worker(number: signal.Signals, environment: Mapping[str, str]) -> float:
    with a_world(environment) as world:
        pid = start(world)
        return attempt_lost(world, lambda: world.strike(pid, number))


def of_driver(environment: Mapping[str, str]) -> float:
    with a_world(environment) as world:
        start(world)
        return lease_over(world, lambda: world.strike(world.children[-1].pid))


def of_own_ray(program: str) -> float:
    with a_world({}) as world:
        start(world)
        return run_ended(world, lambda: world.strike(world.find(program)))


def of_joined_gcs() -> float:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        ray = stack.enter_context(Cluster.started(Path(folder)))
        world = stack.enter_context(a_world(ray.environment))
        start(world)
        return run_ended(world, lambda: ray.kill("gcs_server"))


def of_host(strike: Callable[[TwoHosts], None]) -> float:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        hosts = stack.enter_context(two_hosts(Path(folder)))
        world = stack.enter_context(a_world(hosts.environment))
        world.prefix = hosts.head.prefix
        world.launch("everywhere", seconds=LONG, items=2)
        entries = world.wait_for(Event.BEGUN, 2)
        assert {entry.pid for entry in entries} & set(hosts.worker.pids())
        time.sleep(2.5)
        return attempt_lost(world, lambda: strike(hosts))


KINDS: Mapping[str, Callable[[Mapping[str, str]], float]] = {
    "worker killed": lambda ray: of_worker(signal.SIGKILL, ray),
    "worker stopped": lambda ray: of_worker(signal.SIGSTOP, ray),
    "driver killed": of_driver,
    "raylet killed": lambda _: of_own_ray("raylet"),
    "GCS killed": lambda _: of_own_ray("gcs_server"),
    "GCS of a cluster killed": lambda _: of_joined_gcs(),
    "host killed": lambda _: of_host(TwoHosts.kill_worker),
    "host cut off": lambda _: of_host(TwoHosts.cut),
}
GOALS = {"worker killed": 5.0, "raylet killed": 5.0, "GCS killed": 5.0, "driver killed": 15.0}


def main() -> None:
    bench = Bench.from_command_line(__file__, __doc__, SIZES, sides=tuple(KINDS))
    kinds = {kind: measure for kind, measure in KINDS.items() if bench.wants(kind)}
    if os.getuid():
        kinds = {kind: measure for kind, measure in kinds.items() if "host" not in kind}
    with tempfile.TemporaryDirectory() as folder, Cluster.started(Path(folder)) as ray:
        for kind, measure in kinds.items():
            values = [measure(ray.environment) for _ in range(bench.rounds)]
            goal = Goal(at_most=GOALS[kind]) if kind in GOALS else None
            bench.add(Figure(workload="death", side=kind, unit="s", values=values, goal=goal))
    bench.finish(slowest=max(statistics.median(figure.values) for figure in bench.figures))
    bars(bench, bench.figures, label="seconds until raflow knows")


if __name__ == "__main__":
    main()
