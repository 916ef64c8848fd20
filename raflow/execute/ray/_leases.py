"""Leases of running batches: a process that says nothing for too long is given up."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from typing import Final, TypeAlias

from raflow.execute._processes import Process

BatchKey: TypeAlias = tuple[int, int]
"""Session and batch."""

BEAT_SECONDS: Final = 1.0
"""How often the process of a running batch says that it is there."""
LEASE_SECONDS: Final = 15.0
_MISSED: Final = 4
_PAUSE_SECONDS: Final = 3.0
"""Who has not looked for so long was stopped itself, and has not heard what was said meanwhile."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """A worker process that has said that it runs a batch."""

    host: str
    process: Process
    node_id: str


@dataclasses.dataclass(slots=True)
class _Lease:
    speaker: Speaker
    heard_at: float
    is_here: bool
    missed: int = 0
    """How often its process was looked for on this machine, and not found."""


class Leases:
    """Says which of the batches that have spoken have fallen silent."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with none; a lease lasts `seconds` from the last word."""
        self.seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._leases: dict[BatchKey, _Lease] = {}
        self._looked_at = clock()

    def begin(self, key: BatchKey, speaker: Speaker) -> None:
        """Take note of a batch that has spoken for the first time."""
        is_here = speaker.process.is_there
        with self._lock:
            self._leases[key] = _Lease(speaker, self._clock(), is_here)

    def renew(self, key: BatchKey) -> bool:
        """Take note of a word; False if the batch is not known."""
        with self._lock:
            lease = self._leases.get(key)
            if lease is not None:
                lease.heard_at = self._clock()
            return lease is not None

    def speaker(self, key: BatchKey) -> Speaker | None:
        """Return who has spoken for a batch."""
        with self._lock:
            lease = self._leases.get(key)
            return None if lease is None else lease.speaker

    def end(self, key: BatchKey) -> None:
        """Forget a batch."""
        with self._lock:
            self._leases.pop(key, None)

    def dead(self) -> list[tuple[BatchKey, Speaker]]:
        """Return the batches whose process on this machine is gone, each once.

        Ray most often tells before. But it listens to the sockets of the process, and what that has
        forked may hold them open.
        """
        with self._lock:
            here = [(key, lease) for key, lease in self._leases.items() if lease.is_here]
        dead = []
        for key, lease in here:
            if not lease.speaker.process.is_there:
                lease.missed += 1
                if lease.missed == _MISSED:
                    dead.append((key, lease.speaker))
        return dead

    def expired(self) -> list[tuple[BatchKey, Speaker]]:
        """Return the batches that are silent, each once per lease; to be asked every second."""
        now = self._clock()
        with self._lock:
            paused = now - self._looked_at > _PAUSE_SECONDS
            self._looked_at = now
            silent = []
            for key, lease in self._leases.items():
                if paused:
                    lease.heard_at = now
                elif now - lease.heard_at > self.seconds:
                    lease.heard_at = now
                    silent.append((key, lease.speaker))
            return silent
