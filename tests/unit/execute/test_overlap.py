"""Calls of async functions share an event loop."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from raflow import SkipTask, define
from raflow.execute import InBatch, Known
from raflow.execute._course import LANES
from raflow.execute.ray import _watch
from raflow.execute.ray._watch import SignalWatch, install, interrupt_main_thread
from tests.unit.execute.batches import (
    SETTINGS,
    StillWatch,
    chunk,
    lines,
    loop_of,
    outcomes,
    run,
    single,
    texts,
)
from tests.waiting import LIMITS

WIDE = SETTINGS._replace(concurrency=10)
HOLE = define.Hole(0)


async def nap(x: float) -> float:
    await asyncio.sleep(x)
    return x


async def echo(x: Any) -> Any:
    await asyncio.sleep(0)
    return x


class Peak:
    """Counts how many calls are inside at once."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def visit(self, x: object) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.01)
        self.now -= 1


# --- overlapping --------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "most"), [(1, 1), (4, 4), (100, 30)])
def test_up_to_the_declared_width(width: int, most: int) -> None:
    peak = Peak()

    async def visit(x: object) -> None:
        await peak.visit(x)

    settings = SETTINGS._replace(concurrency=width)
    ended = run(chunk(1, visit, {"x": range(30)}, settings=settings))
    assert outcomes(ended) == ["completed"] * 30
    assert peak.most == most


def test_neighbouring_single_calls_overlap_too() -> None:
    here: list[int] = []

    async def meet(x: int) -> int:
        here.append(x)
        await asyncio.sleep(0.1)
        assert len(here) == 10
        return x

    ended = run(*(single(n, meet, {"x": n}, settings=WIDE) for n in range(10)))
    assert ended.values == list(range(10))
    assert list(ended.report.told) == []
    assert all(
        e - b > 0.09 for b, e in zip(ended.report.started_at, ended.report.ended_at, strict=True)
    )


def test_a_batch_has_one_event_loop() -> None:
    loops: list[object] = []

    async def look() -> None:
        loops.append(asyncio.get_running_loop())

    run(single(1, look), single(2, nap, {"x": 0.0}), single(3, look))
    assert loops[0] is loops[1]


def test_a_function_that_returns_a_coroutine() -> None:
    def hidden(x: int) -> Any:
        return echo(x)

    ended = run(chunk(1, hidden, {"x": [1, 2, 3]}), single(2, lambda: 4))
    assert ended.values == [1, 2, 3, 4]


def test_a_condition_and_a_name() -> None:
    calls = [
        single(n, echo, {"x": n}, run_if=lambda x: x > 0, task_run_name="echo {x}".format_map)
        for n in range(2)
    ]
    ended = run(*calls)
    assert outcomes(ended) == ["skipped", "completed"]
    assert [ended.report.told[n].label for n in range(2)] == ["echo 0", "echo 1"]


def test_output_and_context_stay_with_their_call() -> None:
    seen: set[tuple[str, object]] = set()

    async def talk(x: int) -> None:
        for step in range(3):
            print(f"{x}.{step}")
            await asyncio.sleep(0.001)
            await asyncio.to_thread(print, f"{x} thread")
        seen.add((define.get_run_context().label, x))

    ended = run(chunk(1, talk, {"x": range(5)}, settings=WIDE))
    assert texts(ended) == {
        x: [text for step in range(3) for text in (f"{x}.{step}", f"{x} thread")] for x in range(5)
    }
    assert seen == {(f"talk-1[{x}]", x) for x in range(5)}
    report = ended.report.told[2]
    assert all(report.started_at <= line.at <= report.ended_at for line in lines(report))


def test_variables_of_a_call_are_its_own() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=-1)

    async def change(x: int) -> int:
        before = variable.get()
        variable.set(x)
        return before

    assert run(chunk(1, change, {"x": range(4)})).values == [-1] * 4


def test_exceptions_end_their_call_only() -> None:
    async def raises(x: int) -> int:
        await asyncio.sleep(0.001)
        match x:
            case 1:
                raise ValueError("one")
            case 2:
                raise SkipTask("two")
            case 3:
                raise SystemExit(3)
            case 4:
                raise KeyboardInterrupt
            case 5:
                asyncio.current_task().cancel()  # type: ignore[union-attr]  # there is one
                await asyncio.sleep(1)
        return x

    ended = run(chunk(1, raises, {"x": range(7)}, settings=WIDE))
    expected = ["completed", "failed", "skipped", "failed", "cancelled", "failed", "completed"]
    assert outcomes(ended) == expected
    error = ended.report.told[1].error
    assert error is not None
    assert "in raises" in error.traceback
    assert "asyncio" not in error.traceback


def test_what_tears_the_event_loop_down_ends_what_was_on_it_and_the_rest_runs() -> None:
    async def exit_from_a_child(x: int) -> int:
        if x == 0:
            await asyncio.gather(leave())
        await asyncio.sleep(0.01)
        return x

    async def leave() -> None:
        raise SystemExit(3)

    settings = SETTINGS._replace(concurrency=2)
    ended = run(
        chunk(1, exit_from_a_child, {"x": range(5)}, settings=settings), single(2, lambda: 9)
    )
    found = outcomes(ended)
    assert found[0] == "failed"
    assert found[2:] == ["completed"] * 4
    assert ended.values[5] == 9


def test_what_a_call_leaves_behind_on_the_loop_is_ended_with_the_batch() -> None:
    ends: list[str] = []
    left: list[object] = []

    async def forever() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ends.append("ended")

    async def leave() -> None:
        left.append(asyncio.get_running_loop().create_task(forever()))
        await asyncio.sleep(0)

    assert outcomes(run(single(1, leave))) == ["completed"]
    assert ends == ["ended"]


# --- inputs within the batch --------------------------------------------------------------------


def test_a_chain_of_async_calls_waits_for_its_values() -> None:
    calls = [single(0, nap, {"x": 0.02}, settings=WIDE)]
    calls += [single(n, nap, {"x": HOLE}, inputs={0: InBatch(0)}, settings=WIDE) for n in (1, 2)]
    calls += [single(3, nap, {"x": HOLE}, inputs={0: Known(0.0)}, settings=WIDE)]
    ended = run(*calls)
    assert ended.values == [0.02, 0.02, 0.02, 0.0]
    assert ended.report.started_at[1] >= ended.report.ended_at[0]


def test_an_async_call_whose_source_failed_is_handed_back() -> None:
    async def fail() -> None:
        raise ValueError("no")

    ended = run(
        single(0, fail),
        single(1, echo, {"x": HOLE}, inputs={0: InBatch(0)}),
        single(2, echo, {"x": HOLE}, inputs={0: InBatch(1)}),
        single(3, echo, {"x": 3}),
    )
    assert outcomes(ended) == ["failed", "unstarted", "unstarted", "completed"]


# --- budget, own values, cells ------------------------------------------------------------------


def test_none_is_started_after_the_budget() -> None:
    settings = SETTINGS._replace(concurrency=3)
    ended = run(chunk(1, nap, {"x": [0.03] * 40}, settings=settings), budget=0.05)
    found = outcomes(ended)
    assert 3 <= found.count("completed") <= 9
    assert found == sorted(found)


def test_large_values_of_calls_that_overlap() -> None:
    async def large(x: int) -> bytes:
        await asyncio.sleep(0.005)
        return b"x" * x

    settings = SETTINGS._replace(concurrency=3)
    ended = run(chunk(1, large, {"x": [200_000] * 6}, settings=settings), own_values=2)
    assert len(ended.own) == 2
    found = outcomes(ended)
    assert found.count("completed") + found.count("unstarted") == 6
    assert "unstarted" in found
    stay = [p for p, o in enumerate(found) if o == "completed" and p not in ended.report.own]
    assert all(ended.values[p] is not None for p in stay)


def test_the_cell_shows_all_that_run() -> None:
    cell = [-1] * (LANES + 1)
    seen: list[list[int]] = []

    async def look(x: int) -> None:
        await asyncio.sleep(0.01)
        seen.append(sorted(position for position in cell[:LANES] if position >= 0))

    settings = SETTINGS._replace(concurrency=3)
    run(single(9, lambda: None), chunk(1, look, {"x": range(3)}, settings=settings), cell=cell)
    assert seen[0] == [1, 2, 3]


def test_the_cell_counts_what_has_no_lane() -> None:
    cell = [-1] * (LANES + 1)
    most: list[int] = []

    async def look(x: int) -> None:
        await asyncio.sleep(0.02)
        most.append(cell[LANES])

    settings = SETTINGS._replace(concurrency=1000)
    run(chunk(1, look, {"x": range(LANES + 5)}, settings=settings), cell=cell)
    assert max(most) == 4
    assert cell[LANES] == -1


# --- time limits and cancelling -----------------------------------------------------------------


@pytest.fixture
def signals() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGUSR2, signal.SIGALRM)
    before = {number: signal.getsignal(number) for number in numbers}
    install()
    gc.disable()  # Python ignores what is raised in callbacks of the garbage collector, as here
    yield
    gc.enable()
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before.items():
        signal.signal(number, handler)


def signal_watch() -> SignalWatch:
    return SignalWatch(grace=60.0, last_words=lambda: None, is_meant=lambda: True)


LIMITED = SETTINGS._replace(concurrency=10, timeout_seconds=0.1)


def test_each_call_has_its_own_time_limit(signals: None) -> None:
    for seconds in LIMITS:
        settings = LIMITED._replace(timeout_seconds=seconds)
        loop = loop_of(chunk(1, nap, {"x": [0.0, 900.0, 0.0, 900.0]}, settings=settings))
        assert loop.run(signal_watch())
        ended = loop.end()
        if "completed" in outcomes(ended):
            break
    assert outcomes(ended) == ["completed", "timed_out", "completed", "timed_out"]
    assert f"timeout_seconds={seconds:g}" in ended.report.told[1].message


def test_swallowing_the_time_limit_does_not_help(signals: None) -> None:
    async def swallow() -> str:
        try:
            await asyncio.sleep(900)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return "too late"

    loop = loop_of(single(1, swallow, settings=LIMITED))
    assert loop.run(signal_watch())
    assert outcomes(loop.end()) == ["timed_out"]


def test_a_call_that_blocks_the_loop_is_stopped_and_the_others_go_on(signals: None) -> None:
    async def maybe_block(x: bool) -> bool:
        await asyncio.sleep(0.01)
        end = time.monotonic() + 900
        while x and time.monotonic() < end:
            pass
        return x

    for seconds in LIMITS:
        settings = LIMITED._replace(concurrency=1, timeout_seconds=seconds)
        loop = loop_of(chunk(1, maybe_block, {"x": [False, True, False]}, settings=settings))
        assert loop.run(signal_watch())
        found = outcomes(loop.end())
        if found.count("timed_out") == 1:
            break
    assert found == ["completed", "timed_out", "completed"]


def test_a_time_out_of_the_users_own_is_a_failure() -> None:
    async def own() -> None:
        async with asyncio.timeout(0.001):
            await asyncio.sleep(900)

    limited = LIMITED._replace(timeout_seconds=100.0)
    assert outcomes(run(single(1, own, settings=limited))) == ["failed"]


def test_a_cancel_ends_all_that_overlap(signals: None) -> None:
    begun = threading.Event()

    async def stay(x: int) -> None:
        if x == 2:
            begun.set()
        await asyncio.sleep(900)

    def cancel() -> None:
        assert begun.wait(100)
        interrupt_main_thread()

    loop = loop_of(chunk(1, stay, {"x": range(5)}, settings=SETTINGS._replace(concurrency=3)))
    thread = threading.Thread(target=cancel)
    thread.start()
    assert loop.run(signal_watch())
    thread.join(100)
    ended = loop.end()
    assert outcomes(ended) == ["cancelled"] * 5
    assert [ended.report.told[n].message for n in (2, 3)] == [
        "it was interrupted while it ran",
        "it was cancelled before it started",
    ]


def test_a_cancel_is_repeated_until_python_has_noticed_it(
    signals: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[float] = []
    send = _watch._signal_main_thread

    def lost_at_first() -> None:
        sent.append(time.monotonic())
        if len(sent) > 2:
            send()

    monkeypatch.setattr(_watch, "_signal_main_thread", lost_at_first)

    async def stay() -> None:
        interrupt_main_thread()
        await asyncio.sleep(900)

    loop = loop_of(single(1, stay))
    assert loop.run(signal_watch())
    assert outcomes(loop.end()) == ["cancelled"]
    assert len(sent) == 3


def test_calls_that_share_the_loop_of_one_that_hangs_are_lost() -> None:
    begun, go = threading.Event(), threading.Event()

    async def hang(x: int) -> int:
        if x == 2:
            begun.set()
            assert go.wait(100)
        await asyncio.sleep(0.05)
        return x

    settings = LIMITED._replace(timeout_seconds=5.0, concurrency=3)
    loop = loop_of(chunk(1, hang, {"x": range(5)}, settings=settings))
    returned: list[bool] = []
    thread = threading.Thread(target=lambda: returned.append(loop.run(StillWatch())))
    thread.start()
    assert begun.wait(100)
    assert loop.leave_behind(2, "") is not None
    assert loop.run(StillWatch())
    ended = loop.end()
    go.set()
    thread.join(100)
    assert returned == [False]
    assert outcomes(ended) == ["lost", "lost", "timed_out", "completed", "completed"]
    assert ended.values == [None, None, None, 3, 4]
