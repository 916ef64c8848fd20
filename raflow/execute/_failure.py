"""Turns any exception, however odd, into data."""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Callable
from typing import Final, NamedTuple

import raflow
from raflow.model import ErrorInfo

_MAX_MESSAGE: Final = 16_000
"""Characters: a message is shown, and kept in several places."""
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
    """Return `str(error)`, whatever its `__str__` does; very long ones without their middle."""
    try:
        return _shortened(str(error), _MAX_MESSAGE)
    except BaseException as broken:
        return f"<{type(error).__name__}, whose text cannot be made: {type(broken).__name__}>"


def _shortened(text: str, size: int) -> str:
    if len(text) <= size:
        return text
    half = size // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _traceback(error: BaseException) -> str:
    try:
        story = traceback.TracebackException.from_exception(error, compact=True)
        _keep_user_frames(story)
        return _shortened("".join(story.format()), _MAX_TRACEBACK)
    except BaseException as broken:
        return f"<no traceback: {type(broken).__name__} while it was formatted>"


def _keep_user_frames(story: traceback.TracebackException) -> None:
    waiting = [story]
    while waiting:  # no recursion: a chain of causes may be long
        part = waiting.pop()
        frames = [f for f in part.stack if not f.filename.startswith(MACHINERY)]
        while frames and frames[0].filename.startswith(_EVENT_LOOP):
            del frames[0]
        part.stack = traceback.StackSummary.from_list(frames)
        linked = (part.__cause__, part.__context__, *(part.exceptions or ()))
        waiting += [one for one in linked if one is not None]


def _pickled(error: BaseException, pickling: Pickling) -> bytes | None:
    """Pickle it, unless what comes out at the other end would not be the same exception."""
    try:
        data = pickling.dumps(error)
        if len(data) > _MAX_PICKLED:
            return None
        twin = pickling.loads(data)
        alike = type(twin) is type(error) and str(twin) == str(error)
    except BaseException:  # what an exception does to be pickled is the user's code
        return None
    return data if alike else None
