"""Deployments: which version of which flow a service runs, with what, when and where."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal

from raflow import errors
from raflow.model.schedule import Policy, Rule, Schedule

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


class Isolation(StrEnum):
    """What the runs of a deployment share."""

    SHARED = "shared"
    """The process and the Ray job of the runs of the same version before them."""
    PROCESS = "process"
    """Nothing: a process of its own for each run."""
    JOB = "job"
    """Nothing: a Ray job of its own for each run."""


class OnCrash(StrEnum):
    """What becomes of a run whose process died."""

    RESUME = "resume"
    """Another worker goes on with it."""
    CRASH = "crash"
    """It is brought to its end: Crashed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSpec:
    """What a person says of a deployment; a change of it makes a new version."""

    flow: str
    """Name of the flow."""
    entrypoint: str
    """Where the flow is, below the root of the bundle: `flows/etl.py:etl`."""
    pool: str = "default"
    """Workers of this pool run it."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Those that its runs get unless they are given others."""
    tags: tuple[str, ...] = ()
    """Tags of each run."""
    priority: int = 0
    """Runs with a higher one begin first."""
    concurrency: int | None = None
    """How many of its runs may be under way at the same time. Default: any number."""
    on_crash: OnCrash = OnCrash.RESUME
    max_resumes: int = 3
    """How often a run goes on by itself after its process died."""
    isolation: Isolation = Isolation.SHARED
    offline_seconds: float = 300.0
    """How long a run goes on without the service."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that are set before user code."""
    packages: Literal["check", "ignore"] = "check"
    """Whether a worker must have the Python and the packages of the version."""
    description: str = ""
    project: str = ""
    """The `raflow.yaml` that it is described in, by the name that stands there; empty: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """The code of versions of deployments, as it is stored."""

    digest: str
    """Its name."""
    size: int
    """Bytes of the archive."""
    files: int
    unpacked: int
    """Bytes of the files."""
    url: str
    """Storage that the archive is in."""
    manifest: bytes
    """A line for each file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSpec:
    """A schedule of a deployment, as a person writes it."""

    name: str
    """Unique in the deployment."""
    schedule: Schedule
    policy: Policy = field(default_factory=Policy)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """In place of those of the deployment."""
    active: bool = True


def check_deployment_name(name: str) -> None:
    """Refuse what is no name of a deployment.

    Raises:
        DefinitionError: It is none.
    """
    if not _NAME.fullmatch(name):
        raise errors.DefinitionError(
            f"{name!r} is no name of a deployment. Write up to 100 small letters, digits, '.', "
            "'_' and '-', beginning with a letter or digit."
        )


def schedule_specs(given: Iterable[ScheduleSpec | Schedule | Rule]) -> tuple[ScheduleSpec, ...]:
    """Return the schedules of a deployment, each with a name.

    Args:
        given: Schedules; those without a name get that of their rule: `cron`, and `cron-2` if there
            is one already.

    Raises:
        ScheduleError: Two have the same name, or one is no name.
    """
    specs: dict[str, ScheduleSpec] = {}
    for one in given:
        if isinstance(one, ScheduleSpec):
            spec = one
        else:
            schedule = one if isinstance(one, Schedule) else Schedule(rule=one)
            spec = ScheduleSpec(name=_free(schedule.rule.kind, specs), schedule=schedule)
        if not _NAME.fullmatch(spec.name):
            raise errors.ScheduleError(
                f"{spec.name!r} is no name of a schedule. Write up to 100 small letters, digits, "
                "'.', '_' and '-', beginning with a letter or digit."
            )
        if spec.name in specs:
            raise errors.ScheduleError(
                f"Two schedules have the name {spec.name!r}. Give each a name of its own."
            )
        specs[spec.name] = spec
    return tuple(specs.values())


def _free(kind: str, taken: Mapping[str, ScheduleSpec]) -> str:
    names = (kind if number == 1 else f"{kind}-{number}" for number in itertools.count(1))
    return next(name for name in names if name not in taken)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentVersion:
    """A deployment as it was at one moment; never changed."""

    number: int
    """From 1."""
    spec: DeploymentSpec
    digest: str
    """Of everything that makes a version; equal ones are the same version."""
    bundle: str
    """Digest of the code."""
    fingerprint: str
    """Hash of the code of the flow and its tasks."""
    parameter_schema: Mapping[str, Any] = field(default_factory=dict)
    """JSON Schema of the parameters."""
    python: str = ""
    """Version of Python that it was made with."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Versions of the packages that it was made with."""
    schedules: tuple[ScheduleSpec, ...] = ()
    actor: str = ""
    """Who made it."""
    created_at: float = 0.0
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A deployment as it stands: a name that points at one of its versions."""

    name: str
    flow: str
    version: int
    """The one that new runs use."""
    spec: DeploymentSpec
    """That of the version, with pool, priority and concurrency as they are set now."""
    paused: bool = False
    """Whether its schedules start no runs, and none of its runs begins."""
    revision: int = 1
    """Counts the changes."""
    created_at: float = 0.0
    updated_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRow:
    """A schedule of a deployment, and how far it has come."""

    id: str
    deployment: str
    """Name of the deployment."""
    name: str
    spec: ScheduleSpec | None
    """None: it cannot be read here; `error` says why."""
    active: bool
    generation: int
    """Counts the changes of what its slots are."""
    cursor: float
    """Slots up to here have been decided."""
    next_at: float | None
    """When to decide again; None: never, or not while it is paused."""
    error: str = ""
    """Why its slots cannot be told; it is paused then."""
