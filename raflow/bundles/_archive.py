"""The form of an archive, and a reader that takes nothing from it on trust."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from typing import IO, Final

import zstandard

from raflow import errors
from raflow.bundles._manifest import Entry, Limits, Manifest, checked_digest

MANIFEST: Final = "MANIFEST"
"""The name of the first member."""
PREFIX: Final = "files/"
"""The files are below it, so that none can be called as the manifest is."""
END: Final = bytes(2 * tarfile.BLOCKSIZE)
_BLOCK: Final = tarfile.BLOCKSIZE
_CHUNK: Final = 1 << 20
_WINDOW: Final = 8 << 20
"""The most memory in bytes that decompressing may ask for."""
_LINE_BYTES: Final = 1_200
"""A line of a manifest is no longer."""
_NO_LIMITS: Final = Limits()
_KINDS: Final = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.DIRTYPE: "a folder",
}


def header(name: str, size: int, *, executable: bool = False) -> bytes:
    """Return what stands before the contents of a member: the same on every machine."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o755 if executable else 0o644
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")


def padding(size: int) -> bytes:
    """Return what fills the last block of a member."""
    return bytes(-size % _BLOCK)


class Archive:
    """An archive that is read once, from its beginning to its end.

    What it must contain, and in which order, follows from its digest. So each member is only
    compared: no name, size or kind of it is acted upon.
    """

    def __init__(self, source: IO[bytes], digest: str, limits: Limits = _NO_LIMITS) -> None:
        """Read the manifest.

        Args:
            source: The bytes that `Packed.chunks` gave.
            digest: The name of the bundle.
            limits: How large it may be.

        Raises:
            BundleError: It is no archive, or its manifest could not have been packed.
            BundleMismatchError: It is another bundle than that.
        """
        self.digest: Final = checked_digest(digest)
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
        self._stream = decompressor.stream_reader(
            source, read_size=_CHUNK, read_across_frames=True, closefd=False
        )
        text = self._manifest_text(limits)
        found = hashlib.sha256(text).hexdigest()
        if found != digest:
            raise errors.BundleMismatchError(
                f"What should be bundle {digest!r} is bundle {found!r}.", found=found
            )
        self.manifest: Final = Manifest.parse(text, limits)

    def members(self) -> Iterator[tuple[Entry, Iterator[bytes]]]:
        """Return the files with their contents, each to be read before the next one.

        That contents are those of the manifest is known when they have been read to their end, and
        that nothing follows the last file when this iterator ends.

        Raises:
            BundleError: There is something else in the archive than its manifest says.
        """
        for entry in self.manifest.entries:
            self._expect(entry)
            contents = self._contents(entry)
            yield entry, contents
            for _ in contents:
                pass
        if self._read(len(END)) != END or self._decompressed(1):
            raise self._refused("something follows the last file of its manifest")

    def check(self) -> Manifest:
        """Read all of it, and keep nothing.

        Raises:
            BundleError: There is something else in the archive than its manifest says.
        """
        for _, contents in self.members():
            for _ in contents:
                pass
        return self.manifest

    def _manifest_text(self, limits: Limits) -> bytes:
        info = self._header()
        if info.name != MANIFEST or not info.isreg():
            raise self._refused("it does not begin with a manifest")
        if not 0 <= info.size <= limits.files * _LINE_BYTES:
            raise self._refused(f"its manifest would be {info.size:,} bytes long")
        text = self._read(info.size)
        self._skip_padding(info.size)
        return text

    def _expect(self, entry: Entry) -> None:
        """Read what stands before a file, which must be that file."""
        name = PREFIX + entry.path
        info = self._header()
        long_name = info.type == tarfile.GNUTYPE_LONGNAME
        if long_name:
            expected = name.encode() + b"\0"
            if info.size != len(expected) or self._read(info.size) != expected:
                raise self._refused(f"where file {entry.path!r} should be there is another one")
            self._skip_padding(info.size)
            info = self._header()
        if info.type not in {tarfile.REGTYPE, tarfile.AREGTYPE}:
            kind = _KINDS.get(info.type, "something that raflow does not write")
            raise self._refused(f"where file {entry.path!r} should be there is {kind}")
        if info.size != entry.size or not (long_name or info.name == name):
            raise self._refused(
                f"where file {entry.path!r} of {entry.size:,} bytes should be there is "
                f"{info.name[:200]!r} of {info.size:,} bytes"
            )

    def _contents(self, entry: Entry) -> Iterator[bytes]:
        seen = hashlib.sha256()
        left = entry.size
        while left:
            piece = self._read(min(left, _CHUNK))
            seen.update(piece)
            left -= len(piece)
            yield piece
        self._skip_padding(entry.size)
        if seen.hexdigest() != entry.sha256:
            raise self._refused(f"the contents of {entry.path!r} are not those of its manifest")

    def _header(self) -> tarfile.TarInfo:
        try:
            return tarfile.TarInfo.frombuf(self._read(_BLOCK), "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise self._refused(f"it holds a damaged header ({error})") from error

    def _skip_padding(self, size: int) -> None:
        expected = padding(size)
        if self._read(len(expected)) != expected:
            raise self._refused("something is hidden behind the end of a file")

    def _read(self, size: int) -> bytes:
        """Return exactly so many bytes."""
        pieces = []
        left = size
        while left:
            piece = self._decompressed(left)
            if not piece:
                raise self._refused("it is cut off")
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def _decompressed(self, most: int) -> bytes:
        try:
            return self._stream.read(most)
        except zstandard.ZstdError as error:
            raise self._refused(f"it cannot be decompressed ({error})") from error

    def _refused(self, what: str) -> errors.BundleError:
        return errors.BundleError(
            f"Bundle {self.digest!r} is refused: {what}. It was damaged on its way, or not made by "
            "raflow: deploy again.",
            digest=self.digest,
        )
