"""Has the kernel find out when the other end of a connection of Ray's has vanished.

A host that is cut off, or loses its power, says nothing, and whoever waits for an answer from it
waits on. Ray's own remedy asks every five minutes. To have it ask more often is worse than none:
its servers hang up on who does, and the calls that run then end as crashed (Ray 2.60, measured).
The kernel's questions are seen by nobody but the other kernel.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from pathlib import Path
from typing import Final

SILENCE_MILLISECONDS: Final = 5000
"""How long the other end of a connection may leave unconfirmed what it was sent, questions of the
kernel too."""
VARIABLES: Final = {"RAY_grpc_client_keepalive_timeout_ms": str(SILENCE_MILLISECONDS)}
"""Have Ray set that, as `TCP_USER_TIMEOUT`, which is also how its connections are told here."""
_ASK_SECONDS: Final = 2
"""After so many seconds without a word, and as often then, the kernel asks."""


class Connections:
    """The connections of this process by which Ray asks something of other processes."""

    def __init__(self) -> None:
        """Begin with none."""
        self._known: set[str] = set()

    def look(self) -> None:
        """Have the kernel watch those that are new; nothing happens elsewhere than on Linux."""
        there: set[str] = set()
        for entry in _open_files():
            with contextlib.suppress(OSError):  # it was closed just now
                name = os.readlink(entry)
                if name in self._known or (name.startswith("socket:") and _watched(entry)):
                    there.add(name)
        self._known = there


def _open_files() -> list[Path]:
    return list(Path("/proc/self/fd").iterdir()) if sys.platform == "linux" else []


def _watched(entry: Path) -> bool:
    """Have a socket watched if it is one of Ray's; returns whether it is."""
    if sys.platform != "linux":
        return False
    # A copy: Ray may close its own meanwhile, and another file may get the number.
    copy = socket.socket(fileno=os.dup(int(entry.name)))
    with copy:
        limit = copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        if limit != SILENCE_MILLISECONDS:
            return False
        copy.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _ASK_SECONDS)
        copy.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _ASK_SECONDS)
        copy.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return True
