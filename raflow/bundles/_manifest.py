"""What is in a bundle, and the name that follows from it."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from raflow import errors

_LINE: Final = re.compile(r"([x-]) (0|[1-9][0-9]{0,15}) ([0-9a-f]{64}) (.+)")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_MAX_NAME_BYTES: Final = 255
_MAX_PATH_BYTES: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How large a bundle may be."""

    files: int = 10_000
    file_bytes: int = 50 << 20
    """Of one file, as it lies on the disk."""
    total_bytes: int = 200 << 20
    """Of all files together, as they lie on the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A file of a bundle."""

    path: str
    """From the root of the bundle, in Unicode's form NFC, with `/` between its names."""
    size: int
    """In bytes."""
    sha256: str
    executable: bool = False

    def __str__(self) -> str:
        return f"{'x' if self.executable else '-'} {self.size} {self.sha256} {self.path}"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The files of a bundle, sorted by path.

    Equal files make equal manifests, whatever the order, time, owner or umask they were made with.
    """

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, entries: Iterable[Entry], limits: Limits) -> Manifest:
        """Return the manifest of some files.

        Raises:
            BundleError: A path could not be unpacked everywhere, two of them would be one file, or
                there is too much.
        """
        manifest = cls(entries=tuple(sorted(entries, key=lambda entry: entry.path)))
        for entry in manifest.entries:
            wrong = what_is_wrong_with(entry.path)
            if wrong:
                raise errors.BundleError(
                    f"The file {entry.path!r} cannot be in a bundle: {wrong}. Rename it, or leave "
                    "it out with a line in .raflowignore.",
                    path=entry.path,
                )
        manifest._refuse_clashes()
        manifest._refuse_excess(limits)
        return manifest

    @classmethod
    def parse(cls, text: bytes, limits: Limits) -> Manifest:
        """Read what `text` has written.

        Raises:
            BundleError: It is not the manifest of a bundle that could have been packed.
        """
        try:
            lines = text.decode("utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise errors.BundleError(f"A manifest is not UTF-8: {error}.") from error
        if len(lines) - 1 > limits.files:
            raise errors.BundleError(
                f"A manifest lists {len(lines) - 1:,} files; at most {limits.files:,} may be in a "
                "bundle."
            )
        manifest = cls.of(map(_entry, lines[:-1]), limits)
        if manifest.text != text:
            raise errors.BundleError("A manifest is not sorted, or not written as raflow does.")
        return manifest

    @cached_property
    def text(self) -> bytes:
        """A line for each file: `x` or `-`, size, SHA-256, path."""
        return "".join(f"{entry}\n" for entry in self.entries).encode("utf-8")

    @cached_property
    def digest(self) -> str:
        """The name of the bundle: the SHA-256 of `text`."""
        return hashlib.sha256(self.text).hexdigest()

    @property
    def size(self) -> int:
        """The bytes of all files together."""
        return sum(entry.size for entry in self.entries)

    def _refuse_clashes(self) -> None:
        """Refuse paths that are one file on some file system, or a file and a folder at once."""
        spelt: dict[str, str] = {}
        files: set[str] = set()
        for entry in self.entries:
            folders = list(_folders(entry.path))
            for path in (*folders, entry.path):
                other = spelt.setdefault(_folded(path), path)
                if other != path:
                    raise _clash(other, path, "differ in upper and lower case only")
            if entry.path in files:
                raise _clash(entry.path, entry.path, "are the same")
            files.add(entry.path)
            mixed = next((folder for folder in folders if folder in files), None)
            if mixed is not None:
                raise _clash(mixed, entry.path, "are a file and a folder of one name")

    def _refuse_excess(self, limits: Limits) -> None:
        largest = max(self.entries, key=lambda entry: entry.size, default=None)
        if (
            len(self.entries) > limits.files
            or self.size > limits.total_bytes
            or (largest is not None and largest.size > limits.file_bytes)
        ):
            raise too_large(((entry.size, entry.path) for entry in self.entries), limits)


def checked_digest(text: str) -> str:
    """Return a name of a bundle if it is one: it becomes part of paths and URLs.

    Raises:
        BundleError: It is not.
    """
    if not _DIGEST.fullmatch(text):
        raise errors.BundleError(
            f"{text!r} is no name of a bundle: that is a SHA-256 of 64 hexadecimal digits."
        )
    return text


def what_is_wrong_with(path: str) -> str:
    """Say why a path cannot be in a bundle; empty if it can."""
    try:
        parts = [(part, part.encode("utf-8")) for part in path.split("/")]
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if any(part in {"", ".", ".."} for part, _ in parts):
        return "its path is not a plain one below the root"
    if any(ord(char) < 32 or ord(char) == 127 or char == "\\" for char in path):
        return "its name holds a control character or a backslash"
    if unicodedata.normalize("NFC", path) != path:
        return "its name is not in Unicode's form NFC"
    if len(path.encode()) > _MAX_PATH_BYTES or any(len(raw) > _MAX_NAME_BYTES for _, raw in parts):
        return f"its path is longer than {_MAX_PATH_BYTES} bytes, or a name of it than 255"
    return ""


def too_large(sizes: Iterable[tuple[int, str]], limits: Limits) -> errors.BundleError:
    """Return the error that names the largest of some files."""
    largest = sorted(sizes, reverse=True)[:10]
    listed = ", ".join(f"{path!r} ({size / (1 << 20):,.1f} MiB)" for size, path in largest)
    return errors.BundleError(
        f"A bundle may hold {limits.files:,} files of {limits.file_bytes >> 20:,} MiB each and "
        f"{limits.total_bytes >> 20:,} MiB in all, and this is more. The largest are {listed}. "
        "Leave out what the flow does not need with lines in .raflowignore, and keep data in "
        "storage that the workers reach.",
        largest=[path for _, path in largest],
    )


def _entry(line: str) -> Entry:
    match = _LINE.fullmatch(line)
    if match is None:
        raise errors.BundleError(f"A manifest holds the line {line[:200]!r}, which names no file.")
    mode, size, sha256, path = match.groups()
    return Entry(path=path, size=int(size), sha256=sha256, executable=mode == "x")


def _folders(path: str) -> Iterator[str]:
    """Return the folders above a file, outermost first."""
    at = path.find("/")
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1)


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path.casefold())


def _clash(one: str, other: str, how: str) -> errors.BundleError:
    return errors.BundleError(
        f"The paths {one!r} and {other!r} {how}, so a bundle cannot hold both. Rename one, or "
        "leave it out with a line in .raflowignore.",
        paths=[one, other],
    )
