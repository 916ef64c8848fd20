"""Why a process ended, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why a process or an attempt ended, as far as it is known."""

    kind: str
    """`exception, time limit, signal, exit, killed, out of memory, node lost, no answer, ...`."""
    signal: int | None = None
    """Number of the signal that ended it."""
    exit_code: int | None = None
    """The code with which it ended itself."""
    host: str = ""
    pid: int = 0
    node_id: str = ""
    """The backend's id of the node."""
    peak_memory: int = 0
    """Highest resident memory that is known of it, in bytes; 0: none is."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What else is known, in words."""
