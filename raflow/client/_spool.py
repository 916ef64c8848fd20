"""Batches on disk that the service has not confirmed.

A directory for each root run, named after it: a file for each batch, numbered in the order in which
they were made, `service.json` with where they go, and `lock`, which whoever sends them keeps.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Self

from raflow import errors
from raflow._util import crash_point

_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
_NUMBERED: Final = re.compile(r"(\d{12})\.rfb")
_LENGTH: Final = struct.Struct("<I")
_REFUSED: Final = "refused"


class Batch(NamedTuple):
    """A batch that waits."""

    path: Path
    flow_run_id: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What of a root run waits to be sent."""

    root_id: str
    url: str
    """The service that it is for."""
    batches: int
    size: int
    """Bytes."""
    is_being_sent: bool
    """Whether a living process looks after it."""


class Spool:
    """All that waits on this machine."""

    def __init__(self, directory: Path) -> None:
        """Take the directory; it is made when the first batch has to wait."""
        self._directory = directory

    def of(self, root_id: str, url: str) -> RunSpool:
        """Return what waits of a root run; nobody else may use it as long as anything does."""
        return RunSpool(self._directory, root_id, url)

    def left_behind(self, url: str, only: str = "") -> Iterator[RunSpool]:
        """Yield what processes that are gone have left for a service; it is locked then.

        Args:
            url: The service.
            only: The root run to look for. Default: all.
        """
        for found in self._all():
            if found.url != url or only not in {"", found.root_id} or not found.lock():
                continue
            if len(found):
                yield found
            else:
                found.clear()

    def waiting(self) -> list[Waiting]:
        """Return what waits, by root run."""
        return [
            Waiting(
                root_id=found.root_id,
                url=found.url,
                batches=len(found),
                size=found.size,
                is_being_sent=found.is_locked_by_others(),
            )
            for found in self._all()
        ]

    def _all(self) -> Iterator[RunSpool]:
        try:
            folders = sorted(self._directory.iterdir())
        except OSError:
            return
        for folder in folders:
            if folder.name != _REFUSED and (found := RunSpool.read(folder)) is not None:
                yield found


class RunSpool:
    """Batches of one root run and its subflows, the oldest first; for one thread at a time."""

    def __init__(self, directory: Path, root_id: str, url: str, token: str = "") -> None:
        self._base = directory
        self._folder = directory / _folder_name(root_id)
        self.root_id = root_id
        self.url = url
        self.token = token
        """With which they are sent."""
        self._locked: int | None = None
        self._sizes: dict[int, int] = {}
        self._next = 0

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return what is in a folder of the spool; None if nothing is."""
        try:
            about = json.loads((folder / "service.json").read_bytes())
            found = cls(folder.parent, about["root"], about["url"], about["token"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if found._folder != folder:
            return None
        found._look()
        return found

    def __len__(self) -> int:
        return len(self._sizes)

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return sum(self._sizes.values())

    @property
    def folder(self) -> Path:
        """Where they are."""
        return self._folder

    def lock(self) -> bool:
        """Be the one who sends them; False if somebody else is. Looks at what is there then."""
        if self._locked is not None:
            return True
        descriptor = self._try_lock()
        if descriptor is None:
            return False
        self._locked = descriptor
        self._look()
        return True

    def is_locked_by_others(self) -> bool:
        """Whether a living process sends them."""
        if self._locked is not None or not self._folder.exists():
            return False
        descriptor = self._try_lock()
        if descriptor is None:
            return True
        os.close(descriptor)
        return False

    def put(self, flow_run_id: str, content: bytes) -> None:
        """Add a batch; it is on disk on return.

        Raises:
            StoreError: The disk is full, or cannot be written.
        """
        crash_point("spool.before_write")
        try:
            self._put(flow_run_id, content)
        except OSError as error:
            raise errors.StoreError(
                f"The service at {self.url} is away, and what it is to record cannot be kept in "
                f"{self._folder} meanwhile: {error.strerror}. Free space there, or set "
                "RAFLOW_HOME."
            ) from error
        crash_point("spool.after_write")

    def first(self) -> Batch | None:
        """Return the oldest batch; None if nothing waits.

        Raises:
            StoreError: It cannot be read.
            BatchError: It is damaged.
        """
        if not self._sizes:
            return None
        path = self._path(min(self._sizes))
        try:
            data = path.read_bytes()
        except OSError as error:
            raise errors.StoreError(f"{path} cannot be read: {error.strerror}.") from error
        try:
            (length,) = _LENGTH.unpack_from(data)
            end = _LENGTH.size + length
            run_id = data[_LENGTH.size : end].decode("utf-8", "surrogatepass")
        except (struct.error, UnicodeDecodeError) as error:
            raise errors.BatchError(f"{path} is damaged: {error}.") from error
        return Batch(path, run_id, data[end:])

    def remove_first(self) -> None:
        """Remove the oldest batch: it is on record."""
        crash_point("spool.before_remove")
        number = min(self._sizes)
        self._path(number).unlink(missing_ok=True)
        del self._sizes[number]
        if not self._sizes:
            self.clear()

    def refuse(self) -> Path:
        """Put all that waits aside: the service will never take it. Returns where it is."""
        aside = self._base / _REFUSED / f"{self._folder.name}-{self._next:012}"
        aside.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in self._sizes:
            with contextlib.suppress(OSError):
                self._path(number).replace(aside / self._path(number).name)
        self._sizes.clear()
        self.clear()
        return aside

    def let_go(self) -> None:
        """Leave it to others."""
        if self._locked is not None:
            os.close(self._locked)
            self._locked = None

    # --- Files ------------------------------------------------------------------------------------

    def _put(self, flow_run_id: str, content: bytes) -> None:
        if self._locked is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self.lock():
                raise BlockingIOError(0, "another process uses it")
            about = {"root": self.root_id, "url": self.url, "token": self.token}
            self._write(self._folder / "service.json", json.dumps(about).encode())
        name = flow_run_id.encode("utf-8", "surrogatepass")
        data = b"".join([_LENGTH.pack(len(name)), name, content])
        self._write(self._path(self._next), data)
        self._sizes[self._next] = len(data)
        self._next += 1

    def _write(self, path: Path, data: bytes) -> None:
        """Write a file for its owner alone; it is whole, and on disk, or not there."""
        partly = path.with_suffix(".part")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            with open(os.open(partly, flags, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partly.replace(path)
        except OSError:
            partly.unlink(missing_ok=True)
            raise
        folder = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:012}.rfb"

    def _look(self) -> None:
        self._sizes = {}
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                if found := _NUMBERED.fullmatch(path.name):
                    self._sizes[int(found[1])] = path.stat().st_size
        self._next = max(self._sizes, default=self._next - 1) + 1

    def _try_lock(self) -> int | None:
        path = self._folder / "lock"
        while True:
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                return None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                same = os.path.samestat(os.fstat(descriptor), path.stat())
            except BlockingIOError:
                os.close(descriptor)
                return None
            except FileNotFoundError:
                same = False
            if same:
                return descriptor
            os.close(descriptor)  # whoever had it has removed it, with all that was in it

    def clear(self) -> None:
        """Remove the folder, as nothing is left in it."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self.let_go()


def _folder_name(root_id: str) -> str:
    if _SAFE_NAME.fullmatch(root_id) and root_id != _REFUSED:
        return root_id
    return hashlib.sha256(root_id.encode("utf-8", "surrogatepass")).hexdigest()
