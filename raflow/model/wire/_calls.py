"""What a run asks of the service that records it: the bodies of these calls, and their answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from raflow.model._durable import CacheEntry, ProcessInfo, RunLease, RunRequest, SlotRequest
from raflow.model._report import TaskRunKey

BATCH_MEDIA_TYPE: Final = "application/x-raflow-batch"
MOST_BATCH_BYTES: Final = 32 << 20
"""So large may a batch be that is sent to a service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordBegin:
    """Somebody is going to record a run, or to go on with one."""

    run_id: str = ""
    """The root run; it need not be there yet."""
    find: str = ""
    """Instead: what `Store.find_flow_run` takes."""
    flow: str = ""
    host: str = ""
    pid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordBegun:
    """What is needed to record a run."""

    run_id: str
    """The run that was meant."""
    root_id: str
    """The run that it is a part of; the token is good for all of that."""
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTaken:
    """A batch is on record."""

    applied: bool
    """False: it was before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRenewal:
    """A process has a run, and goes on with it."""

    incarnation: int
    seconds: float
    host: str = ""
    pid: int = 0
    process_started: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseBegin:
    """A process takes a run over."""

    host: str
    pid: int
    process_started: float
    seconds: float
    force: bool = False
    gone: RunLease | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Incarnation:
    """Which process of a run it is."""

    incarnation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseStanding:
    """Who has a run."""

    lease: RunLease | None
    is_alive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """What others ask of a run and of its subflows."""

    requests: tuple[RunRequest, ...] = ()
    """Those that wait for an answer, oldest first."""
    fenced: bool = False
    """Whether a later process has taken the run over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOutcome:
    """What became of a request."""

    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessNote:
    """Processes that work for a run."""

    processes: tuple[ProcessInfo, ...] = ()
    ended: tuple[ProcessInfo, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotsWish:
    """Slots of limits for so long."""

    request: SlotRequest
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """For how long."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who holds something."""

    holder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether somebody has what was asked for."""

    granted: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holders:
    """Who still holds something."""

    holders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheKeys:
    """Keys of values."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheFound:
    """Values by key."""

    entries: Mapping[str, CacheEntry] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheKept:
    """Values to keep."""

    entries: tuple[CacheEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheClaim:
    """Somebody wants to compute a value."""

    key: str
    holder: str
    seconds: float
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """Task runs whose values count no more."""

    runs: tuple[TaskRunKey, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """How much was removed."""

    removed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """There is nothing more to say."""
