"""Bundles as directories, which processes of this machine share."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from raflow import errors
from raflow.bundles._archive import Archive
from raflow.bundles._manifest import Entry, Limits, Manifest, checked_digest

_MANIFEST: Final = "MANIFEST"
_FILES: Final = "files"
_CHUNK: Final = 1 << 20
_NO_LIMITS: Final = Limits()


def unpack(
    source: IO[bytes], digest: str, where: Path | str, *, limits: Limits = _NO_LIMITS
) -> Path:
    """Return a directory with the files of a bundle, which nobody may write to.

    It is named after the bundle, so all processes share it, and it is there whole or not at all,
    wherever this process dies. One that is there already is compared with its manifest, file by
    file; if it was damaged, it is made anew. Nothing is read from `source` if it is whole.

    Args:
        source: The archive.
        digest: The name of the bundle.
        where: The directory that bundles are unpacked in; made if need be.
        limits: How large it may be.

    Raises:
        BundleError: The archive holds something else than its manifest says, or there is no space.
        BundleMismatchError: It is another bundle than that.
    """
    target = Path(where, checked_digest(digest))
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(target.with_name(f".{digest}.lock")):
            if not _is_whole(target, digest, limits):
                _renew(Archive(source, digest, limits), target)
    except OSError as error:
        raise errors.BundleError(
            f"Bundle {digest!r} cannot be unpacked in {str(where)!r}: {error.strerror or error}. "
            "Let this user write there, and make room.",
            digest=digest,
        ) from error
    return target / _FILES


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait until no other process unpacks this bundle. The lock ends with its process."""
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _renew(archive: Archive, target: Path) -> None:
    # Only the holder of the lock has a draft: what lies there is that of a process that died.
    draft = target.with_name(f".{target.name}.draft")
    _remove(draft)
    try:
        _write_all(archive, draft)
        if target.exists():
            damaged = target.with_name(f".{target.name}.damaged")
            _remove(damaged)
            target.rename(damaged)
            draft.rename(target)
            _remove(damaged)
        else:
            draft.rename(target)
    except BaseException:
        _remove(draft)
        raise


def _write_all(archive: Archive, draft: Path) -> None:
    (draft / _FILES).mkdir(mode=0o700, parents=True)
    for entry, contents in archive.members():
        path = draft / _FILES / entry.path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(path, contents, executable=entry.executable)
    _write(draft / _MANIFEST, iter([archive.manifest.text]), executable=False)
    for folder, _, _ in os.walk(draft, topdown=False):
        Path(folder).chmod(0o500)


def _write(path: Path, contents: Iterator[bytes], *, executable: bool) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        for piece in contents:
            file.write(piece)
        os.fchmod(file.fileno(), 0o500 if executable else 0o400)


def _is_whole(target: Path, digest: str, limits: Limits) -> bool:
    """Whether a directory holds what its name says: its disk or somebody may have changed it."""
    try:
        text = (target / _MANIFEST).read_bytes()
    except FileNotFoundError:
        return False
    if hashlib.sha256(text).hexdigest() != digest:
        return False
    entries = Manifest.parse(text, limits).entries
    return all(_is_as(entry, target / _FILES / entry.path) for entry in entries)


def _is_as(entry: Entry, path: Path) -> bool:
    seen = hashlib.sha256()
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    with os.fdopen(handle, "rb") as file:
        if os.fstat(handle).st_size != entry.size:
            return False
        while piece := file.read(_CHUNK):
            seen.update(piece)
    return seen.hexdigest() == entry.sha256


def _remove(folder: Path) -> None:
    """Remove a directory that nobody may write to, if it is there."""
    for path, _, _ in os.walk(folder):
        Path(path).chmod(0o700)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
