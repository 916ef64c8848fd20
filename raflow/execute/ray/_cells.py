"""Which call of a batch runs, where it can be read after the process has died.

Each worker process keeps a small file in shared memory and writes to it before each call, which
costs as much as storing a number. The kernel keeps the file when the process is gone.
"""

from __future__ import annotations

import contextlib
import glob
import mmap
import os
import struct
import tempfile
import time
from collections.abc import Iterable, MutableSequence
from typing import Final

from raflow.execute._course import LANES

_MAGIC: Final = 0x7261666C6F7701
_HEAD: Final = 4
"""Numbers before the lanes: magic, pid, session, batch."""
_FORM: Final = struct.Struct(f"<{_HEAD + LANES + 1}q")
_NONE: Final = -1
_KEPT_SECONDS: Final = 86400.0


class Cell:
    """The cell of this process."""

    def __init__(self, token: str) -> None:
        """Make its file.

        Args:
            token: Part of the file's name, the same for all processes of a backend.

        Raises:
            OSError: There is no place for it.
        """
        path = _path(_folder(), token, os.getpid())
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.truncate(file, _FORM.size)
            self._map = mmap.mmap(file, _FORM.size)
        finally:
            os.close(file)
        self._numbers = memoryview(self._map).cast("q")
        self._numbers[1] = os.getpid()
        self.end()
        self._numbers[0] = _MAGIC
        self.lanes: MutableSequence[int] = self._numbers[_HEAD:]  # type: ignore[assignment]  # a memoryview is one
        """The positions that run, -1 in an empty lane; the last number counts those without one."""

    def begin(self, session: int, batch: int) -> None:
        """Say whose positions follow."""
        self._numbers[2] = session
        self._numbers[3] = batch

    def end(self) -> None:
        """Say that no batch runs."""
        self._numbers[3] = _NONE
        for lane in range(_HEAD, len(self._numbers)):
            self._numbers[lane] = _NONE


def running(token: str, session: int, batch: int) -> list[int] | None:
    """Return the positions of a batch's calls that run, or ran when their process died.

    The file of a dead process is removed when it has answered, or has nothing to tell.

    Returns:
        None if no process of this machine has run the batch last, or too many calls of it ran.
    """
    found: list[int] | None = None
    for path in _files(token):
        numbers = _read(path)
        if numbers is None:
            continue
        _, pid, its_session, its_batch, *lanes = numbers
        asked = (its_session, its_batch) == (session, batch)
        if asked and lanes[LANES] == _NONE:
            found = sorted(position for position in lanes[:LANES] if position != _NONE)
        if (asked or its_batch == _NONE) and not _lives(pid):
            _remove(path)
    return found


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


def _folder() -> str:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()  # noqa: S108 - memory that processes share


def _path(folder: str, token: str, pid: int | str) -> str:
    return os.path.join(folder, f"raflow-{token}-{pid}.cell")


def _files(token: str) -> Iterable[str]:
    return glob.glob(_path(_folder(), token, "*"))


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


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
