"""Who it is that does something, for the record."""

from __future__ import annotations

import getpass
import os
import socket


def person() -> str:
    """Return `user@host`."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container may have no name for its user
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
