"""The processes that calls have started, found by what they inherit, and ended with their call.

A process that a call starts carries the call's mark: in its environment if it runs another program,
as the name of a mapped piece of memory if it is a copy of the worker process. Both go on to what it
starts in turn, and neither is lost when it detaches itself from its parents.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, NamedTuple

from raflow.execute._processes import (
    Process,
    end,
    process,
    processes,
    started_since,
    with_descendants,
)
from raflow.model import ProcessInfo, TaskRunKey

MARK: Final = "RAFLOW_TASK_RUN"
"""Environment variable: `<flow run>/<node>/<item>/<attempt>`, item -1 for a single call."""
GRACE_SECONDS: Final = 3.0
"""Between SIGTERM and SIGKILL."""
FORCE_GRACE_SECONDS: Final = 1.0
"""The same where the call itself is ended by force."""

_SAME_SECONDS: Final = 1.0
"""How far the start of a process may seem to move: it is told in ticks, and clocks are set."""
_STARTS: Final = frozenset(
    {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.exec"}
)
_IN_ENVIRONMENT: Final = re.compile(rb"(?:^|\0)" + MARK.encode() + rb"=([^\0]*)")
_IN_MEMORY: Final = re.compile(rb"/memfd:" + MARK.encode() + rb"=(\S*)")


class Origin(NamedTuple):
    """Whose offspring is meant."""

    mark: str
    since: float
    """When the call began: seconds since the Unix epoch."""
    thread: int | None
    """The kernel's id of the thread that ran it alone; None if it shared its event loop."""


def mark_of(flow_run_id: str, run: TaskRunKey, attempt: int) -> str:
    """Return the mark of an attempt."""
    return f"{flow_run_id}/{run.node}/{run.map_index}/{attempt}"


def mark_children(find: Callable[[], str | None], lines: Callable[[], Iterable[int]]) -> None:
    """Mark what this process starts from now on, on Linux; it cannot be undone.

    Copies of this process let go of the sockets that it has by now: as long as they are held open,
    nobody at their other ends sees that this process has died.

    Args:
        find: Returns the mark of the call that this code is part of, None if it is part of none.
        lines: Returns more such sockets, made later.
    """
    if not os.path.isdir("/proc/self/fd"):
        return
    own = _sockets()

    def note(event: str, _: tuple[Any, ...]) -> None:
        if event in _STARTS:
            with contextlib.suppress(Exception):  # it would fail what the user wants to do
                _set_mark(find())

    sys.addaudithook(note)

    def become_child() -> None:
        now = _sockets()
        for file in {*(file for file, name in own.items() if now.get(file) == name), *lines()}:
            with contextlib.suppress(OSError):
                os.close(file)
        _mark_memory()

    os.register_at_fork(after_in_child=become_child)


def forget_mark() -> None:
    """Forget whose the last child was: what is started unseen is not taken for that one's."""
    os.environ.pop(MARK, None)


def marked(wanted: Callable[[str], bool], *, since: float) -> list[Process]:
    """Return the processes of this machine that carry a mark.

    Args:
        wanted: Tells whether a mark counts.
        since: Processes that began earlier are not looked at: seconds since the Unix epoch.
    """
    own = os.getpid()
    return [
        one
        for one in started_since(since)
        if one.pid != own and any(wanted(mark) for mark in _marks(one.pid))
    ]


def end_marked(marks: Collection[str], *, since: float, grace: float = GRACE_SECONDS) -> int:
    """End what is left of attempts whose process is gone; returns how many processes that were."""
    left = marked(marks.__contains__, since=since)
    if left:
        end(with_descendants(left, processes()), grace)
    return len(left)


def end_left_behind(
    flow_run_ids: Collection[str], noted: Iterable[ProcessInfo] = (), *, since: float = 0.0
) -> int:
    """End what flow runs whose process is gone have left behind on this machine.

    These are the noted processes as far as they are still the same ones, what carries a mark of the
    runs, and what they have started. Each gets SIGTERM and, a few seconds later, SIGKILL.

    Args:
        flow_run_ids: A run and its subflows.
        noted: Processes that worked for them, on any machine. Default: none is known.
        since: When they began, which saves looking at older processes. Default: look at all.

    Returns:
        How many processes there were.
    """
    host = socket.gethostname()
    left = [found for one in noted if one.host == host and (found := same_process(one))]
    left += marked(lambda mark: mark.partition("/")[0] in flow_run_ids, since=since)
    victims = with_descendants(left, processes()) if left else []
    # Whoever clears up may have been started, long ago, by what it ends.
    victims = [one for one in victims if one.pid != os.getpid()]
    end(victims, GRACE_SECONDS)
    return len(victims)


def same_process(noted: ProcessInfo) -> Process | None:
    """Return a process that was noted on this machine; None if it is not there any more."""
    found = process(noted.pid)
    if found is None or abs(found.started_at - noted.started_at) > _SAME_SECONDS:
        return None
    return found


def started_by(threads: Iterable[int]) -> list[Process]:
    """Return what threads of this process, by the kernel's ids, have started; and what that has."""
    pids: set[int] = set()
    for thread in threads:
        pids |= _children_of(thread)
    if not pids:
        return []
    everything = list(processes())
    return with_descendants((one for one in everything if one.pid in pids), everything)


class Offspring:
    """Ends what the calls of a batch have started."""

    def __init__(self, find: Callable[[Origin], Iterable[Process]]) -> None:
        """Prepare it; `find` returns the processes that a call has started itself."""
        self._find = find
        self._lock = threading.Lock()
        self._ending: list[threading.Thread] = []

    def end(self, origin: Origin, grace: float = GRACE_SECONDS) -> None:
        """Begin to end what a call has started; `wait` waits until that is done."""
        roots = list(self._find(origin))
        if not roots:
            return
        victims = with_descendants(roots, processes())
        thread = threading.Thread(
            target=end, args=(victims, grace), name="raflow-offspring", daemon=True
        )
        thread.start()
        with self._lock:
            self._ending.append(thread)

    def wait(self) -> None:
        """Wait until all is ended; bounded by the grace."""
        with self._lock:
            ending, self._ending = self._ending, []
        for thread in ending:
            thread.join()


def of_process(origin: Origin) -> list[Process]:
    """Return what carries the mark of a call, and children without one if it ran alone."""
    own = os.getpid()
    found = []
    for one in started_since(origin.since):
        if one.pid != own:
            marks = _marks(one.pid)
            unmarked = origin.thread is not None and one.parent == own and not marks
            if unmarked or origin.mark in marks:
                found.append(one)
    return found


def of_thread(origin: Origin) -> list[Process]:
    """Return what a call has started on its thread; what has detached itself is not found."""
    pids = set() if origin.thread is None else _children_of(origin.thread)
    return [one for one in started_since(origin.since) if one.pid in pids] if pids else []


def _children_of(thread: int) -> set[int]:
    try:
        with open(f"/proc/self/task/{thread}/children", "rb") as file:
            return {int(pid) for pid in file.read().split()}
    except OSError:
        return set()


def _marks(pid: int) -> set[str]:
    found: set[str] = set()
    for path, pattern in (
        (f"/proc/{pid}/environ", _IN_ENVIRONMENT),
        (f"/proc/{pid}/maps", _IN_MEMORY),
    ):
        try:
            with open(path, "rb") as file:
                found.update(mark.decode(errors="replace") for mark in pattern.findall(file.read()))
        except OSError:
            continue
    return found


def _sockets() -> dict[int, str]:
    """Return the sockets that this process holds, and the kernel's names of them."""
    found: dict[int, str] = {}
    for file in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            name = os.readlink(f"/proc/self/fd/{file}")
            if name.startswith("socket:"):
                found[int(file)] = name
    return found


def _set_mark(mark: str | None) -> None:
    if mark is None:
        os.environ.pop(MARK, None)
    elif os.environ.get(MARK) != mark:
        os.environ[MARK] = mark


_kept: Final[list[mmap.mmap]] = []
"""Memory whose name is a mark."""


def _mark_memory() -> None:
    mark = os.environ.get(MARK)
    if mark is None:
        return
    with contextlib.suppress(OSError):
        file = os.memfd_create(f"{MARK}={mark}")
        try:
            os.truncate(file, mmap.PAGESIZE)
            _kept.append(mmap.mmap(file, mmap.PAGESIZE, prot=mmap.PROT_READ))
        finally:
            os.close(file)
