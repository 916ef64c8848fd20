"""What is different between two versions of a deployment."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from raflow.model import DeploymentVersion

if TYPE_CHECKING:
    from raflow.bundles import Manifest


class Change(NamedTuple):
    """A value that is different."""

    path: str
    """Such as `parameters.regions` or `packages.numpy`."""
    before: Any
    """None: it was not there."""
    after: Any
    """None: it is not there any more."""


class FileChange(NamedTuple):
    """A file that is different."""

    path: str
    change: Literal["added", "removed", "changed"]


def changes(before: DeploymentVersion, after: DeploymentVersion) -> list[Change]:
    """Return what is said differently, sorted by path."""
    return sorted(_compared("", _plain(before), _plain(after)), key=lambda change: change.path)


def file_changes(before: Manifest, after: Manifest) -> list[FileChange]:
    """Return which files are different, sorted by path."""
    old = {entry.path: entry for entry in before.entries}
    new = {entry.path: entry for entry in after.entries}
    found = [FileChange(path, "removed") for path in old.keys() - new.keys()]
    found += [FileChange(path, "added") for path in new.keys() - old.keys()]
    common = old.keys() & new.keys()
    found += [FileChange(path, "changed") for path in common if old[path] != new[path]]
    return sorted(found)


def _plain(version: DeploymentVersion) -> dict[str, Any]:
    """Return what makes a version, without its code."""
    said = {
        field.name: getattr(version.spec, field.name) for field in dataclasses.fields(version.spec)
    }
    return {
        **said,
        "python": version.python,
        "packages": version.packages,
        "parameter_schema": version.parameter_schema,
        "schedules": {schedule.name: schedule for schedule in version.schedules},
    }


def _compared(path: str, before: Any, after: Any) -> Iterator[Change]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in before.keys() | after.keys():
            inner = f"{path}.{key}" if path else str(key)
            yield from _compared(inner, before.get(key), after.get(key))
    elif before != after:
        yield Change(path, before, after)
