"""What keeps a flow run alive beyond its process: leases, requests, limits and kept values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

from raflow.model._report import ResultInfo, TaskRunKey


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLease:
    """A process's time-limited claim to drive a flow run."""

    flow_run_id: str
    incarnation: int
    """Which process of the run it is, from 1: what an earlier one still writes is refused."""
    host: str
    pid: int
    process_started: float
    """When the process began: seconds since the Unix epoch. Tells it from one with its id now."""
    renewed_at: float
    expires_at: float
    """By the clock of the database, as all times of leases."""
    since: float = 0.0
    """When this process began to drive the run."""


TAKEN: Final = "taken"
"""The outcome of a request that its run has taken."""
NOT_PAUSED: Final = "it was not paused"
"""The outcome of a request to go on, of a run that does so anyway."""
BEING_SUSPENDED: Final = "it is being suspended"
"""The outcome of a request to go on, of a run that does so in another process."""


class RequestKind(StrEnum):
    """What somebody can ask of a flow run that another process drives."""

    CANCEL = "cancel"
    PAUSE = "pause"
    UNPAUSE = "unpause"
    SUSPEND = "suspend"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """Something that was asked of a flow run."""

    id: int
    flow_run_id: str
    kind: RequestKind
    by: str
    """Who asked: `user@host`, or the name of a token."""
    at: float
    message: str = ""
    outcome: str = ""
    """What became of it; empty as long as nobody has taken it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRequest:
    """What a flow asks of people, and their answer."""

    flow_run_id: str
    number: int
    """Which question of the run it is, from 0, in the order in which the body asks."""
    title: str
    """Name of the model, for people."""
    form: Mapping[str, Any]
    """JSON Schema of the answer."""
    asked_at: float
    expires_at: float | None = None
    """When the default counts; None: never."""
    default: bytes | None = None
    """JSON of the answer that counts if nobody gives one in time."""
    assignees: tuple[str, ...] = ()
    """Who should answer; empty: anybody."""
    answer: bytes | None = None
    """JSON; None as long as there is none."""
    answered_by: str = ""
    """Empty if the default counts."""
    answered_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How much of something all flow runs of a store may use together."""

    name: str
    slots: int
    """How many slots there are; of a rate, how many are handed out per `per_seconds`."""
    per_seconds: float = 0.0
    """0: slots are given back. Otherwise a rate: each comes back so long after it was taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRequest:
    """What a task run, or a piece of code, wants of limits: all of it or nothing."""

    holder: str
    """Unique to the claim: `run/node/item/attempt`, for example."""
    flow_run_id: str
    label: str
    """Who it is, for people: `load-0 of run etl-41fc`."""
    amounts: Mapping[str, int]
    """Slots by name of the limit."""
    priority: int = 0
    """Higher goes first; equals in the order in which they came."""


class Granted(NamedTuple):
    """It is the holder's, as long as it is renewed; true in a condition."""

    def __bool__(self) -> bool:
        return True


class Awaited(NamedTuple):
    """Not enough is free, or others came first; false in a condition."""

    reason: str
    """Which limit, how full, held by whom: in words a person can act on."""

    def __bool__(self) -> bool:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotLease:
    """Slots of a limit that somebody holds, or waits for."""

    holder: str
    flow_run_id: str
    label: str
    amount: int
    priority: int
    since: float
    expires_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitState:
    """A limit, who holds its slots, and who waits."""

    limit: Limit
    holders: tuple[SlotLease, ...] = ()
    waiters: tuple[SlotLease, ...] = ()
    """In the order in which they will be served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry:
    """A value that was computed, under the key of its inputs."""

    key: str
    result: ResultInfo
    """Always one that was kept."""
    flow_run_id: str
    """The run that computed it."""
    run: TaskRunKey
    task: str
    created_at: float
    expires_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessInfo:
    """A process that worked for a flow run, and may have been left behind."""

    host: str
    pid: int
    started_at: float
    """Seconds since the Unix epoch: with `pid` and `host` it names one process for ever."""
    role: str
    """`driver`, `ray worker`, `raylet`, `gcs`, `child` ..."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunNumbers:
    """Where the record of a resumed run goes on counting."""

    batch: int = 0
    change: int = 0
    block: int = 0
    segment: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """How values of a task are found again."""

    expires_seconds: float | None = None
    """How long a value counts. None: for ever."""
    refresh: bool = False
    """Compute anew, and keep that."""
