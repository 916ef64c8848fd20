"""The worker's side of a lease: says that the process is there, and ends one that was given up."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Final

from raflow.execute.ray._leases import BEAT_SECONDS

_IDLE: Final = 0.1
"""A process that was stopped has used less of its time than this part."""


class Beat:
    """Called every half second while a call of a batch runs for long."""

    def __init__(self, lease: float, send: Callable[[], None]) -> None:
        """Begin a batch.

        Args:
            lease: Seconds of silence after which the driver gives the process up.
            send: Says that the process is there.
        """
        self._lease = lease
        self._send = send
        self._sent_at = 0.0
        self._used = 0.0

    def __call__(self) -> None:
        """Say that the process is there, if it is time; end it if it was stopped for too long."""
        now, used = time.monotonic(), time.process_time()
        gap = now - self._sent_at
        if gap < BEAT_SECONDS * 0.9:
            return
        if self._sent_at and gap > self._lease and used - self._used < gap * _IDLE:
            # Its batch has been given to another process: what it would still do is done twice.
            os.kill(os.getpid(), signal.SIGKILL)
        self._sent_at, self._used = now, used
        self._send()
