"""Functions such as users write as tasks, in a module that Ray's processes import."""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import itertools
import logging
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa

from raflow import SkipTask, define, task


def add(x: Any, y: Any = 1) -> Any:
    return x + y


def echo(value: Any) -> Any:
    return value


def many_ways(first: int, /, second: int, *rest: int, option: int = 0, **others: int) -> object:
    return first, second, rest, option, others


def numbers(length: int) -> list[int]:
    return list(range(length))


def big_array(megabytes: int) -> Any:
    return np.ones(megabytes << 17)


def pass_on(array: Any) -> Any:
    return array + 1


def total(array: Any) -> float:
    return float(array.sum())


def big_table(megabytes: int) -> Any:
    return pa.table({"x": np.ones(megabytes << 17)})


def big_text(length: int) -> str:
    return "x" * length


def buffer_of(data: Any) -> tuple[int, str, int]:
    """Returns where the data lie: the address, what is mapped there, and bytes of own memory."""
    if isinstance(data, pa.Table):
        address = data.column(0).chunk(0).buffers()[1].address
    else:
        address = data.__array_interface__["data"][0]
    assert data is not None
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, *_, mapped = line.split(maxsplit=5)
        start, stop = (int(edge, 16) for edge in span.split("-"))
        if start <= address < stop:
            return address, mapped.strip(), own_memory()
    raise AssertionError("the address is not mapped")


def own_memory() -> int:
    """Returns bytes of memory that this process shares with no other."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


def say(text: str) -> None:
    print(text)
    print(f"{text} to stderr", file=sys.stderr)
    logging.getLogger("my.lib").info("%s to the log", text)
    logging.getLogger("my.lib").debug("too low to be kept")


def say_from_thread(text: str) -> None:
    thread = threading.Thread(target=print, args=(text,))
    thread.start()
    thread.join()


def say_slowly(text: str, times: int) -> None:
    for _ in range(times):
        print(text)
        time.sleep(0.02)


def say_odd_things() -> None:
    print("surrogate \udc80")
    print("10%\r50%\r100%")
    print("no end", end="")


def say_endlessly(megabytes: int) -> None:
    line = "x" * 1023
    for _ in range(megabytes * 1024):
        print(line)


def burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def use_memory(megabytes: int) -> int:
    return len(bytearray(b"x") * (megabytes << 20))


def use_memory_slowly(megabytes: int) -> int:
    kept = []
    for _ in range(megabytes // 50):
        kept.append(bytearray(b"x") * (50 << 20))
        time.sleep(0.05)
    time.sleep(5)
    return len(kept)


def interval(seconds: float) -> tuple[float, float]:
    begun = time.time()
    time.sleep(seconds)
    return begun, time.time()


def meet(mine: str, other: str) -> None:
    """Returns only if the other one runs at the same time."""
    Path(mine).touch()
    deadline = time.monotonic() + 30
    while not Path(other).exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def nap(seconds: float) -> str:
    time.sleep(seconds)
    return "rested"


def import_slowly(folder: str) -> object:
    """Is interrupted during an import, and imports the same module again afterwards."""
    sys.path.insert(0, folder)
    try:
        importlib.import_module("slow_module")
    except BaseException:
        print("interrupted after the import")
        raise
    finally:
        sys.path.remove(folder)
    return spin(30)


def say_and_nap(text: str, seconds: float) -> None:
    print(text)
    time.sleep(seconds)


def spin(seconds: float) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "dizzy"


def mark_and_spin(path: str, seconds: float) -> str:
    Path(path).touch()
    return spin(seconds)


def stubborn(path: str) -> str:
    """Swallows every interruption."""
    Path(path).touch()
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            time.sleep(0.01)
        except BaseException as error:
            print("swallowed", type(error).__name__)
    return "stubborn"


def cleans_up(path: str) -> None:
    try:
        spin(30)
    finally:
        Path(path).write_text("cleaned up")


def environment(name: str) -> str | None:
    return os.environ.get(name)


def process() -> int:
    return os.getpid()


def hang_in_c() -> None:
    """Holds the interpreter's lock for ever, and never looks whether a signal has come."""
    sum(itertools.repeat(0))


def backtrack(length: int) -> object:
    return re.match(r"(a+)+$", "a" * length + "b")


def exit_quietly() -> None:
    os._exit(0)


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def segfault() -> None:
    ctypes.string_at(0)


def die_at(x: int, fatal: int) -> int:
    if x == fatal:
        kill_self()
    return x


def call_sys_exit() -> None:
    sys.exit(3)


class OrdinaryError(Exception):
    pass


class NeedsTwoArguments(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")
        self.first, self.second = first, second


class BrokenText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


class HoldsALock(Exception):
    def __init__(self) -> None:
        super().__init__("holds a lock")
        self.lock = threading.Lock()


class NotEvenAnException(BaseException):
    pass


def fail(kind: str) -> NoReturn:
    match kind:
        case "ordinary":
            raise OrdinaryError("it went wrong", 42)
        case "two":
            raise NeedsTwoArguments("one", "two")
        case "broken":
            raise BrokenText
        case "lock":
            raise HoldsALock
        case "base":
            raise NotEvenAnException("beyond Exception")
        case _:
            raise KeyboardInterrupt


def fail_with_cause() -> NoReturn:
    try:
        fail("ordinary")
    except OrdinaryError as error:
        raise ValueError("the outer one") from error


def skip(why: str) -> NoReturn:
    raise SkipTask(why)


def lock_value() -> object:
    return threading.Lock()


async def add_later(x: int, y: int) -> int:
    await asyncio.sleep(0.01)
    print("added")
    return x + y


async def sleep_async(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def block_loop(seconds: float) -> None:
    spin(seconds)


def context() -> object:
    seen = define.active_task.get()
    assert seen is not None
    return seen


def positive(x: int, y: int = 1) -> bool:
    return x + y > 0


def never(task: str, error: BaseException) -> bool:
    print(f"asked about {task}: {type(error).__name__}")
    return False


def broken_condition(task: str, error: BaseException) -> bool:
    raise LookupError("the condition is broken")


_lock = threading.Lock()


@task
def decorated(x: int) -> int:
    with _lock:  # a copy of this function could not travel
        return x * 2
