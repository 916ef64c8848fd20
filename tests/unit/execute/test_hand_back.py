"""Calls that other threads take back, and interruptions at any point."""

from __future__ import annotations

import gc
import logging
import queue
import random
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from raflow.execute._alarms import Alarms
from raflow.execute._capture import Capture
from raflow.execute._course import Running
from raflow.execute._minder import Minder
from raflow.execute.ray._watch import SignalWatch, install, interrupt_main_thread
from raflow.model import Outcome
from tests.unit.execute.batches import SETTINGS, StillWatch, chunk, loop_of, outcomes, single, site
from tests.waiting import LIMITS, wait_for


def echo(x: Any) -> Any:
    return x


def nap(seconds: float) -> None:
    time.sleep(seconds)


# --- taking back --------------------------------------------------------------------------------


def test_what_has_not_begun_is_taken_back_while_a_call_runs() -> None:
    begun, go = threading.Event(), threading.Event()

    def wait(x: int) -> int:
        begun.set()
        assert go.wait(100)
        return x

    loop = loop_of(chunk(1, wait, {"x": [1, 2, 3]}), single(2, echo, {"x": 0}))
    thread = threading.Thread(target=loop.run, args=(StillWatch(),))
    thread.start()
    assert begun.wait(100)
    assert list(loop.hand_back()) == [1, 2, 3]
    assert list(loop.hand_back()) == []
    go.set()
    thread.join(100)
    ended = loop.end()
    assert outcomes(ended) == ["completed", "unstarted", "unstarted", "unstarted"]
    assert list(ended.report.unstarted) == [1, 2, 3]


def test_what_was_taken_back_of_a_cancelled_batch_is_not_told_twice() -> None:
    loop = loop_of(chunk(1, echo, {"x": [1, 2, 3]}))
    assert list(loop.hand_back()) == [0, 1, 2]
    loop.cancel()
    assert loop.run(StillWatch())
    assert outcomes(loop.end()) == ["unstarted"] * 3


@pytest.mark.parametrize("seed", range(30))
def test_no_call_is_both_run_and_taken_back(seed: int) -> None:
    rng = random.Random(seed)
    ran: list[int] = []

    def note(x: int) -> None:
        ran.append(x)

    loop = loop_of(
        *(single(n, note, {"x": n}) for n in range(20)), chunk(99, note, {"x": range(20, 3000)})
    )
    taken: list[int] = []

    def take_back() -> None:
        time.sleep(rng.random() * 0.004)
        for _ in range(2):
            taken.extend(loop.hand_back())

    thread = threading.Thread(target=take_back)
    thread.start()
    assert loop.run(StillWatch())
    thread.join(100)
    report = loop.end().report
    assert not set(ran) & set(taken)
    assert set(taken) <= set(report.unstarted)
    assert sorted([*ran, *report.unstarted]) == list(range(3000))
    assert [bool(at) for at in report.started_at] == [p < len(ran) for p in range(3000)]


# --- the minder ---------------------------------------------------------------------------------


@pytest.fixture
def alarms() -> Iterator[Alarms]:
    made = Alarms("test-alarms")
    yield made
    made.close()


UNTIL_HEARD = -1.0


def mind(alarms: Alarms, seconds: list[float], **more: Any) -> tuple[Any, list[Any]]:
    heard: list[Any] = []

    def work(x: float) -> None:
        if x == UNTIL_HEARD:
            wait_for(lambda: heard)
            x = 0.6  # whatever is told twice is told now
        nap(x)

    loop = loop_of(
        *(single(n, work, {"x": s}) for n, s in enumerate(seconds)), budget=more["budget"]
    )
    minder = Minder(loop, alarms, started=heard.append, returned=heard.append, **more)
    minder.start()
    assert loop.run(StillWatch())
    minder.stop()
    return loop.end(), heard


class TestMinder:
    def test_short_batches_say_nothing(self, alarms: Alarms) -> None:
        _, heard = mind(alarms, [0.01, 0.01], budget=5.0)
        assert heard == []

    def test_calls_behind_a_long_one_are_taken_back_once(self, alarms: Alarms) -> None:
        for _ in range(10):  # until the first call has begun within the budget
            ended, heard = mind(alarms, [UNTIL_HEARD, 0.0, 0.0], budget=0.05)
            if list(heard[0]) != [0, 1, 2]:
                break
        assert list(heard[0]) == [1, 2]
        assert all(isinstance(told, Running) for told in heard[1:])
        assert outcomes(ended) == ["completed", "unstarted", "unstarted"]

    def test_nothing_is_taken_back_that_cannot_be_told(self, alarms: Alarms) -> None:
        ended, heard = mind(alarms, [0.2, 0.0], budget=0.05, may_return=lambda: False)
        assert all(isinstance(told, Running) for told in heard)
        assert list(ended.report.unstarted) == [1]

    def test_a_long_call_is_told_of_once(self, alarms: Alarms) -> None:
        begun = time.time()
        _, heard = mind(alarms, [0.1, UNTIL_HEARD], budget=900.0)
        [call] = [told for told in heard if told.position == 1]
        assert isinstance(call, Running)
        assert (call.position, call.run.node, call.attempt) == (1, 1, 1)
        assert call.started_at >= begun + 0.1


# --- interruptions ------------------------------------------------------------------------------


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


def signal_watch(**more: Any) -> SignalWatch:
    given: dict[str, Any] = {"grace": 60.0, "last_words": lambda: None, "is_meant": lambda: True}
    return SignalWatch(**given | more)


@pytest.mark.parametrize("seed", range(40))
def test_a_cancel_at_any_point_ends_one_call_and_those_after_it(signals: None, seed: int) -> None:
    rng = random.Random(seed)
    kinds = [
        chunk(1, echo, {"x": list(range(400))}),
        *(single(n, echo, {"x": [n]}) for n in range(2, 30)),
        chunk(90, echo, {"x": list(range(100))}, run_if=lambda x: True),
        chunk(91, echo, {"x": list(range(100))}, settings=SETTINGS._replace(timeout_seconds=9.0)),
        chunk(92, echo_later, {"x": list(range(20))}),
        chunk(93, echo, {"x": list(range(400))}),
    ]
    rng.shuffle(kinds)
    loop = loop_of(*kinds)

    def cancel() -> None:
        time.sleep(rng.random() * 0.012)
        if seed % 2:
            loop.cancel()
        interrupt_main_thread()

    thread = threading.Thread(target=cancel)
    thread.start()
    assert loop.run(signal_watch())
    ended = loop.end()
    thread.join(100)
    found = outcomes(ended)
    completed = found.count("completed")
    assert found == ["completed"] * completed + ["cancelled"] * (loop.size - completed)
    messages = [ended.report.told[p].message for p in sorted(ended.report.told)]
    assert messages[1:] == ["it was cancelled before it started"] * max(0, len(messages) - 1)


async def echo_later(x: Any) -> Any:
    return x


def test_a_signal_for_another_batch_changes_nothing(signals: None) -> None:
    loop = loop_of(chunk(1, nap, {"seconds": [0.05, 0.05]}, size=2))
    timer = threading.Timer(0.02, interrupt_main_thread)
    timer.start()
    assert loop.run(signal_watch(is_meant=lambda: False))
    assert outcomes(loop.end()) == ["completed", "completed"]


@pytest.mark.parametrize("seed", range(10))
def test_time_limits_that_hit_at_any_point_end_their_call_only(signals: None, seed: int) -> None:
    rng = random.Random(seed)
    tight = SETTINGS._replace(timeout_seconds=0.002)

    def spin(x: float) -> float:
        end = time.perf_counter() + x
        while time.perf_counter() < end:
            pass
        return x

    given = [rng.choice([0.0, 0.0019, 0.002, 0.0021, 0.004]) for _ in range(60)]
    loop = loop_of(chunk(1, spin, {"x": given}, settings=tight), single(2, spin, {"x": 0.01}))
    assert loop.run(signal_watch())
    ended = loop.end()
    found = outcomes(ended)
    assert set(found) <= {"completed", "timed_out"}
    assert found[-1] == "completed"
    for position, seconds in enumerate(given):
        if seconds == 0.004:
            assert found[position] == "timed_out"
        if found[position] == "completed":
            assert ended.values[position] == seconds


def test_arguments_stay_with_their_items_after_a_time_limit(signals: None) -> None:
    def stall(x: int) -> int:
        if x == 1:
            time.sleep(600)
        return x

    for seconds in LIMITS:
        limited = SETTINGS._replace(timeout_seconds=seconds)
        loop = loop_of(chunk(1, stall, {"x": [0, 1, 2, 3]}, settings=limited))
        assert loop.run(signal_watch())
        ended = loop.end()
        if outcomes(ended).count("timed_out") == 1:
            break
    assert outcomes(ended) == ["completed", "timed_out", "completed", "completed"]
    assert ended.values == [0, None, 2, 3]


# --- threads that are left behind ---------------------------------------------------------------


def test_the_batch_goes_on_without_a_thread_that_hangs() -> None:
    begun, go = threading.Event(), threading.Event()
    limited = SETTINGS._replace(timeout_seconds=0.01)

    def hang(x: int) -> int:
        if x == 1:
            print("stuck")
            begun.set()
            assert go.wait(100)
        return x

    loop = loop_of(
        chunk(1, hang, {"x": [0, 1, 2]}, settings=limited),
        single(2, echo, {"x": 5}),
        site=site(whole_process=False),
    )
    results: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def first() -> None:
        with Capture(logging.INFO):
            results.put(loop.run(StillWatch()))

    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(100)
    assert loop.leave_behind(0, "") is None
    message = loop.leave_behind(1, " It is stuck.")
    assert message is not None
    assert "timeout_seconds=0.01 and was ended. It is stuck." in message
    assert loop.leave_behind(1, "") is None
    assert loop.run(StillWatch())
    ended = loop.end()
    go.set()
    assert results.get(timeout=100) is False
    thread.join(100)
    assert outcomes(ended) == ["completed", "timed_out", "completed", "completed"]
    assert ended.values == [0, None, 2, 5]
    assert ended.report.told[1].outcome is Outcome.TIMED_OUT
    assert ended.report.told[1].logs
