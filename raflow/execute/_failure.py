"""Turns any exception, however odd, into data."""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Callable
from typing import Final, NamedTuple

import raflow
from raflow.model import ErrorInfo

_MAX_TRACEBACK: Final = 64_000
_MAX_PICKLED: Final = 1_000_000

_PACKAGES: Final = os.path.dirname(os.path.dirname(os.path.abspath(raflow.__file__)))
MACHINERY: Final = (
    *(os.path.join(_PACKAGES, "raflow", part, "") for part in ("execute", "define")),
    *(os.path.join(sysconfig.get_path(key), "ray", "") for key in ("purelib", "platlib")),
)
"""Directories whose frames mean nothing to a user."""
_EVENT_LOOP: Final = os.path.join(sysconfig.get_path("stdlib"), "asyncio", "")


class Pickling(NamedTuple):
    """How objects travel to and from a process."""

    dumps: Callable[[object], bytes]
    loads: Callable[[bytes], object]


def describe(error: BaseException, pickling: Pickling) -> ErrorInfo:
    """Tell what an exception says and where user code raised it; keep it if it can travel."""
    return ErrorInfo(
        type=_name(type(error)),
        message=message_of(error),
        traceback=_traceback(error),
        pickled=_pickled(error, pickling),
    )


def message_of(error: BaseException) -> str:
    """Return `str(error)`, whatever its `__str__` does."""
    try:
        return str(error)
    except Exception as broken:
        return f"<{type(error).__name__}, whose text cannot be made: {type(broken).__name__}>"


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _traceback(error: BaseException) -> str:
    try:
        story = traceback.TracebackException.from_exception(error, compact=True)
        _keep_user_frames(story)
        text = "".join(story.format())
    except Exception as broken:
        return f"<no traceback: {type(broken).__name__} while it was formatted>"
    if len(text) > _MAX_TRACEBACK:
        half = _MAX_TRACEBACK // 2
        text = f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
    return text


def _keep_user_frames(story: traceback.TracebackException) -> None:
    frames = [f for f in story.stack if not f.filename.startswith(MACHINERY)]
    while frames and frames[0].filename.startswith(_EVENT_LOOP):
        del frames[0]
    story.stack = traceback.StackSummary.from_list(frames)
    for linked in (story.__cause__, story.__context__, *(story.exceptions or ())):
        if linked is not None:
            _keep_user_frames(linked)


def _pickled(error: BaseException, pickling: Pickling) -> bytes | None:
    """Pickle it, unless what comes out at the other end would not be the same exception."""
    try:
        data = pickling.dumps(error)
        if len(data) > _MAX_PICKLED:
            return None
        twin = pickling.loads(data)
        alike = type(twin) is type(error) and str(twin) == str(error)
    except Exception:
        return None
    return data if alike else None
