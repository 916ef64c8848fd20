"""Which call of a batch runs, and how its process fares, to be read after that has died.

Each worker process keeps a small file in shared memory and writes to it before each call, which
costs as much as storing a number. The kernel keeps the file when the process is gone.
"""

from __future__ import annotations

import contextlib
import glob
import mmap
import os
import socket
import struct
import tempfile
import time
from collections.abc import Iterable, MutableSequence
from pathlib import Path
from typing import Final, NamedTuple

from raflow.execute._course import LANES, LEFT
from raflow.execute._processes import process
from raflow.execute.ray._blackbox import (
    counter_in,
    oom_counter,
    oom_kills,
    watch_exit,
    watch_faults,
)

_MAGIC: Final = 0x7261666C6F7701
_HEAD: Final = 10
"""Numbers before the lanes: magic, pid, session, batch, exit code, peak memory, processes that the
kernel had killed before for want of memory, the signal that the process heeds, since when it is
idle, -1 while its batch runs, and when its death was first asked about: seconds since the Unix
epoch."""
_FORM: Final = struct.Struct(f"<{_HEAD + LANES + 1}q")
_NONE: Final = -1
_KEPT_SECONDS: Final = 86400.0
_ASKED: Final = 9
_ANSWERED_SECONDS: Final = 600.0
"""How long a dead process can be asked about again: several may want to know at once."""
_IDLE_KEPT_SECONDS: Final = 3600.0
"""How long it is known of a process that it has ended its last batch: as long as Ray's word about
that, or about the next one, may take."""


class Remains(NamedTuple):
    """What is left of a process."""

    running: list[int] | None
    """Positions of the calls that ran; empty: none had begun; None: too many to know, all that ran
    were over, or the batch had ended."""
    pid: int
    host: str
    exit_code: int | None
    """The code with which it ended itself, if it did so from Python."""
    signal: int | None
    """The signal that asked it to end, if it ended for that."""
    peak_memory: int
    """Bytes, as it last noted; 0 if it has not."""
    fault: str
    """What the interpreter wrote about a signal that the code caused; see `fault_in`."""
    oom_counter: str
    """Where the kernel counts what it kills for want of memory."""
    oom_kills: tuple[int, int] | None
    """How many those were when the process began, and when this was read."""


class Cell:
    """The cell of this process."""

    def __init__(self, token: str) -> None:
        """Make its file.

        Args:
            token: Part of the file's name, the same for all processes of a backend.

        Raises:
            OSError: There is no place for it.
        """
        path, self._map = _make(token)
        self._numbers = memoryview(self._map).cast("q")
        self._numbers[1] = os.getpid()
        for number in (3, 4, 7, _ASKED):
            self._numbers[number] = _NONE
        self.end()
        self._path = path
        self._numbers[0] = _MAGIC
        self.lanes: MutableSequence[int] = self._numbers[_HEAD:]  # type: ignore[assignment]  # a memoryview is one
        """The positions that run; -1 in a lane in which none has run, `LEFT` in one whose call is
        over. The last number counts those without a lane."""

    def begin(self, session: int, batch: int) -> None:
        """Say whose positions follow."""
        self._numbers[2] = session
        self._numbers[3] = batch
        self._numbers[8] = _NONE

    def watch(self) -> None:
        """Note from now on how this process ends, as far as it can itself."""
        with contextlib.suppress(OSError):
            watch_faults(_fault_path(self._path))
        self._numbers[6] = oom_kills(oom_counter()) or 0
        watch_exit(self.note_exit)

    def note_exit(self, code: int) -> None:
        """Say with which code the process is about to end itself."""
        self._numbers[4] = code

    def note_signal(self, number: int) -> None:
        """Say for which signal the process is about to end itself."""
        self._numbers[7] = number

    def note_peak(self, size: int) -> None:
        """Say how much memory the process has used at most: bytes."""
        self._numbers[5] = size

    def end(self) -> None:
        """Say that no batch runs; which one was the last stays known."""
        self._numbers[8] = int(time.time())
        for lane in range(_HEAD, len(self._numbers)):
            self._numbers[lane] = _NONE


def running(token: str, session: int, batch: int) -> list[int] | None:
    """Return the positions of a batch's calls that run, or ran when their process died.

    Returns:
        None if no process of this machine has run the batch last, or too many calls of it ran.
    """
    found = remains(token, session, batch)
    return None if found is None else found.running


def under_way(token: str, session: int) -> dict[int, list[int]]:
    """Return which positions of a session's batches run, or ran when their process died."""
    found: dict[int, list[int]] = {}
    for path in _files(token):
        numbers = _read(path)
        if numbers is not None and numbers[2] == session and numbers[8] == _NONE:
            lanes = numbers[_HEAD:][:LANES]
            found[numbers[3]] = sorted(lane for lane in lanes if lane >= 0)
    return found


def remains(token: str, session: int, batch: int) -> Remains | None:
    """Return what is known of the process that has run a batch last; None if it was not here.

    The files of a dead process are removed some time after it has answered, or when it has nothing
    to tell any more.
    """
    found: Remains | None = None
    for path in _files(token):
        numbers = _read(path)
        if numbers is None:
            continue
        asked = numbers[2:4] == (session, batch)
        if asked:
            found = _remains(path, numbers)
        if _lives(numbers[1]):
            continue
        if _is_over(since=numbers[_ASKED], kept=_ANSWERED_SECONDS) or _is_over(
            since=numbers[8], kept=_IDLE_KEPT_SECONDS
        ):
            _remove(path)
        elif asked and numbers[_ASKED] == _NONE:
            _note_asked(path)
    return found


def _is_over(*, since: int, kept: float) -> bool:
    return since != _NONE and time.time() - since > kept


def _note_asked(path: str) -> None:
    with contextlib.suppress(OSError), open(path, "r+b") as file:
        file.seek(_ASKED * 8)
        file.write(struct.pack("<q", int(time.time())))


def died_otherwise(token: str, session: int, batch: int) -> bool:
    """Tell whether a process of this machine has died with another batch, or between two."""
    asked = (session, batch)
    read = [numbers for path in _files(token) if (numbers := _read(path)) is not None]
    return any((n[8] != _NONE or n[2:4] != asked) and process(n[1]) is None for n in read)


def _remains(path: str, numbers: tuple[int, ...]) -> Remains:
    _, pid, _, _, code, peak, before, heeded, ended, _, *lanes = numbers
    text = ""
    with contextlib.suppress(OSError):
        text = Path(_fault_path(path)).read_text(errors="replace")
    counter = counter_in(text)
    after = oom_kills(counter) if counter else None
    positions = sorted(lane for lane in lanes[:LANES] if lane >= 0)
    crowded = lanes[LANES] != _NONE
    known = ended == _NONE and not crowded and (positions or LEFT not in lanes)
    return Remains(
        running=positions if known else None,
        pid=pid,
        host=socket.gethostname(),
        exit_code=None if code == _NONE else code,
        signal=None if heeded == _NONE else heeded,
        peak_memory=peak,
        fault=text,
        oom_counter=counter,
        oom_kills=None if after is None else (before, after),
    )


def sweep(token: str) -> None:
    """Remove the files of a backend that is closed, and what dead processes left long ago."""
    for path in _files(token):
        _remove(path)
    for path in _files("*"):
        numbers = _read(path)
        with contextlib.suppress(OSError):
            old = time.time() - os.stat(path).st_mtime > _KEPT_SECONDS
            if old and numbers is not None and not _lives(numbers[1]):
                _remove(path)


def _make(token: str) -> tuple[str, mmap.mmap]:
    """Make a file in the first folder that takes it."""
    causes = []
    for folder in _folders():
        path = _path(folder, token, os.getpid())
        try:
            return path, _mapped(path)
        except OSError as error:
            causes.append(str(error))
            _remove(path)
    raise OSError(
        f"this process cannot keep note of what it runs: {'; '.join(causes)}. Make room there, or "
        "let the process write there"
    )


def _mapped(path: str) -> mmap.mmap:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        # A hole would be filled by the first write, which ends the process if there is no room.
        os.posix_fallocate(file, 0, _FORM.size)
        return mmap.mmap(file, _FORM.size)
    finally:
        os.close(file)


def _folders() -> tuple[str, str]:
    return "/dev/shm", tempfile.gettempdir()  # noqa: S108 - memory that processes share


def _path(folder: str, token: str, pid: int | str) -> str:
    return os.path.join(folder, f"raflow-{token}-{pid}.cell")


def _files(token: str) -> Iterable[str]:
    return [path for folder in _folders() for path in glob.glob(_path(folder, token, "*"))]


def _read(path: str) -> tuple[int, ...] | None:
    try:
        with open(path, "rb") as file:
            data = file.read(_FORM.size)
    except OSError:
        return None
    numbers = _FORM.unpack(data) if len(data) == _FORM.size else (0,)
    return numbers if numbers[0] == _MAGIC else None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _fault_path(path: str) -> str:
    return path.removesuffix(".cell") + ".fault"


def _remove(path: str) -> None:
    for one in (_fault_path(path), path):
        with contextlib.suppress(OSError):
            os.unlink(one)
