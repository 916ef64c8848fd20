"""Slots of limits that tasks hold: shared by all, given back whatever happens, and lost."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from raflow import concurrency, errors, flow, task
from raflow.model import Limit, LimitState, StateName
from tests.flows.conftest import World
from tests.flows.test_durable import beside, counts, eventually, note


@pytest.fixture
def journal(tmp_path: Path) -> str:
    path = tmp_path / "journal"
    path.touch()
    return str(path)


def set_limit(world: World, slots: int = 1, per_seconds: float = 0.0) -> None:
    with world.store as store:
        store.limits.set(Limit(name="warehouse", slots=slots, per_seconds=per_seconds))


def limit(world: World) -> LimitState:
    with world.store as store:
        (state,) = store.limits.all()
    return state


def nobody(world: World) -> bool:
    state = limit(world)
    return state.holders == state.waiters == ()


def together(journal: str) -> int:
    """The most that were in a block at once."""
    most = now = 0
    for line in Path(journal).read_text(encoding="utf-8").split("\n"):
        now += {"in": 1, "out": -1}.get(line, 0)
        most = max(most, now)
    return most


def test_blocks_of_tasks_share_a_limit(world: World, journal: str) -> None:
    @task
    def copy(journal: str, _: int) -> None:
        for _ in range(2):
            with concurrency("warehouse"):
                note(journal, "in")
                time.sleep(0.02)
                note(journal, "out")

    @flow
    def copying(journal: str) -> None:
        copy.map([journal] * 6, range(6)).result()

    set_limit(world, 2)
    copying(journal)
    assert counts(journal) == {"in": 12, "out": 12}
    assert together(journal) <= 2
    assert nobody(world)
    assert world.last_run().state.name is StateName.COMPLETED


def test_who_waits_and_who_holds_is_shown(world: World, journal: str) -> None:
    @task
    def hold(journal: str) -> None:
        with concurrency("warehouse"):
            note(journal, "held")
            while not counts(journal)["go"]:
                time.sleep(0.02)

    @task
    def wait(journal: str) -> str:
        with concurrency("warehouse", priority=3):
            return "done"

    @flow(flow_run_name="copying")
    def copying(journal: str) -> str:
        held = hold(journal)
        eventually(lambda: counts(journal)["held"])
        waited = wait(journal)
        told: str = eventually(lambda: shown(waited.state.name is StateName.RUNNING))
        note(journal, "go")
        held.wait()
        assert waited.result() == "done"
        return told

    def shown(runs: bool) -> str:
        run = world.task_runs().get("wait-0") if runs else None
        return run.state.reason if run is not None else ""

    set_limit(world)
    seen: list[LimitState] = []

    def look() -> None:
        eventually(lambda: limit(world).waiters)
        seen.append(limit(world))
        eventually(lambda: counts(journal)["go"])

    thread = beside(look)
    told = copying(journal)
    thread.join()
    assert told.startswith("limit 'warehouse' 1/1, held by hold-0 of run copying since")
    [state] = seen
    assert [lease.label for lease in state.holders] == ["hold-0 of run copying"]
    assert [(lease.label, lease.priority) for lease in state.waiters] == [
        ("wait-0 of run copying", 3)
    ]
    waited = world.task_runs()["wait-0"]
    assert (waited.state.name, waited.state.reason) == (StateName.COMPLETED, "")
    assert nobody(world)


def test_what_a_task_cannot_have(world: World) -> None:
    @task
    def ask() -> list[str]:
        told = []
        wanted: list[tuple[str, int, type[Exception]]] = [
            ("nowhere", 1, errors.UnknownLimitError),
            ("warehouse", 3, errors.InfeasibleResourcesError),
            ("warehouse", 2, errors.SlotTimeoutError),
            ("warehouse", 2, TimeoutError),
        ]
        for name, slots, kind in wanted:
            with (
                concurrency("warehouse"),
                pytest.raises(kind) as raised,
                concurrency(name, slots, timeout_seconds=0.5),
            ):
                pass
            told.append(str(raised.value))
        with concurrency("warehouse"), concurrency("warehouse", timeout_seconds=100):
            return told

    @flow(flow_run_name="asking")
    def asking() -> list[str]:
        return ask().result()

    set_limit(world, 2)
    unknown, infeasible, *late = asking()
    assert "`raflow limits set nowhere N`" in unknown
    assert "ask-0 of run asking wants 3 slots of limit 'warehouse', which has 2" in infeasible
    for told in late:
        assert told.startswith(
            "Slots of limits (2 of 'warehouse') did not come to ask-0 within 0.5 seconds: limit "
            "'warehouse' 1/2, 2 needed, held by ask-0 of run asking since"
        )
    assert nobody(world)


def test_slots_come_back_however_a_call_ends(world: World, journal: str) -> None:
    @task
    def forget() -> None:
        concurrency("warehouse", timeout_seconds=100).__enter__()

    @task
    def fail() -> None:
        with concurrency("warehouse", timeout_seconds=100):
            raise ValueError("no luck")

    @task(timeout_seconds=0.3)
    def hang() -> None:
        with concurrency("warehouse", timeout_seconds=100):
            eventually(lambda: False)

    @task
    def die() -> None:
        with concurrency("warehouse", timeout_seconds=100):
            os.kill(os.getpid(), signal.SIGKILL)

    @task(timeout_seconds=0.3)
    def wait() -> None:
        with concurrency("warehouse"):
            pass

    @task
    def last(journal: str) -> str:
        with concurrency("warehouse", timeout_seconds=100):
            note(journal, "in")
            eventually(lambda: counts(journal)["go"])
        return "done"

    @flow
    def ending(journal: str) -> list[str]:
        ends = [final(step()) for step in (forget, fail, hang)]
        if world.backend == "ray":
            assert final(die()) == "Crashed"
        done = last(journal)
        eventually(lambda: counts(journal)["in"])
        ends.append(final(wait()))
        stays = wait.with_options(timeout_seconds=600)()
        eventually(lambda: limit(world).waiters)
        stays.cancel()
        eventually(lambda: not limit(world).waiters)
        ends.append(final(stays))
        note(journal, "go")
        return [*ends, done.result()]

    set_limit(world)
    assert ending(journal) == [
        "Completed",
        "Failed",
        "TimedOut",
        "TimedOut",
        "Cancelled",
        "done",
    ]
    assert nobody(world)


def final(future: Any) -> str:
    future.wait()
    name: str = future.state.name.value
    return name


def test_calls_that_overlap_and_threads_hold_their_own(world: World, journal: str) -> None:
    @task(concurrency_per_worker=4)
    async def fetch(journal: str, item: int) -> int:
        async with concurrency("warehouse"):
            note(journal, "in")
            await asyncio.sleep(0.05)
            note(journal, "out")
        return item

    @task
    async def blocked() -> str:
        with pytest.raises(errors.DefinitionError) as raised, concurrency("warehouse"):
            pass
        try:
            async with concurrency("warehouse", 2), concurrency("warehouse", timeout_seconds=0.3):
                pass
        except TimeoutError as error:
            return f"{raised.value}; {error}"
        return ""

    @task
    def threaded(journal: str) -> None:
        def work() -> None:
            with concurrency("warehouse"):
                note(journal, "in")
                time.sleep(0.05)
                note(journal, "out")

        threads = [
            threading.Thread(target=contextvars.copy_context().run, args=(work,)) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    @flow
    def fetching(journal: str) -> tuple[list[int], str]:
        found = fetch.map([journal] * 8, range(8)).result()
        threaded(journal).wait()
        return found, blocked().result()

    set_limit(world, 2)
    found, told = fetching(journal)
    assert found == list(range(8))
    assert "Write `async with`" in told
    assert "did not come to blocked-0 within 0.3 seconds: limit 'warehouse' 2/2" in told
    assert counts(journal) == {"in": 12, "out": 12}
    assert together(journal) <= 2
    assert nobody(world)


def test_neighbours_do_not_wait_for_a_call_that_waits(world: World) -> None:
    @task
    def copy(item: int) -> int:
        if item == 0:
            with concurrency("warehouse"):
                return item
        return item

    @flow
    def copying() -> list[int]:
        with concurrency("warehouse"):
            items = copy.map(range(200))
            for item in range(1, 200):
                assert items[item].result() == item
            assert not items[0].done()
        return items.result()

    set_limit(world)
    assert copying() == list(range(200))
    assert nobody(world)
