"""Flows that are killed: each task keeps a journal of what it does."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from raflow import INPUTS, allow_failure, flow, task, unmapped, wait_for_input
from tests.chaos.journal import Event, journaled, note

BEAT_SECONDS = 0.05


def work(journal: str, seconds: float) -> str:
    """Be busy for a while, and show that one is alive."""
    with journaled(journal) as value:
        for _ in range(round(seconds / BEAT_SECONDS)):
            time.sleep(BEAT_SECONDS)
            note(journal, Event.BEAT)
    return value


@task
def step(journal: str, seconds: float, n: int) -> str:
    return work(journal, seconds)


@task
def wide(journal: str, seconds: float, n: int) -> str:
    return work(journal, seconds)


@task(num_cpus=0)
def after(journal: str, before: str) -> str:
    return work(journal, 0.0)


@task(crash_retries=3)
def sturdy(journal: str, seconds: float, n: int) -> str:
    return work(journal, seconds)


@task
def forking(journal: str, seconds: float, n: int) -> str:
    """Have a child process that stays, if nobody ends it."""
    with journaled(journal), subprocess.Popen(["sh", "-c", "sleep 300; :", journal]) as child:
        time.sleep(seconds)
        child.kill()
    return ""


@task
def gather(journal: str, values: list[str]) -> str:
    return work(journal, 0.0)


@task
def chatty(journal: str, kilobytes: int) -> str:
    """Write what cannot be made smaller."""
    with journaled(journal) as value:
        for _ in range(kilobytes):
            print(random.randbytes(512).hex())
    return value


@task(persist_result=True)
def bulky(journal: str, kilobytes: int, n: int) -> bytes:
    """Return something too large for the database."""
    with journaled(journal):
        return random.randbytes(kilobytes << 10)


@flow
def fan(journal: str, seconds: float, items: int) -> str:
    """Some single calls, a map, and what needs all of it."""
    first = step(journal, seconds, 0)
    mapped = step.map(unmapped(journal), unmapped(seconds), range(items))
    return gather(journal, [first, *mapped])


@flow
def hundred(journal: str, seconds: float, items: int = 100) -> str:
    """Many that run at once, each with a successor."""
    begun = wide.map(unmapped(journal), unmapped(seconds), range(items))
    return gather(journal, after.map(unmapped(journal), begun))


@task(num_cpus=0, concurrency_per_worker=50)
async def light(journal: str, seconds: float, n: int) -> str:
    with journaled(journal) as value:
        for _ in range(round(seconds / BEAT_SECONDS)):
            await asyncio.sleep(BEAT_SECONDS)
            note(journal, Event.BEAT)
    return value


@flow
def hundred_light(journal: str, seconds: float, items: int = 100) -> str:
    """The same in few processes."""
    begun = light.map(unmapped(journal), unmapped(seconds), range(items))
    return gather(journal, after.map(unmapped(journal), begun))


@flow
def nested(journal: str, seconds: float, items: int) -> str:
    return gather(journal, wide.map(unmapped(journal), unmapped(seconds), range(items)))


@flow
def forks(journal: str, seconds: float, items: int) -> str:
    """A map whose calls have child processes."""
    return gather(journal, forking.map(unmapped(journal), unmapped(seconds), range(items)))


@flow
def fickle(journal: str, seconds: float, items: int, delays: list[float]) -> str:
    """Think better of it, after these times."""
    for n, delay in enumerate(delays):
        futures = wide.map(unmapped(journal), unmapped(seconds), range(items))
        time.sleep(delay)
        futures[n].cancel()
        futures.cancel()
        futures.wait()
        step(journal, 0.0, n).wait()
    return ""


@flow
def varied(journal: str, seconds: float, items: int) -> str:
    """A call, a map, a subflow with a map, and what needs all of it."""
    first = step(journal, 0.0, 0)
    below = nested(journal, seconds, items)
    beside = wide.map(unmapped(journal), unmapped(seconds), range(items))
    return gather(journal, [first, below, *beside])


@flow
def hardy(journal: str, seconds: float, items: int) -> str:
    """A map that survives the death of its processes."""
    return gather(journal, sturdy.map(unmapped(journal), unmapped(seconds), range(items)))


@task(crash_retries=3, scheduling_strategy="SPREAD")
def spread(journal: str, seconds: float, n: int) -> str:
    return work(journal, seconds)


@flow
def everywhere(journal: str, seconds: float, items: int) -> str:
    """The same on all hosts there are."""
    return gather(journal, spread.map(unmapped(journal), unmapped(seconds), range(items)))


@flow
def pair(journal: str, seconds: float) -> list[str]:
    """Two calls at once, each in a process of its own, and nothing after them."""
    alone = sturdy.with_options(batch=False, num_cpus=0)
    return alone.map(unmapped(journal), unmapped(seconds), range(2)).result()


@flow
def chain(journal: str, seconds: float, length: int) -> str:
    """One call after the other, each seen by the body."""
    value = ""
    for n in range(length):
        value = sturdy(journal, seconds, n).result()
    return value


def _hook(owner: object, run: object, state: object) -> None:
    """Have something to call."""


@task(on_completion=[_hook])
def hooked(journal: str) -> str:
    return work(journal, 0.0)


@flow
def inner(journal: str) -> str:
    return hooked(journal)


@flow(on_completion=[_hook])
def everything(journal: str) -> list[str]:
    """Reach every crash point that a run reaches which nobody cancels."""
    print("the body says something")
    child = inner(journal)
    written = chatty(journal, 1)
    kept = bulky(journal, 32, 0)
    value = gather(journal, [child, written])
    assert len(kept.result()) == 32 << 10
    return [value.result()]


def _tell(owner: Any, run: Any, state: Any) -> None:
    """Note that a hook was called, beside the ledger."""
    with Path(os.environ["CHAOS_LEDGER"]).with_name("hooks").open("a") as file:
        file.write(f"{owner.name} {state.name.value}\n")


def _undo(owner: Any, run: Any, state: Any) -> None:
    with Path(os.environ["CHAOS_LEDGER"]).with_name("hooks").open("a") as file:
        file.write(f"undo {owner.name}\n")


@task(on_rollback=[_undo])
def booked(journal: str) -> str:
    return work(journal, 0.0)


@task(on_crashed=[_tell], on_cancellation=[_tell])
def busy(journal: str, n: int) -> str:
    """Start a process that outlives everybody, and go on until there is a file."""
    with journaled(journal) as value:
        if not Path(f"{journal}.go").exists():
            subprocess.Popen(["sleep", "600"], start_new_session=True)
        while not Path(f"{journal}.go").exists():
            time.sleep(BEAT_SECONDS)
    return value


@flow(on_crashed=[_tell], on_cancellation=[_tell])
def watched_child(journal: str) -> str:
    return busy(journal, 1)


@flow(on_crashed=[_tell], on_cancellation=[_tell])
def watched(journal: str) -> str:
    """Something done, and something that goes on, here and in a subflow."""
    first = booked(journal)
    first.wait()
    return gather(journal, [first, busy(journal, 0), watched_child(journal)])


@task(limits=["narrow"], cache_policy=INPUTS)
def narrow(journal: str) -> str:
    return work(journal, 0.0)


@flow
def asking(journal: str) -> str:
    """Ask for a slot, for a value of the cache, and for what nobody answers."""
    value = narrow(journal)
    assert wait_for_input(bool, timeout_seconds=0.1, default=True)
    return gather(journal, [value])


@flow
def wordy(journal: str, kilobytes: int) -> str:
    return chatty(journal, kilobytes)


@task(persist_result=True, crash_retries=4)
def solid(journal: str) -> bytes:
    with journaled(journal):
        return random.randbytes(256 << 10)


@flow
def keeps(journal: str) -> int:
    return len(solid(journal).result())


@flow
def heavy(journal: str, kilobytes: int, items: int) -> int:
    return len(list(bulky.map(unmapped(journal), unmapped(kilobytes), range(items))))


class Stuck(Exception):
    """Cannot be pickled, and cannot even be shown."""

    def __init__(self) -> None:
        super().__init__("stuck")
        self.lock = threading.Lock()

    def __str__(self) -> str:
        raise RuntimeError("no text for you")


@task(batch=False, retries=0)
def nasty(journal: str, how: str) -> str:
    """Die, or worse."""
    with journaled(journal) as value:
        match how:
            case "segfault":
                ctypes.string_at(0)
            case "exit 0":
                os._exit(0)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "unpicklable":
                raise Stuck
            case "100 MB":
                line = "x" * 1023
                for _ in range(100 << 10):
                    print(line)
            case "system exit":
                raise SystemExit(3)
    return value


@task(batch=False, timeout_seconds=0.5)
def hangs(journal: str) -> str:
    """Hold the interpreter's lock for ever."""
    with journaled(journal) as value:
        sum(itertools.repeat(0))
    return value


NASTY = ("segfault", "exit 0", "kill", "unpicklable", "system exit", "100 MB")


@task
def observe(journal: str, results: list[Any]) -> list[str]:
    with journaled(journal):
        return [type(result).__name__ for result in results]


@flow
def nasties(journal: str) -> list[str]:
    """Every way of dying that code has, beside each other; none may hurt the others."""
    results = [allow_failure(nasty(journal, how)) for how in NASTY]
    return observe(journal, [*results, allow_failure(hangs(journal))])


@task(crash_retries=1)
def greedy(journal: str, megabytes: int) -> int:
    """Take ever more memory, slowly enough to be seen."""
    kept = []
    with journaled(journal):
        for _ in range(megabytes // 50):
            kept.append(bytearray(b"x") * (50 << 20))
            time.sleep(0.05)
        time.sleep(5)
    return len(kept)


@flow
def glutton(journal: str, megabytes: int) -> int:
    return greedy(journal, megabytes)
