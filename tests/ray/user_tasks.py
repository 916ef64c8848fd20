"""Functions such as users write as tasks, in a module that Ray's processes import."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib
import itertools
import logging
import os
import re
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import ray

from raflow import SkipTask, define, task
from tests.waiting import wait_for


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
    time.sleep(60)
    return len(kept)


def interval(seconds: float) -> tuple[float, float]:
    begun = time.time()
    time.sleep(seconds)
    return begun, time.time()


def meet(mine: str, other: str) -> None:
    """Returns only if the other one runs at the same time."""
    Path(mine).touch()
    wait_for(Path(other).exists)


def nap(seconds: float) -> str:
    time.sleep(seconds)
    return "rested"


def leave_a_trace(path: str) -> None:
    """Writes down what ends it."""
    try:
        time.sleep(600)
    finally:
        Path(path).write_text(type(sys.exception()).__name__)


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
    return spin(600)


def hold(path: str) -> str:
    """Ends once there is such a file."""
    wait_for(Path(path).exists)
    return "held"


def say_and_lock(text: str, lock: threading.Lock) -> None:
    """Waits in C where an exception does not get through."""
    print(text)
    lock.acquire()


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
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            time.sleep(0.01)
        except BaseException as error:
            print("swallowed", type(error).__name__)
    return "stubborn"


def cleans_up(path: str) -> None:
    try:
        spin(600)
    finally:
        Path(path).write_text("cleaned up")


def environment(name: str) -> str | None:
    return os.environ.get(name)


def process() -> int:
    return os.getpid()


def ray_task() -> str:
    return str(ray.get_runtime_context().get_task_id())


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


async def hold_async(path: str) -> None:
    await asyncio.to_thread(hold, path)


_present: list[int] = []


async def crowd(wanted: int) -> int:
    """Stays until so many are there at once, and returns the most that it has seen."""
    _present.append(wanted)
    most = len(_present)
    try:
        while most < wanted:
            await asyncio.sleep(0.01)
            most = max(most, len(_present))
        await asyncio.sleep(0.05)  # were there too many, they would come
        return max(most, len(_present))
    finally:
        _present.remove(wanted)


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


def mark(path: str) -> None:
    Path(path).touch()


async def mark_and_sleep_async(path: str, seconds: float) -> str:
    mark(path)
    await asyncio.sleep(seconds)
    return "rested"


async def mark_and_block_loop(path: str, seconds: float) -> str:
    mark(path)
    return spin(seconds)


def spawn(code: str) -> int:
    return os.posix_spawn(sys.executable, [sys.executable, "-c", code], os.environ)


def rest(seconds: float) -> None:
    """Sleeps so that an exception comes through on any thread."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.05)


def start_child(path: str, seconds: float) -> None:
    """Starts a program that lives for ten minutes, and notes its pid."""
    Path(path).write_text(str(spawn("import time; time.sleep(600)")))
    rest(seconds)


def start_stubborn_child(path: str, seconds: float) -> None:
    """The same, but the child ignores SIGTERM."""
    ready = f"open({path + '.ready'!r}, 'x')"
    pid = spawn(f"import signal, time; signal.signal(15, signal.SIG_IGN); {ready}; time.sleep(600)")
    while not Path(path + ".ready").exists():
        time.sleep(0.01)
    Path(path).write_text(str(pid))
    rest(seconds)


def start_daemon(path: str, seconds: float, program: bool) -> None:
    """Detaches a process as daemons do: fork, setsid, fork; its parent is not this process."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            Path(f"{path}.part").write_text(str(os.getpid()))
            os.rename(f"{path}.part", path)
            if program:
                os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)"])
            time.sleep(600)
        os._exit(0)
    os.wait()
    if seconds < 0:
        hang_in_c()
    time.sleep(seconds)


def write_on(path: str, seconds: float) -> None:
    """Adds to a file as long as it runs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with open(path, "a") as file:
            file.write("x")
        time.sleep(0.05)


def hold_the_interpreter(seconds: float) -> None:
    """Computes in C without letting any other thread run, for about so long."""
    time.sleep(1)
    begun = time.monotonic()
    sum(itertools.repeat(0, 20_000_000))
    sum(itertools.repeat(0, int(20_000_000 * seconds / (time.monotonic() - begun))))


def exit_with(code: int) -> None:
    os._exit(code)


def abort() -> None:
    os.abort()


def hold_sockets(path: str, seconds: float) -> None:
    """Copies the process as a C library does: Python does not notice, and nothing is closed."""
    # Holds the interpreter, and has nobody ask for it: were it with another thread, or promised to
    # one, the copy would wait for ever for what only this process has.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(600)
    time.sleep(0.05)
    if ctypes.PyDLL(None).fork() == 0:
        Path(path).write_text(str(os.getpid()))
        time.sleep(seconds)
        os._exit(0)
    sys.setswitchinterval(interval)
    while not Path(path).exists():
        time.sleep(0.01)
    time.sleep(seconds)


class Reluctant:
    """Takes for ever to be unpacked."""

    def __setstate__(self, state: object) -> None:
        time.sleep(600)

    def __getstate__(self) -> str:
        return "some"


class Mute(Exception):
    """Says what it is about once it is allowed to."""

    allowed = threading.Event()

    def __str__(self) -> str:
        self.allowed.wait(60)
        return "late"


def raise_mute() -> None:
    raise Mute


def misbehave() -> int:
    """Changes what all calls of its process share."""
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    os.rmdir(folder)
    os.umask(0o777)
    sys.setrecursionlimit(5_000)
    sys.stdout.close()
    sys.stdout = None  # as a program without a console has it
    return os.getpid()


def manners() -> tuple[int, str, int, int]:
    print("heard")
    umask = os.umask(0)
    os.umask(umask)
    return os.getpid(), os.getcwd(), umask, sys.getrecursionlimit()


_files: list[Any] = []


def use_up_files() -> None:
    with contextlib.suppress(OSError):
        while True:
            _files.append(open(os.devnull))  # noqa: SIM115 - that it stays open is the point
