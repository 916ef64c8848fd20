"""Serialized results in files or object stores, by fsspec URL."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from raflow import errors

_REMEDY = (
    "Set RAFLOW_RESULT_STORAGE (or `result_storage` of the task) to a path or fsspec URL that this "
    "user can write, such as '/data/results' or 's3://bucket/results'."
)

_GONE = "If it was removed, run the task again."


def absolute(storage: str, base: str) -> str:
    """Return a URL or path that means the same in every process.

    Args:
        storage: fsspec URL, or path.
        base: Directory that a relative path starts at.
    """
    return storage if "://" in storage else str(Path(base, Path(storage).expanduser()))


def check_storage(url: str) -> None:
    """Write, read and remove a small object.

    Args:
        url: fsspec URL, or path.

    Raises:
        ResultStorageError: That did not work; the message names the URL and a remedy.
    """
    probe = f".raflow-probe-{secrets.token_hex(4)}"
    written = write(url, probe, b"raflow")
    try:
        if read(written) != b"raflow":
            raise errors.ResultStorageError(
                f"Result storage {url!r} gives back other bytes than were written. {_REMEDY}",
                url=url,
            )
    finally:
        _remove(written)


def write(storage: str, name: str, data: bytes, *, durable: bool = False) -> str:
    """Store bytes whole or not at all.

    Args:
        storage: fsspec URL, or path.
        name: Path below it.
        data: What to store.
        durable: Return only when they would survive that this machine loses its power. Other file
            systems than this machine's see to that, or not, by themselves.

    Returns:
        The URL of the object.

    Raises:
        ResultStorageError: Storage cannot be written.
    """
    with _told(storage, f"Result storage {storage!r} cannot be written"):
        folder = _local(storage)
        if folder is not None:
            _write_file(folder / name, data, durable=durable)
            return f"file://{(folder / name).as_posix()}"
        fs, root = _open(storage)
        path = f"{root.rstrip('/')}/{name}"
        fs.pipe_file(path, data)
        return str(fs.unstrip_protocol(path))


def read(url: str) -> bytes:
    """Return stored bytes.

    Raises:
        ResultStorageError: They cannot be read.
    """
    with _told(url, f"The stored result {url!r} cannot be read", _GONE):
        file = _local(url)
        if file is not None:
            return file.read_bytes()
        fs, path = _open(url)
        return bytes(fs.cat_file(path))


def exists(url: str) -> bool:
    """Tell whether bytes are stored under a URL; what cannot be looked at is not there."""
    try:
        file = _local(url)
        if file is not None:
            return file.is_file()
        fs, path = _open(url)
        fs.invalidate_cache()
        return bool(fs.exists(path))
    except Exception:  # each file system has exceptions of its own
        return False


def below(storage: str, name: str) -> str:
    """Return the URL of a folder: as the URLs of what is `write`n into it begin.

    Raises:
        ResultStorageError: There is no such storage.
    """
    folder = _local(storage)
    if folder is not None:
        return f"file://{(folder / name).as_posix()}"
    fs, root = _open(storage)
    return str(fs.unstrip_protocol(f"{root.rstrip('/')}/{name}"))


def files(folder: str) -> list[str]:
    """Return the URLs of what is stored in a folder; nothing if there is none.

    Raises:
        ResultStorageError: It cannot be read.
    """
    with (
        _told(folder, f"Result storage {folder!r} cannot be listed"),
        contextlib.suppress(FileNotFoundError, NotADirectoryError),
    ):
        path = _local(folder)
        if path is not None:
            return [f"file://{file.as_posix()}" for file in path.iterdir()]
        fs, root = _open(folder)
        fs.invalidate_cache()
        return [str(fs.unstrip_protocol(file)) for file in fs.ls(root, detail=False)]
    return []


def remove(url: str) -> None:
    """Remove stored bytes; nothing happens if they are gone.

    Raises:
        ResultStorageError: They cannot be removed.
    """
    with (
        _told(url, f"The stored result {url!r} cannot be removed"),
        contextlib.suppress(FileNotFoundError),
    ):
        _remove(url)


@contextlib.contextmanager
def _told(url: str, what: str, remedy: str = _REMEDY) -> Iterator[None]:
    """Tell what went wrong with storage; each file system has exceptions of its own.

    Raises:
        ResultStorageError: With whatever was raised as its cause, unless that is raflow's own.
    """
    try:
        yield
    except errors.RaflowError:
        raise
    except Exception as error:
        raise errors.ResultStorageError(f"{what}: {_why(error)}. {remedy}", url=url) from error


def _remove(url: str) -> None:
    file = _local(url)
    if file is not None:
        file.unlink()
        return
    fs, path = _open(url)
    fs.rm_file(path)


def _local(url: str) -> Path | None:
    """Return the path that a URL means if it is one of this machine."""
    scheme, _, path = url.rpartition("://")
    return Path(path).expanduser().absolute() if scheme in {"", "file", "local"} else None


def _open(url: str) -> tuple[Any, str]:
    # Most results are files of this machine, and the first task should not wait for this import.
    import fsspec  # noqa: PLC0415

    try:
        fs, path = fsspec.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise errors.ResultStorageError(
            f"{url!r} names no result storage that can be used here: {error}. {_REMEDY}", url=url
        ) from error
    return fs, path


def _write_file(path: Path, data: bytes, *, durable: bool) -> None:
    if not path.parent.is_dir():
        _make_folder(path.parent, durable=durable)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if durable:
        _sync_folder(path.parent)


def _make_folder(folder: Path, *, durable: bool) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.is_dir()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing) if durable else ():
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Let the names of the files in a folder reach the disk; a file's own sync does not do that."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems know no sync of folders
            raise
    finally:
        os.close(handle)


def _why(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
