"""Runs of deployments: what is ordered, what waits in which pool, who has taken what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from raflow.model._durable import InputRequest, LimitState, RunLease, RunNumbers, RunRequest
from raflow.model._origin import RunOrigin
from raflow.model._records import FlowRun, TaskRun, Trigger
from raflow.model._state import StateName, StateType


class Stage(StrEnum):
    """How far a run of a deployment that is not over has come."""

    HELD = "held"
    """It waits for other runs of its schedule."""
    WAITING = "waiting"
    """It waits for its time, and then for a worker."""
    CLAIMED = "claimed"
    """A worker has it; what it wants to do for it has not begun."""
    RUNNING = "running"
    PARKED = "parked"
    """It is suspended."""


class Work(StrEnum):
    """What a worker is to do for a run."""

    RUN = "run"
    RESUME = "resume"
    END = "end"
    """Bring it to its end: its process died, and it is not to go on. Its hooks need its code."""


class PoolKind(StrEnum):
    """What the workers of a pool run flows on."""

    RAY = "ray"
    LOCAL = "local"
    """Threads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOrder:
    """A run that a worker shall do."""

    flow_run_id: str
    """Chosen by whoever orders; ordering the same id again changes nothing."""
    flow: str
    fingerprint: str
    name: str
    origin: RunOrigin
    """Its `begins_at` is when the run begins at the earliest. None: now."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    trigger: Trigger = Trigger.API
    tags: tuple[str, ...] = ()
    parent_id: str | None = None
    parent_node: int | None = None
    rerun_of: str | None = None
    choice: Mapping[str, Any] | None = None
    """What a rerun does not reuse."""
    stage: Stage = Stage.WAITING
    """Or held."""
    reason: str = ""
    """Why it does not simply begin."""
    max_resumes: int = 3
    """How often it goes on by itself after its process died."""
    key: tuple[str, str] | None = None
    """Scope and key: ordering something else under the same key is refused, ordering the same is
    the same order."""
    digest: bytes = b""
    """Of what was ordered under the key."""


class Ordered(NamedTuple):
    """A run that was ordered."""

    flow_run_id: str
    is_new: bool
    """False: it was ordered before, under the same key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """Where a run of a deployment that is not over stands."""

    flow_run_id: str
    pool: str
    deployment: str
    stage: Stage
    kind: Work
    priority: int
    begins_at: float
    """No worker gets it before."""
    ordered_at: float
    schedule_id: str | None = None
    backfill_id: str | None = None
    worker_id: str | None = None
    """Who has it, or had it last."""
    incarnation: int = 0
    """The number of the process that has it."""
    refusals: int = 0
    """How often it was given back without having begun."""
    resumes: int = 0
    """How often it went on by itself since a person wanted it to."""
    max_resumes: int = 3
    message: str = ""
    """Why it was given back last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A run that a worker has taken; it has a lease, which the driver of the run renews."""

    flow_run: FlowRun
    work: Work
    incarnation: int
    """What the process that does it writes under."""
    numbers: RunNumbers
    """Where its record goes on counting."""
    choice: Mapping[str, Any] | None = None
    """What a rerun does not reuse."""
    token: str = field(default="", repr=False)
    """With which its process records it; empty where no service keeps the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Workers that share a line of waiting runs."""

    name: str
    concurrency: int | None = None
    """How many of its runs may be under way at the same time. Default: any number."""
    paused: bool = False
    """Whether its workers take no runs."""
    description: str = ""
    kind: PoolKind = PoolKind.RAY


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolState:
    """A pool and what goes on in it."""

    pool: Pool
    counts: Mapping[Stage, int] = field(default_factory=dict)
    """Runs by stage; stages without any are left out."""
    waiting_since: float | None = None
    """Since when the one that waits longest could have begun."""
    workers: int = 0
    """Those that are alive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """A process that takes runs of a pool."""

    id: str
    name: str
    pool: str
    host: str
    pid: int
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of python, raflow and ray."""
    ray_address: str = ""
    started_at: float = 0.0
    seen_at: float = 0.0
    """Its last sign of life, by the clock of the database."""
    expires_at: float = 0.0
    """When it counts as lost without another one."""
    draining: bool = False
    """Whether it takes no more runs, and ends when its own have ended."""
    runners: int = 0
    """How many runs it may have at the same time."""
    busy: int = 0
    """How many it has."""
    token_id: str = ""
    """The token that it showed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """What a worker says of itself, and asks for."""

    info: WorkerInfo
    most: int
    """How many runs it would take; 0: none, it only says that it is there."""
    claim: str
    """Unique to what it asks for: asking again, after an answer that was lost, is the same."""
    waiting: tuple[str, ...] = ()
    """Ids of runs that it has and has not begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Polled:
    """What a worker is told."""

    claims: tuple[Claim, ...] = ()
    drain: bool = False
    """Whether somebody wants it to take no more, and to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitSnapshot:
    """All that tells why a run does not go on, as it was at one moment."""

    at: float
    """By the clock of the database."""
    flow_run: FlowRun
    dispatch: Dispatch | None
    """None: it is over, or none of a deployment."""
    lease: RunLease | None
    pool: PoolState | None = None
    workers: tuple[WorkerInfo, ...] = ()
    """Those of the pool that are alive."""
    pool_holders: tuple[str, ...] = ()
    """Ids of runs that are under way in the pool."""
    ahead: int = 0
    """How many runs of the pool could begin now and go before it."""
    concurrency: int | None = None
    """How many runs of its deployment may be under way."""
    deployment_paused: bool = False
    deployment_under_way: int = 0
    deployment_holders: tuple[str, ...] = ()
    """Ids of runs of the deployment that are under way."""
    schedule_holders: tuple[str, ...] = ()
    """Ids of runs of its schedule that are not over and not held."""
    requests: tuple[RunRequest, ...] = ()
    """What was asked of it and nobody has answered."""
    questions: tuple[InputRequest, ...] = ()
    """What it asks of people and nobody has answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What would let a run go on."""

    text: str
    command: str = ""
    """A command of raflow that does it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Why a run does not go on."""

    code: str
    """For programs: `pool_full`, `no_worker` ..."""
    text: str
    since: float | None = None
    holders: tuple[str, ...] = ()
    """Ids of the runs that it waits for."""
    changes: tuple[Change, ...] = ()
    calls: tuple[str, ...] = ()
    """Labels of the calls of the run that wait for this; empty: the run does. The first twenty."""
    count: int = 0
    """How many calls there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallNote:
    """Why calls completed otherwise than at their first attempt."""

    state: StateName
    """Cached: their values were there already. Recovered: a later attempt completed."""
    text: str
    """Where the values come from, or which attempt it was."""
    calls: tuple[str, ...]
    """Labels; the first twenty."""
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WhySnapshot:
    """All that tells what a flow run and its calls wait for."""

    waits: WaitSnapshot
    calls: tuple[TaskRun, ...] = ()
    """Those that wait, and for something that they know."""
    running: tuple[TaskRun, ...] = ()
    completed: tuple[TaskRun, ...] = ()
    limits: tuple[LimitState, ...] = ()
    """Those that the run waits for."""
    counts: Mapping[StateType, int] = field(default_factory=dict)
    """How many calls are in a state of which type; items of maps count by themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """Why a flow run, or a part of it, does not go on."""

    flow_run: FlowRun
    summary: str
    """In one sentence: whether it waits, goes on or is over."""
    waits: tuple[Wait, ...] = ()
    """What it waits for, what weighs most first; nothing if it is over."""
    running: tuple[TaskRun, ...] = ()
    """Its calls that run, the longest first; the first five."""
    notes: tuple[CallNote, ...] = ()
    """Why calls completed otherwise than at their first attempt."""
