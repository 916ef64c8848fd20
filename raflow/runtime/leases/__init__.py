"""Who drives a flow run, and whether that process is still there.

- `_lease`: for how long a run is a process's own; whether the one that has it is gone.
- `_sighting`: what has become of the process of a run, and what that has left behind.
"""

from __future__ import annotations

from raflow.runtime.leases._lease import LEASE_SECONDS, is_gone, this_process
from raflow.runtime.leases._sighting import (
    Fate,
    Sighting,
    abandoned,
    end_left_behind,
    needs_a_process,
    sight,
)

__all__ = [
    "LEASE_SECONDS",
    "Fate",
    "Sighting",
    "abandoned",
    "end_left_behind",
    "is_gone",
    "needs_a_process",
    "sight",
    "this_process",
]
