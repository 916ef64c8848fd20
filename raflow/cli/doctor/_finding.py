"""What a check of the doctor has found."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Health(StrEnum):
    """How a check went."""

    OK = "ok"
    WARNING = "warning"
    """A run can work, or fail later."""
    FAILED = "failed"
    """A run cannot work."""


class Finding(NamedTuple):
    """What was found, and how to mend it."""

    health: Health
    found: str
    remedy: str = ""


class Check(NamedTuple):
    """What was looked at, and what was found."""

    name: str
    health: Health
    found: str
    remedy: str = ""


def sound(found: str) -> Finding:
    """Say that all is well."""
    return Finding(Health.OK, found)


def doubtful(found: str, remedy: str) -> Finding:
    """Say what will not always work."""
    return Finding(Health.WARNING, found, remedy)


def broken(found: str, remedy: str = "") -> Finding:
    """Say what does not work."""
    return Finding(Health.FAILED, found, remedy)
