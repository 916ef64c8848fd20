"""Work pools, and the workers that take their runs."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from raflow.model import Permission
from raflow.server._router import Routes, Verbs
from raflow.server.schemas import In, Page, PoolIn, PoolOut, WorkerOut

routes = Routes("pools")


@routes.get("/pools", Permission.READ)
def list_pools(verbs: Verbs) -> Page[PoolOut]:
    """List every pool and what goes on in it, sorted by name."""
    return Page(items=[PoolOut.of(state) for state in verbs.pools.all()])


@routes.get("/pools/{name}", Permission.READ)
def get_pool(name: str, verbs: Verbs) -> PoolOut:
    """Return a pool and what goes on in it."""
    return PoolOut.of(verbs.pools.get(name))


@routes.put("/pools/{name}", Permission.AUTHOR)
def set_pool(name: str, wanted: PoolIn, verbs: Verbs) -> PoolOut:
    """Make a pool, or change it; what is under way goes on."""
    return PoolOut.of(
        verbs.pools.set(name, concurrency=wanted.concurrency, description=wanted.description)
    )


@routes.post("/pools/{name}/pause", Permission.OPERATE)
def pause_pool(name: str, verbs: Verbs) -> PoolOut:
    """Let the workers of a pool take no runs. What is under way goes on."""
    return PoolOut.of(verbs.pools.pause(name))


@routes.post("/pools/{name}/resume", Permission.OPERATE)
def resume_pool(name: str, verbs: Verbs) -> PoolOut:
    """Let the workers of a pool take runs again."""
    return PoolOut.of(verbs.pools.resume(name))


@routes.delete("/pools/{name}", Permission.AUTHOR, status_code=204)
def remove_pool(name: str, verbs: Verbs) -> None:
    """Remove a pool that has no runs."""
    verbs.pools.remove(name)


class WorkersQuery(In):
    """Which workers."""

    pool: str | None = None


@routes.get("/workers", Permission.READ)
def list_workers(query: Annotated[WorkersQuery, Query()], verbs: Verbs) -> Page[WorkerOut]:
    """List workers, also those that have not been seen for long, by pool and name."""
    return Page(items=[WorkerOut.of(worker) for worker in verbs.workers.all(query.pool)])


@routes.post("/workers/{worker_id}/drain", Permission.OPERATE)
def drain_worker(worker_id: str, verbs: Verbs) -> Page[WorkerOut]:
    """Have a worker take no more runs, and end when its own are over; all that have this name."""
    return Page(items=[WorkerOut.of(worker) for worker in verbs.workers.drain(worker_id)])
