"""Deployments and their versions as rows of their tables, and back."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pydantic

from raflow import model
from raflow.store._rows import _values

if TYPE_CHECKING:
    import sqlalchemy as sa


def version(name: str, of: model.DeploymentVersion) -> _values.Row:
    """Return the row of a version of a deployment."""
    return (
        name,
        of.number,
        _spec(of.spec),
        _schedules(of.schedules),
        of.digest,
        of.bundle,
        _values.text(of.spec.flow),
        of.fingerprint,
        _values.text(of.spec.entrypoint),
        _canonical(of.parameter_schema),
        of.python,
        _canonical(of.packages),
        _values.text(of.actor),
        of.created_at,
        _values.text(of.note),
    )


def digest(of: model.DeploymentVersion) -> str:
    """Return a hash of all that makes a version: not of who made it, when, and what they said."""
    parts = [
        _spec(of.spec),
        _schedules(of.schedules),
        of.bundle,
        of.fingerprint,
        of.python,
        _canonical(of.packages),
        _canonical(of.parameter_schema),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def read_version(row: sa.Row[Any]) -> model.DeploymentVersion:
    """Return the version of a row."""
    return model.DeploymentVersion(
        number=row.number,
        spec=read_spec(row.spec),
        digest=row.digest,
        bundle=row.bundle,
        fingerprint=row.fingerprint,
        parameter_schema=_values.from_json(row.parameter_schema),
        python=row.python,
        packages=_values.from_json(row.packages),
        schedules=_schedules_form().validate_json(row.schedules),
        actor=row.actor,
        created_at=row.created_at,
        note=row.note,
    )


def read_deployment(row: sa.Row[Any], spec: model.DeploymentSpec) -> model.Deployment:
    """Return the deployment of a row, whose version says `spec`."""
    return model.Deployment(
        name=row.name,
        flow=row.flow,
        version=row.version,
        spec=dataclasses.replace(
            spec, pool=row.pool, priority=row.priority, concurrency=row.concurrency
        ),
        paused=row.paused,
        revision=row.revision,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def read_spec(text: str) -> model.DeploymentSpec:
    """Return what a version says."""
    return _spec_form().validate_json(text)


def _spec(spec: model.DeploymentSpec) -> str:
    said = _spec_form().dump_python(spec, mode="json")
    # What came later is left out where it says nothing: versions of before stay the same.
    return _canonical(said if spec.project else {k: v for k, v in said.items() if k != "project"})


def _schedules(schedules: tuple[model.ScheduleSpec, ...]) -> str:
    return _canonical(_schedules_form().dump_python(schedules, mode="json"))


def _canonical(value: Mapping[str, Any] | list[Any]) -> str:
    """Return the one JSON text of a value, which both databases can hold."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=dict)


@functools.cache
def _spec_form() -> pydantic.TypeAdapter[model.DeploymentSpec]:
    return pydantic.TypeAdapter(model.DeploymentSpec)


@functools.cache
def _schedules_form() -> pydantic.TypeAdapter[tuple[model.ScheduleSpec, ...]]:
    return pydantic.TypeAdapter(tuple[model.ScheduleSpec, ...])
