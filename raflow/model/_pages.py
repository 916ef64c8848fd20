"""Lists of flow runs, page by page."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar

from raflow.model._records import Trigger
from raflow.model._state import State, StateName

T = TypeVar("T")


class Sort(StrEnum):
    """The order of a list."""

    NEWEST = "-created_at"
    OLDEST = "created_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which flow runs; what is left out does not matter."""

    flow: str | None = None
    deployment: str | None = None
    pool: str | None = None
    schedule_id: str | None = None
    backfill_id: str | None = None
    states: frozenset[StateName] = frozenset()
    """In one of these states."""
    tags: frozenset[str] = frozenset()
    """With all of these tags."""
    name: str = ""
    """Whose name begins like this."""
    name_contains: str = ""
    since: float | None = None
    """Made then or later."""
    until: float | None = None
    """Made before then."""
    parent: str | None = None
    """Started by the body of this flow run."""
    roots: bool = False
    """Started by no other flow run."""
    triggers: frozenset[Trigger] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What lists show of a flow run."""

    id: str
    flow: str
    name: str
    state: State
    created_at: float
    started_at: float | None = None
    ended_at: float | None = None
    begins_at: float | None = None
    trigger: Trigger = Trigger.MANUAL
    tags: tuple[str, ...] = ()
    deployment: str | None = None
    version: int | None = None
    """Of the deployment."""
    pool: str | None = None
    parent_id: str | None = None
    schedule_id: str | None = None
    slot: float | None = None
    error_type: str | None = None
    error_message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """A part of a list."""

    items: tuple[T, ...]
    next_cursor: str = ""
    """What the next page begins behind; empty: this was the last one."""


class Count(NamedTuple):
    """How many there are."""

    n: int
    exact: bool
    """False: there are more than `n`."""
