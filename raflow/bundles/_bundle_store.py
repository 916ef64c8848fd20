"""Where the archives of bundles are kept, by fsspec URL."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Final

import fsspec

from raflow import errors
from raflow.bundles._archive import Archive
from raflow.bundles._manifest import Limits, Manifest, checked_digest
from raflow.model import Bundle

_CHUNK: Final = 1 << 20
_SPARE: Final = 16 << 20
"""What an archive may be larger than its files."""
_DRAFT: Final = ".draft-"
_DRAFT_SECONDS: Final = 86_400.0
"""What is older was left behind by a process that died."""
_NO_LIMITS: Final = Limits()


class BundleStore:
    """Archives, each under the name of its bundle; what is there is whole."""

    def __init__(self, url: str, *, limits: Limits = _NO_LIMITS) -> None:
        """Name a place; nothing is looked at yet.

        Args:
            url: fsspec URL, or path.
            limits: How large bundles may be.

        Raises:
            BundleStorageError: There is no storage of that kind.
        """
        self.url: Final = url
        self._limits = limits
        scheme, _, path = url.rpartition("://")
        # fsspec reads more into a path than its names, such as a chain of file systems.
        self._is_local = scheme in {"", "file", "local"}
        with self._telling("used"):
            if self._is_local:
                self._files, root = fsspec.filesystem("file"), _absolute(path)
            else:
                self._files, root = fsspec.url_to_fs(url)
        self._root = root.rstrip("/")

    def have(self, digest: str) -> bool:
        """Whether a bundle is there.

        Raises:
            BundleStorageError: Storage cannot be read.
        """
        path = self._path(digest)
        with self._telling("read"):
            self._files.invalidate_cache()
            return bool(self._files.isfile(path))

    def put(self, digest: str, chunks: Iterable[bytes]) -> Manifest:
        """Store the archive of a bundle, whole or not at all, and return what is in it.

        It is read before it counts: what is not the bundle of that name is never found under it.

        Args:
            digest: The name of the bundle.
            chunks: Its archive, piece by piece.

        Raises:
            BundleError: The archive is damaged, or too large.
            BundleMismatchError: It is another bundle than that.
            BundleStorageError: Storage cannot be written.
        """
        path = self._path(digest)
        with self._draft(path) as (file, draft):
            written = 0
            for chunk in chunks:
                written += len(chunk)
                if written > self._limits.total_bytes + _SPARE:
                    raise errors.BundleError(
                        f"The archive of bundle {digest!r} is larger than "
                        f"{self._limits.total_bytes + _SPARE:,} bytes. Leave out what the flow "
                        "does not need with lines in .raflowignore."
                    )
                with self._telling("written"):
                    file.write(chunk)
            with self._telling("written"):
                file.flush()
                os.fsync(file.fileno())
                file.seek(0)
            manifest = Archive(file, digest, self._limits).check()
            with self._telling("written"):
                self._move(draft, path)
        return manifest

    def keep(self, digest: str, chunks: Iterable[bytes]) -> Bundle:
        """Store the archive of a bundle as `put` does; return what is to be known of it."""
        size = 0

        def counted() -> Iterator[bytes]:
            nonlocal size
            for chunk in chunks:
                size += len(chunk)
                yield chunk

        manifest = self.put(digest, counted())
        return Bundle(
            digest=digest,
            size=size,
            files=len(manifest.entries),
            unpacked=manifest.size,
            url=self.url,
            manifest=manifest.text,
        )

    @contextlib.contextmanager
    def open(self, digest: str) -> Iterator[IO[bytes]]:
        """Read the archive of a bundle as it is stored.

        Raises:
            BundleMissingError: It is not there.
            BundleStorageError: Storage cannot be read.
        """
        path = self._path(digest)
        with self._telling("read"):
            try:
                file = self._files.open(path, "rb")
            except FileNotFoundError:
                raise errors.BundleMissingError(
                    f"Bundle {digest!r} is not in {self.url!r}. Deploy again to put it there.",
                    digest=digest,
                ) from None
        with file:
            yield file

    def get(self, digest: str, target: Path) -> Manifest:
        """Copy the archive of a bundle to a file, whole or not at all, and return what is in it.

        Raises:
            BundleMissingError: It is not there.
            BundleError: What is stored is damaged.
            BundleStorageError: Storage cannot be read.
        """
        draft = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
        try:
            with self.open(digest) as stored, draft.open("xb") as file:
                while chunk := self._read(stored):
                    file.write(chunk)
            with draft.open("rb") as file:
                manifest = Archive(file, digest, self._limits).check()
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
        return manifest

    def _read(self, stored: IO[bytes]) -> bytes:
        with self._telling("read"):
            return stored.read(_CHUNK)

    def _path(self, digest: str) -> str:
        name = checked_digest(digest)
        return f"{self._root}/bundles/{name[:2]}/{name}.tar.zst"

    @contextlib.contextmanager
    def _draft(self, path: str) -> Iterator[tuple[IO[bytes], Path]]:
        """Return a file of this machine; if storage is one of its folders, in the same one."""
        with self._telling("written"):
            folder = None
            if self._is_local:
                folder = Path(path).parent
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                _remove_old_drafts(folder)
            handle, name = tempfile.mkstemp(prefix=_DRAFT, dir=folder)
        try:
            with os.fdopen(handle, "w+b") as file:
                yield file, Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    def _move(self, draft: Path, path: str) -> None:
        if self._is_local:
            draft.replace(path)
            return
        # Not every file system shows a file only when all of it is there; its name is moved then.
        folder, _, name = path.rpartition("/")
        uploaded = f"{folder}/{_DRAFT}{name}-{secrets.token_hex(8)}"
        self._files.makedirs(folder, exist_ok=True)
        try:
            self._files.put_file(str(draft), uploaded)
            self._files.mv(uploaded, path)
        except BaseException:
            with contextlib.suppress(Exception):
                self._files.rm_file(uploaded)
            raise

    @contextlib.contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """Say which storage failed: each file system has exceptions of its own."""
        try:
            yield
        except errors.RaflowError:
            raise
        except Exception as error:
            why: Any = getattr(error, "strerror", None) or error
            raise errors.BundleStorageError(
                f"Bundle storage {self.url!r} cannot be {what}: {type(error).__name__}: {why}. "
                "It must be a path or fsspec URL that this user can read and write.",
                url=self.url,
            ) from error


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _remove_old_drafts(folder: Path) -> None:
    for draft in folder.glob(f"{_DRAFT}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - draft.stat().st_mtime > _DRAFT_SECONDS:
                draft.unlink()
