"""What the sessions of a backend on Ray share."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from raflow.execute._alarms import Alarms
from raflow.execute.ray._leases import Leases
from raflow.execute.ray._mailroom import Mailroom
from raflow.execute.ray._options import RemoteFunctions
from raflow.execute.ray._poll import Poll
from raflow.execute.ray._progress import Progress
from raflow.execute.ray._tenures import Tenures


class Tools(NamedTuple):
    """What the sessions of a backend share."""

    poll: Poll
    mailroom: Mailroom
    alarms: Alarms
    leases: Leases
    remote: RemoteFunctions
    progress: Progress
    tenures: Tenures
    probe: Callable[[], str | None]
    """Says why Ray is gone, or None; then all sessions have been told of it."""
