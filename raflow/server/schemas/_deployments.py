"""Deployments, their versions and their code, as the wire has them."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, Field

from raflow import model
from raflow.model import Isolation, OnCrash
from raflow.server.schemas._base import In, Out, moment, plain, text
from raflow.server.schemas._schedules import ScheduleIn, WhenOut
from raflow.service import Change

_INT32 = 2**31 - 1
_HIDDEN = "***"
_Name = Annotated[str, Field(max_length=200)]
_Span = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
_Whole = Annotated[int, Field(ge=-_INT32, le=_INT32)]


class DeployedScheduleIn(ScheduleIn):
    """A schedule that comes with a deployment."""

    name: _Name

    def spec(self) -> model.ScheduleSpec:
        """Return it as the service takes it."""
        return self.named(self.name)


class DeploymentIn(In):
    """What a deployment is to be, once its bundle is there."""

    flow: _Name
    entrypoint: Annotated[str, Field(max_length=2000)]
    """Where the flow is, below the root of the bundle: `flows/etl.py:etl`."""
    bundle: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Digest of the code."""
    fingerprint: _Name
    """Hash of the code of the flow and its tasks."""
    parameter_schema: dict[str, Any] = Field(default_factory=dict)
    """JSON Schema of the parameters."""
    pool: Annotated[str, Field(min_length=1, max_length=200)] = "default"
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Those that its runs get unless they are given others."""
    tags: list[_Name] = Field(default_factory=list, max_length=100)
    priority: _Whole = 0
    """Runs with a higher one begin first."""
    concurrency: Annotated[int, Field(ge=1, le=_INT32)] | None = None
    """How many of its runs may be under way at the same time; null: any number."""
    on_crash: OnCrash = OnCrash.RESUME
    max_resumes: Annotated[int, Field(ge=0, le=_INT32)] = 3
    isolation: Isolation = Isolation.SHARED
    offline_seconds: _Span = 300.0
    environment: dict[str, str] = Field(default_factory=dict)
    package_check: Literal["check", "ignore"] = "check"
    """Whether a worker must have the Python and the packages of the version."""
    description: str = ""
    schedules: list[DeployedScheduleIn] = Field(default_factory=list, max_length=1000)
    python: _Name = ""
    packages: dict[str, str] = Field(default_factory=dict)
    """Versions of the packages that it was made with."""
    note: str = ""
    """What is new, for people."""
    flow_version: str = ""
    """What the flow says of its version."""
    flow_description: str = ""
    source: str = ""
    """Of the flow's function."""

    def version(self) -> model.DeploymentVersion:
        """Return the version that it is to use; its number, digest and time are given later."""
        return model.DeploymentVersion(
            number=0,
            digest="",
            spec=model.DeploymentSpec(
                flow=self.flow,
                entrypoint=self.entrypoint,
                pool=self.pool,
                parameters=self.parameters,
                tags=tuple(self.tags),
                priority=self.priority,
                concurrency=self.concurrency,
                on_crash=self.on_crash,
                max_resumes=self.max_resumes,
                isolation=self.isolation,
                offline_seconds=self.offline_seconds,
                environment=self.environment,
                packages=self.package_check,
                description=self.description,
            ),
            bundle=self.bundle,
            fingerprint=self.fingerprint,
            parameter_schema=self.parameter_schema,
            python=self.python,
            packages=self.packages,
            schedules=model.schedule_specs(one.spec() for one in self.schedules),
            note=self.note,
        )

    def code(self) -> model.FlowVersion:
        """Return the version of the flow's code that runs of it will refer to."""
        return model.FlowVersion(
            flow=self.flow,
            fingerprint=self.fingerprint,
            version=self.flow_version,
            description=self.flow_description,
            entrypoint=self.entrypoint,
            source=self.source,
            parameter_schema=self.parameter_schema,
            created_at=time.time(),
        )


class SpecOut(Out):
    """What is said of a deployment."""

    flow: str
    entrypoint: str
    pool: str
    parameters: dict[str, Any]
    tags: list[str]
    priority: int
    concurrency: int | None
    on_crash: OnCrash
    max_resumes: int
    isolation: Isolation
    offline_seconds: float
    environment: list[str]
    """Names of the variables that are set; their values may be secrets."""
    package_check: str
    description: str

    @classmethod
    def of(cls, spec: model.DeploymentSpec) -> Self:
        """Return it as the wire has it."""
        return cls(
            flow=text(spec.flow),
            entrypoint=text(spec.entrypoint),
            pool=text(spec.pool),
            parameters=plain(dict(spec.parameters)),
            tags=[text(tag) for tag in spec.tags],
            priority=spec.priority,
            concurrency=spec.concurrency,
            on_crash=spec.on_crash,
            max_resumes=spec.max_resumes,
            isolation=spec.isolation,
            offline_seconds=spec.offline_seconds,
            environment=sorted(map(text, spec.environment)),
            package_check=spec.packages,
            description=text(spec.description),
        )


class DeploymentOut(Out):
    """A name that points at a version of some code."""

    name: str
    flow: str
    version: int
    """The one that new runs use."""
    paused: bool
    revision: int
    """Counts the changes; `If-Match` names it."""
    created_at: datetime
    updated_at: datetime
    spec: SpecOut
    """That of the version, with pool, priority and concurrency as they are set now."""

    @classmethod
    def of(cls, found: model.Deployment) -> Self:
        """Return it as the wire has it."""
        return cls(
            name=found.name,
            flow=text(found.flow),
            version=found.version,
            paused=found.paused,
            revision=found.revision,
            created_at=moment(found.created_at),
            updated_at=moment(found.updated_at),
            spec=SpecOut.of(found.spec),
        )


class DeployedOut(Out):
    """What a deploy has done."""

    deployment: DeploymentOut
    made_version: bool
    """False: what it is to be it was already."""


class DeployedScheduleOut(Out):
    """A schedule as a version says it."""

    name: str
    active: bool
    when: WhenOut


class DeploymentVersionOut(Out):
    """A deployment as it was at one moment."""

    number: int
    digest: str
    bundle: str
    fingerprint: str
    parameter_schema: dict[str, Any]
    python: str
    packages: dict[str, str]
    schedules: list[DeployedScheduleOut]
    actor: str
    created_at: datetime
    note: str
    spec: SpecOut

    @classmethod
    def of(cls, found: model.DeploymentVersion) -> Self:
        """Return it as the wire has it."""
        return cls(
            number=found.number,
            digest=found.digest,
            bundle=found.bundle,
            fingerprint=found.fingerprint,
            parameter_schema=plain(dict(found.parameter_schema)),
            python=text(found.python),
            packages=plain(dict(found.packages)),
            schedules=[
                DeployedScheduleOut(name=one.name, active=one.active, when=WhenOut.of(one))
                for one in found.schedules
            ],
            actor=text(found.actor),
            created_at=moment(found.created_at),
            note=text(found.note),
            spec=SpecOut.of(found.spec),
        )


class SettingDiffOut(Out):
    """A value that is different; those of environment variables are not told."""

    path: str
    before: Any
    """Null: it was not there."""
    after: Any
    """Null: it is not there any more."""

    @classmethod
    def of(cls, change: Change) -> Self:
        """Return it as the wire has it."""
        hidden = change.path.startswith("environment.")
        return cls(
            path=text(change.path),
            before=_HIDDEN if hidden and change.before is not None else plain(change.before),
            after=_HIDDEN if hidden and change.after is not None else plain(change.after),
        )


class FileDiffOut(Out):
    """A file that is different."""

    path: str
    change: Literal["added", "removed", "changed"]


class DiffOut(Out):
    """What is different between two versions."""

    before: int
    after: int
    settings: list[SettingDiffOut]
    files: list[FileDiffOut]


class RollbackIn(In):
    """Which version new runs are to use."""

    version: Annotated[int, Field(ge=1, le=_INT32)]


class RunIn(In):
    """A run of a deployment that somebody wants."""

    parameters: dict[str, Any] = Field(default_factory=dict)
    """In place of those of the deployment."""
    begins_at: AwareDatetime | None = None
    """At the earliest; null: now."""
    name: _Name = ""
    """Default: made from the flow's name."""
    tags: list[_Name] = Field(default_factory=list, max_length=100)
    """Besides those of the deployment."""


class OrderedOut(Out):
    """A run that is ordered."""

    id: str
    is_new: bool
    """False: it was ordered before, under the same key."""


class RemovedDeploymentOut(Out):
    """What became of a deployment that was removed."""

    cancelled: int
    """Runs that waited."""


class BundleOut(Out):
    """Code, under the digest of its files."""

    digest: str
    size: int
    """Bytes of the archive."""
    files: int
    unpacked: int
    """Bytes of the files."""

    @classmethod
    def of(cls, found: model.Bundle) -> Self:
        """Return it as the wire has it."""
        return cls(digest=found.digest, size=found.size, files=found.files, unpacked=found.unpacked)
