"""Limits that runs share, and values that were computed before."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from pydantic import Field

from raflow import model
from raflow.model import Permission
from raflow.server._router import Routes, Verbs
from raflow.server.schemas import CacheEntryOut, In, Limit, LimitIn, LimitOut, Page, RemovedOut

routes = Routes("limits")


@routes.get("/limits", Permission.READ)
def list_limits(verbs: Verbs) -> Page[LimitOut]:
    """List every limit with those who hold its slots and those in line, sorted by name."""
    return Page(items=[LimitOut.of(state) for state in verbs.limits.all()])


@routes.get("/limits/{name}", Permission.READ)
def get_limit(name: str, verbs: Verbs) -> LimitOut:
    """Return a limit."""
    return LimitOut.of(verbs.limits.get(name))


@routes.put("/limits/{name}", Permission.AUTHOR)
def set_limit(name: str, wanted: LimitIn, verbs: Verbs) -> LimitOut:
    """Set a limit, or change it; those who hold more than it allows now keep that."""
    limit = model.Limit(name=name, slots=wanted.slots, per_seconds=wanted.per_seconds)
    return LimitOut.of(verbs.limits.set(limit))


@routes.delete("/limits/{name}", Permission.AUTHOR, status_code=204)
def remove_limit(name: str, verbs: Verbs) -> None:
    """Remove a limit, with those who hold or await its slots."""
    verbs.limits.remove(name)


class CacheQuery(In):
    """Which cached values."""

    task: str | None = None
    limit: Limit = 50


@routes.get("/cache", Permission.READ)
def list_cache(query: Annotated[CacheQuery, Query()], verbs: Verbs) -> Page[CacheEntryOut]:
    """List cached values, newest first."""
    found = verbs.cache.entries(task=query.task, limit=query.limit)
    return Page(items=[CacheEntryOut.of(entry) for entry in found])


class CacheRemoval(In):
    """Which cached values are forgotten; with none of these all are."""

    key: str | None = None
    task: str | None = None
    older_than: Annotated[float, Field(ge=0, le=1e10, allow_inf_nan=False)] | None = None
    """Only those that were computed more than so many seconds ago."""


@routes.delete("/cache", Permission.AUTHOR)
def clear_cache(query: Annotated[CacheRemoval, Query()], verbs: Verbs) -> RemovedOut:
    """Forget cached values; the results of runs stay."""
    removed = verbs.cache.clear(key=query.key, task=query.task, older_than=query.older_than)
    return RemovedOut(removed=removed)
