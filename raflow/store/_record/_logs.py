"""Files of log segments: one per flow run, which only ever grows."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import orjson

from raflow import errors, model
from raflow._util import short_id

_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")


class LogFiles:
    """The directory of the log files of flow runs."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def append(self, flow_run_id: str, blob: bytes) -> tuple[str, int]:
        """Append a segment; return the file, below the directory, and where in it the segment is.

        Raises:
            StoreError: The file cannot be written.
        """
        name = _file_name(flow_run_id)
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            descriptor = os.open(self._directory / name, flags, 0o600)
            try:
                return name, _append(descriptor, blob)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise errors.StoreError(
                f"The log of flow run {short_id(flow_run_id)!r} cannot be written to "
                f"{self._directory}: {error.strerror}. Free space there, allow writing, or "
                "set RAFLOW_HOME."
            ) from error

    def read(self, segment: model.LogSegment) -> list[model.LogLine]:
        """Return the lines of a segment.

        Raises:
            StoreError: The segment is not there, or damaged.
        """
        if _SAFE_NAME.fullmatch(segment.file) is None:
            raise errors.StoreError(f"{segment.file!r} is not the name of a log file.")
        path = self._directory / segment.file
        try:
            with path.open("rb") as file:
                file.seek(segment.offset)
                blob = file.read(segment.length)
        except OSError as error:
            raise errors.StoreError(
                f"The log of flow run {short_id(segment.flow_run_id)!r} cannot be read from "
                f"{path}: {error.strerror}. Logs are kept where the flow ran: read them there, or "
                "set RAFLOW_HOME to the same shared directory."
            ) from error
        if len(blob) < segment.length:
            raise _damaged(segment, path, f"it ends after {len(blob)} of {segment.length} bytes")
        try:
            return model.decode_log(blob)
        except (errors.BatchError, orjson.JSONDecodeError, TypeError) as error:
            raise _damaged(segment, path, str(error)) from error

    def sync(self, segments: Iterable[model.LogSegment]) -> None:
        """Return when these segments are on disk, so that no row names lines that a crash took.

        Raises:
            StoreError: A file cannot be written to disk.
        """
        for name in {segment.file for segment in segments}:
            try:
                descriptor = os.open(self._directory / name, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fdatasync(descriptor)
                finally:
                    os.close(descriptor)
            except FileNotFoundError:
                continue  # Reading it says so; the rest of the history is worth keeping.
            except OSError as error:
                raise errors.StoreError(
                    f"The log file {self._directory / name} cannot be brought to disk: "
                    f"{error.strerror}."
                ) from error


def _damaged(segment: model.LogSegment, path: Path, how: str) -> errors.StoreError:
    return errors.StoreError(
        f"The log of flow run {short_id(segment.flow_run_id)!r} is damaged in {path} at byte "
        f"{segment.offset}: {how}. The other segments can be read."
    )


def _file_name(flow_run_id: str) -> str:
    name = f"{flow_run_id}.log"
    if _SAFE_NAME.fullmatch(name):
        return name
    return f"{hashlib.sha256(flow_run_id.encode('utf-8', 'surrogatepass')).hexdigest()}.log"


def _append(descriptor: int, blob: bytes) -> int:
    """Write all of it; return where it begins, whoever else appends."""
    while os.write(descriptor, blob) < len(blob):
        # The disk is nearly full. Begin anew behind the part, which no row will name.
        pass
    return os.lseek(descriptor, 0, os.SEEK_CUR) - len(blob)
