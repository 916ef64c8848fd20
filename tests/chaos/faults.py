"""What can be done to a run, in an order that a seed decides."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

import sqlalchemy as sa

from tests.chaos.journal import Event
from tests.chaos.world import World


class Kind(StrEnum):
    """What is done."""

    KILL_WORKER = "kill a worker"
    PAUSE_WORKER = "pause a worker"
    LOCK_DATABASE = "lock the database"
    KILL_DRIVER = "kill the driver"


class Fault(NamedTuple):
    """Something that is done to a run while it runs."""

    kind: Kind
    after: int
    """When so many executions have begun."""
    delay: float
    """Seconds to wait then."""
    seconds: float
    """How long it lasts, if it passes."""


_PASSING: Final = (Kind.KILL_WORKER, Kind.PAUSE_WORKER, Kind.LOCK_DATABASE)


def plan(seed: int, executions: int) -> list[Fault]:
    """Return what a seed does to a run of about so many executions, in order."""
    rng = random.Random(seed)
    moments = sorted(rng.randrange(1, executions) for _ in range(rng.randint(1, 4)))
    faults = [_fault(rng, rng.choice(_PASSING), after) for after in moments]
    if rng.random() < 0.3:
        faults.append(_fault(rng, Kind.KILL_DRIVER, rng.randrange(moments[-1], executions + 1)))
    return faults


def _fault(rng: random.Random, kind: Kind, after: int) -> Fault:
    return Fault(kind, after, rng.uniform(0, 0.2), rng.uniform(0.2, 1.5))


def inflict(world: World, faults: Sequence[Fault], rng: random.Random) -> None:
    """Do it to the run that the last process of a world drives."""
    driver = world.children[-1]
    for fault in faults:
        world.wait_for_any(Event.BEGUN, fault.after)
        time.sleep(fault.delay)
        if driver.process.poll() is not None:
            return
        _DEEDS[fault.kind](world, fault, rng)


def shrink(faults: Sequence[Fault], fails: Callable[[Sequence[Fault]], bool]) -> Sequence[Fault]:
    """Return as few of the faults as still fail, leaving out halves first, then less."""
    size = len(faults) // 2
    while size:
        for start in range(0, len(faults), size):
            fewer = [*faults[:start], *faults[start + size :]]
            if fewer and fails(fewer):
                faults = fewer
                break
        else:
            size //= 2
    return faults


@contextlib.contextmanager
def locked(world: World) -> Iterator[None]:
    """Keep the database of a world to oneself, as a long writer does."""
    url = world.database_url
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    try:
        with engine.connect() as connection:
            if engine.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                connection.exec_driver_sql("LOCK TABLE flow_runs IN ACCESS EXCLUSIVE MODE")
            yield
            connection.rollback()
    finally:
        engine.dispose()
    world.faults.append("the database was locked")


def _kill_worker(world: World, _: Fault, rng: random.Random) -> None:
    running = world.running()
    if running:
        with contextlib.suppress(ProcessLookupError):
            world.strike(rng.choice(running).pid)


def _pause_worker(world: World, fault: Fault, rng: random.Random) -> None:
    running = world.running()
    if running:
        pid = rng.choice(running).pid
        with contextlib.suppress(ProcessLookupError):
            world.strike(pid, signal.SIGSTOP)
            time.sleep(fault.seconds)
            world.strike(pid, signal.SIGCONT)


def _lock_database(world: World, fault: Fault, _: random.Random) -> None:
    with locked(world):
        time.sleep(fault.seconds)


def _kill_driver(world: World, _: Fault, __: random.Random) -> None:
    driver = world.children[-1]
    world.strike(driver.pid)
    driver.wait()
    world.died()


_DEEDS: Final[dict[Kind, Callable[[World, Fault, random.Random], None]]] = {
    Kind.KILL_WORKER: _kill_worker,
    Kind.PAUSE_WORKER: _pause_worker,
    Kind.LOCK_DATABASE: _lock_database,
    Kind.KILL_DRIVER: _kill_driver,
}
