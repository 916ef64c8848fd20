"""Bundles made of directories."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import zstandard

from raflow import errors
from raflow.bundles._archive import END, MANIFEST, PREFIX, header, padding
from raflow.bundles._manifest import Entry, Limits, Manifest
from raflow.bundles._walk import Found, Walk, rules_of, unreadable

_CHUNK: Final = 1 << 20
_LEVEL: Final = 3
_NO_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A directory that was read and named; its archive is made when somebody asks for it."""

    manifest: Manifest
    left_out: tuple[str, ...]
    """What somebody may miss in it, a sentence each: files that look like secrets, sockets."""
    files: tuple[Path, ...]
    """Where the contents of the manifest's entries are, in its order."""

    def chunks(self) -> Iterator[bytes]:
        """Return the archive, piece by piece: a tar in zstd, with the manifest first.

        Raises:
            BundleError: A file has changed since it was read.
        """
        compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compressobj()
        for piece in self._tar():
            packed = compressor.compress(piece)
            if packed:
                yield packed
        yield compressor.flush()

    def _tar(self) -> Iterator[bytes]:
        text = self.manifest.text
        yield header(MANIFEST, len(text)) + text + padding(len(text))
        for entry, file in zip(self.manifest.entries, self.files, strict=True):
            yield header(PREFIX + entry.path, entry.size, executable=entry.executable)
            seen, size = hashlib.sha256(), 0
            for piece in _pieces(file, entry.path):
                seen.update(piece)
                size += len(piece)
                if size > entry.size:
                    break
                yield piece
            if (size, seen.hexdigest()) != (entry.size, entry.sha256):
                raise _changed(entry.path)
            yield padding(size)
        yield END


def pack(
    root: Path | str,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    limits: Limits = _NO_LIMITS,
) -> Packed:
    """Read a directory and name it after its contents.

    Left out are what `.gitignore` and `.raflowignore` name (in the directory, below it, and above
    it up to the top of its git repository), version control, virtual environments, caches of
    Python and its tools, and files whose names are those of secrets. A link counts as what it leads
    to, which must be in the directory.

    Args:
        root: The directory.
        include: Paths of files, from the root, that go into the bundle in any case.
        exclude: Patterns as in a `.raflowignore` of the root; they have the last word over the
            ignore files.
        limits: How large the bundle may be.

    Raises:
        BundleError: A file cannot be read, cannot be unpacked everywhere or changes while it is
            read; a link leads elsewhere; there is nothing, or too much. The message names the file
            and a remedy.
    """
    top = Path(os.path.realpath(root))
    if not top.is_dir():
        raise errors.BundleError(f"{str(root)!r} is no directory, so no bundle can be made of it.")
    base, rules = rules_of(top, exclude)
    walk = Walk(root=top, include=frozenset(include), limits=limits, base=base)
    found = {each.path: each for each in walk.files(rules)}
    if not found:
        raise errors.BundleError(
            f"There is no file in {str(root)!r} that is not left out. Look at its .gitignore and "
            ".raflowignore, and at those of the folders above it."
        )
    # What is too large is known before it is read.
    sizes = [Entry(path=each.path, size=each.size, sha256="") for each in found.values()]
    Manifest.of(sizes, limits)
    manifest = Manifest.of(map(_entry, found.values()), limits)
    return Packed(
        manifest=manifest,
        left_out=tuple(walk.left_out),
        files=tuple(found[entry.path].file for entry in manifest.entries),
    )


def _entry(found: Found) -> Entry:
    """Read a file; once more if it changes meanwhile."""
    entry = _read(found) or _read(found)
    if entry is None:
        raise _changed(found.path)
    return entry


def _read(found: Found) -> Entry | None:
    """Return what a file is, or None if it changed while it was read."""
    seen = hashlib.sha256()
    size = 0
    with _opened(found.file, found.path) as handle:
        before = os.fstat(handle)
        while piece := os.read(handle, _CHUNK):
            seen.update(piece)
            size += len(piece)
        after = os.fstat(handle)
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        return None
    if size != after.st_size:
        return None
    executable = bool(after.st_mode & stat.S_IXUSR)
    return Entry(path=found.path, size=size, sha256=seen.hexdigest(), executable=executable)


def _pieces(file: Path, path: str) -> Iterator[bytes]:
    with _opened(file, path) as handle:
        while piece := os.read(handle, _CHUNK):
            yield piece


@contextlib.contextmanager
def _opened(file: Path, path: str) -> Iterator[int]:
    """Open a regular file: one that became a pipe meanwhile holds nobody up."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise _changed(path)
        yield handle
    finally:
        os.close(handle)


def _changed(path: str) -> errors.BundleError:
    return errors.BundleError(
        f"{path!r} changed while it was packed. Deploy again when nothing writes to it, or leave "
        "it out with a line in .raflowignore.",
        path=path,
    )
