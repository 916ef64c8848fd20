"""Why a worker process died: what it noted before, and what is told of its machine afterwards."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from raflow.execute._failure import MACHINERY

_FAULTS: Final = {
    "Segmentation fault": signal.SIGSEGV,
    "Aborted": signal.SIGABRT,
    "Bus error": signal.SIGBUS,
    "Floating-point exception": signal.SIGFPE,
    "Floating point exception": signal.SIGFPE,
    "Illegal instruction": signal.SIGILL,
}
_FAULT: Final = re.compile(r"^Fatal Python error: (.+)$", re.MULTILINE)
_CURRENT: Final = re.compile(
    r"^(?:Current thread .*|Stack) \(most recent call first\):$", re.MULTILINE
)
_INSTALLED: Final = re.compile(r"/lib(?:64)?/python3[.\d]*/")
"""The path of a library on any machine, which need not be this one."""
_FRAME: Final = re.compile(r'^  File "(.+)", line (\d+) in (\S+)$', re.MULTILINE)
_COUNT: Final = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


class Fault(NamedTuple):
    """A signal that the code of a process has caused."""

    signal: signal.Signals | None
    text: str
    """The interpreter's name for it."""
    where: str
    """Function, file and line of the user's that ran; empty if that is not known."""


def watch_faults(path: str) -> None:
    """Have the interpreter write into a file which signal ends this process, and where it was.

    Raises:
        OSError: There is no place for the file.
    """
    file = os.open(
        path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    os.write(file, f"counter {oom_counter()}\n".encode())
    faulthandler.enable(file=file, all_threads=False)


def watch_exit(note: Callable[[int], None]) -> None:
    """Have a note made of the code with which this process ends itself by `os._exit`."""
    exit_now, pid = os._exit, os.getpid()

    def noting(status: int) -> NoReturn:
        if os.getpid() == pid:
            with contextlib.suppress(Exception):
                note(status)
        exit_now(status)

    known: Any = os
    known._exit = noting


def fault_in(text: str) -> Fault | None:
    """Read what `watch_faults` has had written; None if there was no fault."""
    told = _FAULT.search(text)
    if told is None:
        return None
    after = _CURRENT.search(text, told.end())
    frames = _FRAME.findall(text[after.end() :]) if after else []
    frames = [frame for frame in frames if not frame[0].startswith(MACHINERY)]
    own = [frame for frame in frames if not _INSTALLED.search(frame[0])]
    path, line, name = [*own, *frames, ("", "", "")][0]
    return Fault(_FAULTS.get(told[1]), told[1], f"{name} ({path}:{line})" if path else "")


def counter_in(text: str) -> str:
    """Return the file of the counter that `watch_faults` noted; empty if there is none."""
    first = text.partition("\n")[0]
    return first.removeprefix("counter ") if first.startswith("counter ") else ""


def oom_counter() -> str:
    """Return the file in which the kernel counts what it kills here for want of memory.

    That of this process's control group, or of the whole machine. Empty if none can be read.
    """
    candidates = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                candidates.append(f"/sys/fs/cgroup{path}/memory.events")
            elif "memory" in controllers.split(","):
                candidates.append(f"/sys/fs/cgroup/memory{path}/memory.oom_control")
    candidates += ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"]
    candidates.append("/proc/vmstat")
    return next((path for path in candidates if oom_kills(path) is not None), "")


def oom_kills(counter: str) -> int | None:
    """Return how many processes the kernel has killed for want of memory; None if unknown."""
    try:
        told = _COUNT.search(Path(counter).read_text())
    except (OSError, ValueError):
        return None
    return int(told[1]) if told else None
