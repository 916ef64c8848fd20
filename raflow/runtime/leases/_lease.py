"""The lease of a flow run: for how long it is a process's own, and whether that one is gone."""

from __future__ import annotations

import functools
import os
import socket
from typing import Final, TypedDict

from raflow import execute
from raflow.model import RunLease

LEASE_SECONDS: Final = 10.0
"""How long a run is a process's own without a renewal."""
_SAME_SECONDS: Final = 1.0


class Holder(TypedDict):
    """The process that has a lease, as the store takes it."""

    host: str
    pid: int
    process_started: float


def this_process() -> Holder:
    """Return this process as the holder of a lease."""
    return Holder(host=socket.gethostname(), pid=os.getpid(), process_started=own_start())


@functools.cache
def own_start() -> float:
    """Return when this process began: seconds since the Unix epoch; 0 where that is not told."""
    return process_started(os.getpid())


def process_started(pid: int) -> float:
    """Return when a process of this machine began; 0 if there is none, or where it is not told."""
    found = execute.process(pid)
    return 0.0 if found is None else found.started_at


def is_gone(lease: RunLease) -> bool:
    """Tell whether the process that holds a lease was one of this machine, and is no more."""
    if lease.host != socket.gethostname() or not lease.pid:
        return False
    started = process_started(lease.pid)
    # Where the clock was set meanwhile, the same process seems to have begun at another time.
    other = abs(started - lease.process_started) > _SAME_SECONDS
    return started == 0.0 or (other and started > lease.renewed_at)
