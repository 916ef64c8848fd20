"""Which line of the user's code is running."""

from __future__ import annotations

import os
import sys
from types import CodeType, FrameType
from typing import Final

_PACKAGE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_MOST: Final = 4096
_lines: Final[dict[tuple[int, int], tuple[CodeType, str]]] = {}
"""Lines told before, by code object and position in it. Hashing a code object takes long, so its id
is the key; the entry keeps it alive, so that no other gets that id."""


def user_frame() -> FrameType | None:
    """Return the innermost frame that is not raflow's own."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_own(frame):
        frame = frame.f_back
    return frame


def user_line(skip: int = 0) -> str:
    """Return where the innermost code that is not raflow's own stands: `file.py:12`.

    Args:
        skip: How many frames, from the caller's outwards, are known to be raflow's: not looking at
            them is faster.
    """
    frame: FrameType | None = sys._getframe(skip + 1)
    while frame is not None:
        told = _lines.get((id(frame.f_code), frame.f_lasti))
        if told is not None:
            return told[1]
        if not _is_own(frame):
            return _remembered(frame)
        frame = frame.f_back
    return ""


def _is_own(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_PACKAGE)


def _remembered(frame: FrameType) -> str:
    if len(_lines) >= _MOST:
        _lines.clear()
    code = frame.f_code
    line = f"{os.path.basename(code.co_filename)}:{frame.f_lineno}"
    _lines[id(code), frame.f_lasti] = code, line
    return line
