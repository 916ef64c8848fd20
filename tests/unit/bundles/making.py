"""Directories and archives that tests make."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import zstandard

from raflow.bundles import Entry, Limits, Manifest, Packed


def tree(root: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write files below a directory and return it."""
    for path, content in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def paths(packed: Packed) -> set[str]:
    return {entry.path for entry in packed.manifest.entries}


def archive(packed: Packed) -> bytes:
    return b"".join(packed.chunks())


def entry(path: str, content: bytes = b"", *, executable: bool = False) -> Entry:
    sha256 = hashlib.sha256(content).hexdigest()
    return Entry(path=path, size=len(content), sha256=sha256, executable=executable)


def manifest(*entries: Entry) -> Manifest:
    return Manifest.of(entries, Limits())


def member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """Return a member of a tar, with any field of it set."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def made(
    text: bytes,
    members: Iterable[tuple[tarfile.TarInfo, bytes]],
    *,
    form: int = tarfile.GNU_FORMAT,
) -> bytes:
    """Return an archive that somebody else has made: a manifest, and whatever follows it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for info, content in [member("MANIFEST", text), *members]:
            tar.addfile(info, io.BytesIO(content))
    # raflow writes two empty blocks at the end, tarfile a whole record.
    return zstandard.compress(buffer.getvalue()[: tar.offset])
