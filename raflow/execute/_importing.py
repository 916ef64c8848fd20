"""Whether a thread is in the middle of an import.

An exception that is forced on a thread just as it takes the import lock would leave the lock
held for ever, and every later import of the process waiting. So an interruption is put off until
the import is over.
"""

from __future__ import annotations

from types import FrameType
from typing import Final

PUT_OFF_SECONDS: Final = 0.01
"""After how long to look again."""

_IMPORTLIB: Final = "<frozen importlib._bootstrap"


def is_importing(frame: FrameType | None) -> bool:
    """Tell whether the import system is among the callers of a frame."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(_IMPORTLIB):
            return True
        frame = frame.f_back
    return False
