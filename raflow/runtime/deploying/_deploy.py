"""A deployment from a flow and the directory that it is in."""

from __future__ import annotations

import inspect
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

import pydantic_core

from raflow import config, errors
from raflow._util import installed_packages
from raflow.bundles import Packed, pack
from raflow.define import Flow
from raflow.model import (
    Deployment,
    DeploymentSpec,
    DeploymentVersion,
    FlowVersion,
    ScheduleSpec,
    check_deployment_name,
)
from raflow.model.schedule import fill_slot

_ROOT_MARKS: Final = ("pyproject.toml", ".git")


class Deploys(Protocol):
    """What takes deployments."""

    def has_bundle(self, digest: str) -> bool:
        """Whether the code of that name is there."""

    def put_bundle(self, digest: str, chunks: Iterable[bytes]) -> None:
        """Send the archive of a bundle."""

    def put(
        self, name: str, version: DeploymentVersion, code: FlowVersion
    ) -> tuple[Deployment, bool]:
        """Have a deployment use a version; return whether it was made."""


class Packing(Protocol):
    """Packs a directory; see `bundles.pack`."""

    def __call__(self, root: Path, *, include: Sequence[str], exclude: Sequence[str]) -> Packed: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A deployment that was checked and packed, and not sent."""

    name: str
    version: DeploymentVersion
    code: FlowVersion
    root: Path
    packed: Packed


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """What a deploy has done."""

    deployment: Deployment
    is_new: bool
    """Whether a version was made; if not, nothing has changed."""
    root: Path
    """The directory that was packed."""
    packed: Packed
    was_sent: bool
    """Whether the code was sent; if not, it was there."""


def deploy(
    flow: Flow[..., Any],
    spec: DeploymentSpec,
    to: Deploys,
    *,
    name: str,
    schedules: Sequence[ScheduleSpec] = (),
    root: Path | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    actor: str = "",
    note: str = "",
) -> Deployed:
    """Make a deployment of a flow, or a new version of it; nothing if nothing is different.

    Args:
        flow: The flow, defined in a file below `root`.
        spec: What is said of it. Its flow and entrypoint are found here: leave them empty.
        to: What takes it.
        name: Of the deployment: small letters, digits, `.`, `_` and `-`.
        schedules: When it runs by itself; see `model.schedule_specs`.
        root: The directory whose code the runs have. Default: the first above the flow's file with
            a `pyproject.toml` or `.git` in it, else the file's own.
        include: Files that are packed in any case; see `bundles.pack`.
        exclude: Patterns of what is left out besides what ignore files name.
        actor: Who does this.
        note: What a person says about it.

    Raises:
        DefinitionError: The flow is in no file, or the name is none for a deployment.
        ParameterError: The flow does not take parameters of the spec or a schedule, or they are not
            JSON; or a schedule leaves out one that the flow needs.
        BundleError: The directory cannot be packed, or leaves the flow out.
    """
    prepared = prepare(
        flow,
        spec,
        name=name,
        schedules=schedules,
        root=root,
        include=include,
        exclude=exclude,
        actor=actor,
        note=note,
    )
    return send(prepared, to)


def prepare(
    flow: Flow[..., Any],
    spec: DeploymentSpec,
    *,
    name: str,
    schedules: Sequence[ScheduleSpec] = (),
    root: Path | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    actor: str = "",
    note: str = "",
    packing: Packing = pack,
) -> Prepared:
    """Check and pack a deployment, and send nothing; see `deploy`.

    Args:
        flow: The flow.
        spec: What is said of it.
        name: Of the deployment.
        schedules: When it runs by itself.
        root: The directory.
        include: Files that are packed in any case.
        exclude: Patterns of what is left out.
        actor: Who does this.
        note: What a person says about it.
        packing: What packs the directory.
    """
    check_deployment_name(name)
    parameters = _plain(flow, spec.parameters)
    wanted = tuple(_scheduled(flow, parameters, one) for one in schedules)
    file = _file_of(flow)
    top = _root_of(flow, file, root)
    packed = packing(top, include=include, exclude=[*exclude, *_own_home(top)])
    place = _place(flow, file, top, packed)
    said = replace(
        spec, flow=flow.name, entrypoint=f"{place}:{flow.fn.__name__}", parameters=parameters
    )
    version = _version(flow, said, packed, wanted, actor=actor, note=note)
    code = _code(flow, said.entrypoint)
    return Prepared(name=name, version=version, code=code, root=top, packed=packed)


def send(prepared: Prepared, to: Deploys) -> Deployed:
    """Send what was prepared; nothing if nothing is different."""
    version, packed = prepared.version, prepared.packed
    was_there = to.has_bundle(version.bundle)
    if not was_there:
        to.put_bundle(version.bundle, packed.chunks())
    deployment, is_new = to.put(prepared.name, version, prepared.code)
    return Deployed(
        deployment=deployment,
        is_new=is_new,
        root=prepared.root,
        packed=packed,
        was_sent=not was_there,
    )


def _version(
    flow: Flow[..., Any],
    spec: DeploymentSpec,
    packed: Packed,
    schedules: tuple[ScheduleSpec, ...],
    *,
    actor: str,
    note: str,
) -> DeploymentVersion:
    """Return a version; its number, digest and time are for the store to give."""
    return DeploymentVersion(
        number=0,
        spec=spec,
        digest="",
        bundle=packed.manifest.digest,
        fingerprint=flow.fingerprint(),
        parameter_schema=flow.parameter_schema(),
        python=platform.python_version(),
        packages=installed_packages(),
        schedules=schedules,
        actor=actor,
        note=note,
    )


def _code(flow: Flow[..., Any], entrypoint: str) -> FlowVersion:
    return FlowVersion(
        flow=flow.name,
        fingerprint=flow.fingerprint(),
        version=flow.version,
        description=flow.description,
        entrypoint=entrypoint,
        source=flow.source,
        parameter_schema=flow.parameter_schema(),
        created_at=time.time(),
    )


def _scheduled(
    flow: Flow[..., Any], parameters: Mapping[str, Any], schedule: ScheduleSpec
) -> ScheduleSpec:
    """Return a schedule whose runs the flow takes: nobody is there to give them parameters."""
    own = _plain(flow, schedule.parameters)
    zone = schedule.schedule.rule.timezone
    try:
        flow.validate_arguments(fill_slot({**parameters, **own}, datetime.now(UTC), zone))
    except errors.ParameterError as error:
        raise errors.ParameterError(
            f"Runs of schedule {schedule.name!r} could not begin: {error} Give parameters to the "
            "deployment or to the schedule."
        ) from error
    return replace(schedule, parameters=own)


def _plain(flow: Flow[..., Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON form of parameters, which the flow must take."""
    known = flow.parameter_schema().get("properties", {})
    for name in parameters:
        if name not in known:
            near = errors.closest(name, known)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise errors.ParameterError(f"Flow {flow.name!r} has no parameter {name!r}.{hint}")
    try:
        plain: dict[str, Any] = pydantic_core.to_jsonable_python(dict(parameters))
    except ValueError as error:  # pydantic's own is one, and circular values are another
        raise errors.ParameterError(
            f"The parameters of a deployment of flow {flow.name!r} must be JSON: {error}."
        ) from error
    return plain


def _file_of(flow: Flow[..., Any]) -> Path:
    file = Path(inspect.unwrap(flow.fn).__code__.co_filename)
    if not file.is_file():
        raise errors.DefinitionError(
            f"Flow {flow.name!r} is defined in {str(file)!r}, which is no file. Write it in a "
            "Python file, so that a worker can load it."
        )
    return file.resolve()


def _root_of(flow: Flow[..., Any], file: Path, given: Path | None) -> Path:
    """Return the directory that is packed: what a person calls the project."""
    if given is None:
        marked = (
            folder
            for folder in file.parents
            if any((folder / mark).exists() for mark in _ROOT_MARKS)
        )
        return next(marked, file.parent)
    root = given.resolve()
    if not file.is_relative_to(root):
        raise errors.BundleError(
            f"Flow {flow.name!r} is in {str(file)!r}, which is not below {str(root)!r}. Give a "
            "`root` (--root) that holds it."
        )
    return root


def _own_home(root: Path) -> list[str]:
    """Return the pattern of raflow's own directory, if it is in a directory that is packed."""
    home = config.load().home.resolve()
    if root == home or not home.is_relative_to(root):
        return []
    return [f"/{home.relative_to(root).as_posix()}/"]


def _place(flow: Flow[..., Any], file: Path, root: Path, packed: Packed) -> str:
    """Return where the flow is in the bundle."""
    place = file.relative_to(root).as_posix()
    if all(entry.path != place for entry in packed.manifest.entries):
        raise errors.BundleError(
            f"The file of flow {flow.name!r}, {place!r}, is left out by the ignore files of "
            f"{str(root)!r}. Take it in with a line {'!' + place!r} in .raflowignore.",
            path=place,
        )
    return place
