"""Work for workers: the runs of their pool, the code of these, and what became of them.

Bodies and answers are those of `raflow.model.wire`. A token of a worker is good for its pool.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, TypeAlias

import anyio
import anyio.to_thread
from fastapi import Depends, Path, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import Field
from starlette.responses import Response

from raflow import errors
from raflow.model import Permission, Poll, Polled, wire
from raflow.server._bodies import answered, sent
from raflow.server._router import Caller, Routes, Verbs
from raflow.server.schemas import In
from raflow.service import PoolWork

routes = Routes("dispatch")


def _pool_work(request: Request, caller: Caller) -> PoolWork:
    state = request.app.state
    return PoolWork(state.store, state.signals, caller.token, actor=caller.actor)


_Work: TypeAlias = Annotated[PoolWork, Depends(_pool_work)]
_Poll: TypeAlias = Annotated[Poll, sent(Poll)]


class WaitQuery(In):
    """How long to wait for runs."""

    wait: Annotated[float, Field(ge=0, le=25)] = 0.0
    """Seconds to wait, if there is none."""


@routes.post("/dispatch/poll", Permission.WORK, response_class=Response)
async def take_runs(
    query: Annotated[WaitQuery, Query()], request: Request, caller: Caller, work: _Work, ask: _Poll
) -> Response:
    """Give runs to a worker; waits for some. The same `claim` again has the same answer."""
    state = request.app.state
    deadline = anyio.current_time() + query.wait
    topics = (f"pool:{ask.info.pool}", f"worker:{ask.info.id}", "closing")
    is_first = True
    place = state.crowd.place(caller.token.id, is_worker=True)
    with place, state.signals.registered(*topics) as waiter:
        await anyio.to_thread.run_sync(work.seen, ask)
        # Whoever has gone must not be given runs.
        while not await request.is_disconnected():
            if await state.directory.find(caller.secret) is None:
                raise errors.UnauthenticatedError("The token counts no more.")
            found = await anyio.to_thread.run_sync(partial(work.take, ask, is_first=is_first))
            left = deadline - anyio.current_time()
            if isinstance(found, Polled):
                return answered(found)
            if left <= 0 or state.closing:
                break
            is_first = False
            await waiter.wait(min(left, found))
    return answered(Polled())


@routes.post("/dispatch/seen", Permission.WORK, response_class=Response)
def note_worker(work: _Work, ask: _Poll) -> Response:
    """Note that a worker is there, and which runs it has; it is told whether it is to end."""
    return answered(work.seen(ask))


@routes.post("/dispatch/leave", Permission.WORK, response_class=Response)
def forget_worker(work: _Work, who: Annotated[wire.Left, sent(wire.Left)]) -> Response:
    """Forget a worker that ends; what it has not begun waits for another one."""
    work.leave(who.worker_id)
    return answered(wire.Nothing())


@routes.get("/dispatch/bundles/{digest}", Permission.WORK, response_class=StreamingResponse)
def get_code(
    digest: Annotated[str, Path(pattern="^[0-9a-f]{64}$")], verbs: Verbs
) -> StreamingResponse:
    """Return the archive of a bundle, for whoever knows its digest."""
    size = verbs.deployments.bundle(digest).size
    return StreamingResponse(
        verbs.deployments.archive(digest),
        media_type="application/zstd",
        headers={"Content-Length": str(size)},
    )


@routes.get("/dispatch/{run_id}/version", Permission.WORK, response_class=Response)
def get_version_of_run(run_id: str, work: _Work) -> Response:
    """Return the version of its deployment that a run is of, with all that its process needs."""
    return answered(work.version(run_id))


@routes.post("/dispatch/{run_id}/give-back", Permission.WORK, response_class=Response)
def give_run_back(
    run_id: str, work: _Work, told: Annotated[wire.GivenBack, sent(wire.GivenBack)]
) -> Response:
    """Put a run back that its worker does not begin."""
    done = work.give_back(run_id, told.incarnation, message=told.message, permanent=told.permanent)
    return answered(wire.Done(done=done))


@routes.post("/dispatch/{run_id}/died", Permission.WORK, response_class=Response)
def put_run_back(run_id: str, work: _Work, told: Annotated[wire.Died, sent(wire.Died)]) -> Response:
    """Put a run back whose process is surely gone; another worker goes on with it."""
    done = work.died(run_id, told.incarnation, message=told.message)
    return answered(wire.Done(done=done))


@routes.post("/dispatch/{run_id}/move", Permission.WORK, response_class=Response)
def hand_run_over(
    run_id: str, work: _Work, told: Annotated[wire.Moved, sent(wire.Moved)]
) -> Response:
    """Have a run suspended, for another worker to go on with it."""
    work.move(run_id, by=told.by, message=told.message)
    return answered(wire.Nothing())
