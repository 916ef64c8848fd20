"""Serialized results in files or object stores, by fsspec URL."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from raflow import errors

_REMEDY = (
    "Set RAFLOW_RESULT_STORAGE (or `result_storage` of the task) to a path or fsspec URL that this "
    "user can write, such as '/data/results' or 's3://bucket/results'."
)


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


def write(storage: str, name: str, data: bytes) -> str:
    """Store bytes whole or not at all.

    Args:
        storage: fsspec URL, or path.
        name: Path below it.
        data: What to store.

    Returns:
        The URL of the object.

    Raises:
        ResultStorageError: Storage cannot be written.
    """
    try:
        folder = _local(storage)
        if folder is not None:
            _write_file(folder / name, data)
            return f"file://{(folder / name).as_posix()}"
        fs, root = _open(storage)
        path = f"{root.rstrip('/')}/{name}"
        fs.pipe_file(path, data)
        return str(fs.unstrip_protocol(path))
    except errors.RaflowError:
        raise
    except Exception as error:  # each file system has exceptions of its own
        raise errors.ResultStorageError(
            f"Result storage {storage!r} cannot be written: {_why(error)}. {_REMEDY}", url=storage
        ) from error


def read(url: str) -> bytes:
    """Return stored bytes.

    Raises:
        ResultStorageError: They cannot be read.
    """
    try:
        file = _local(url)
        if file is not None:
            return file.read_bytes()
        fs, path = _open(url)
        return bytes(fs.cat_file(path))
    except errors.RaflowError:
        raise
    except Exception as error:  # each file system has exceptions of its own
        raise errors.ResultStorageError(
            f"The stored result {url!r} cannot be read: {_why(error)}. If it was removed, run the "
            "task again.",
            url=url,
        ) from error


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


def _write_file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        draft.write_bytes(data)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _why(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
