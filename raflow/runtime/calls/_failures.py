"""From recorded failures to exceptions, and back."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Mapping
from typing import Final

from raflow import errors
from raflow.model import ErrorInfo, State, StateName

_BY_STATE: Final[Mapping[StateName, type[errors.TaskRunError]]] = {
    StateName.TIMED_OUT: errors.TaskTimedOutError,
    StateName.UPSTREAM_FAILED: errors.UpstreamFailedError,
    StateName.CRASHED: errors.TaskCrashedError,
    StateName.OUT_OF_MEMORY: errors.TaskCrashedError,
    StateName.LOST: errors.TaskCrashedError,
    StateName.CANCELLED: errors.TaskCancelledError,
}


def exception_of(label: str, state: State, error: ErrorInfo | None) -> BaseException:
    """Return what `result` raises for a task run that did not complete.

    It is the exception of the user's code itself where that could travel, with a note that tells
    where it came from; otherwise one of raflow's, by the state.
    """
    told = f"Task run {label!r} ended {state.name.value}"
    if error is not None and state.name is StateName.FAILED:
        original = _unpickled(error)
        if original is not None:
            original.add_note(f"{told}; in the task:\n{error.traceback}")
            return original
    cls = _BY_STATE.get(state.name, errors.TaskFailedError)
    cause = state.message or (f"{error.type}: {error.message}" if error else "")
    failure = cls(f"{told}: {cause}" if cause else f"{told}.", label=label, state=state.name.value)
    if error is not None and error.traceback:
        failure.add_note(f"In the task:\n{error.traceback}")
    return failure


def error_info(error: BaseException) -> ErrorInfo:
    """Return an exception of the flow's body as data; frames of raflow itself are left out."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not _is_internal(frame.filename)
    ]
    cls = type(error)
    shown = "".join(traceback.format_list(frames)) + _last_line(error)
    return ErrorInfo(
        type=f"{cls.__module__}.{cls.__qualname__}",
        message=str(error),
        traceback=shown,
        pickled=_pickled(error),
    )


def _is_internal(filename: str) -> bool:
    return filename.startswith((_HERE, "<frozen")) or "concurrent/futures" in filename


_HERE: Final = __file__.rpartition("/runtime/")[0]


def _last_line(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error))


def _unpickled(error: ErrorInfo) -> BaseException | None:
    if error.pickled is None:
        return None
    try:
        found = pickle.loads(error.pickled)  # noqa: S301 - our own worker's, in the user's process
    except Exception:
        return None
    return found if isinstance(found, BaseException) else None


def _pickled(error: BaseException) -> bytes | None:
    try:
        return pickle.dumps(error)
    except Exception:
        return None
