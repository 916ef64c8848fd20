"""The feed: as pages of JSON, by waiting for the next event, or as a stream."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated, Any, Final

import anyio
import anyio.to_thread
from fastapi import Query, Request
from pydantic import Field
from sse_starlette import EventSourceResponse
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from raflow import errors, model
from raflow.model import Permission
from raflow.server._router import Caller, Routes, Verbs
from raflow.server.schemas import EventOut, EventsOut, In

routes = Routes("events")
_INT64: Final = 2**63 - 1
_PING_SECONDS: Final = 15
_FAREWELL_SECONDS: Final = 3.0
_LOOK_SECONDS: Final = 1.0
_ENDED: Final = "The token of this request was revoked, or its time is over."


class EventsQuery(In):
    """Which events."""

    after: Annotated[int, Field(ge=0, le=_INT64)] | None = None
    """Behind this one; default: from the first one that is kept; of a stream, from now on."""
    kind: list[str] = Field([], max_length=20)
    """Of these kinds; `flow_run.*` stands for all that begin so."""
    object: str | None = None
    """What happened to this: `flow_run:ID`, `limit:NAME` ..."""
    flow_run: str | None = None
    """What happened to this run or in it."""
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    wait: Annotated[float, Field(ge=0, le=25)] = 0.0
    """Seconds to wait for an event, if there is none yet."""

    def wanted(self) -> Callable[[model.Event], bool]:
        """Return what tells which events are wanted."""
        exact = {kind for kind in self.kind if not kind.endswith(".*")}
        begins = tuple(kind[:-1] for kind in self.kind if kind.endswith(".*"))

        def is_wanted(event: model.Event) -> bool:
            return (
                (not self.kind or event.kind in exact or event.kind.startswith(begins))
                and self.object in {None, event.object}
                and self.flow_run in {None, event.flow_run_id}
            )

        return is_wanted


class _Stream(EventSourceResponse):
    """A stream that has a place in the crowd, or is refused before it begins."""

    def __init__(self, place: AbstractContextManager[None], *content: Any, **more: Any) -> None:
        super().__init__(*content, **more)
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._place:
            await super().__call__(scope, receive, send)


@routes.get("/events", Permission.READ, response_model=EventsOut)
async def list_events(
    query: Annotated[EventsQuery, Query()], request: Request, caller: Caller, verbs: Verbs
) -> EventsOut | Response:
    """Return events, oldest first; with `Accept: text/event-stream` as a stream without end.

    A stream goes on behind the `Last-Event-ID` of the request, or behind `after`. It ends with the
    event `gap` when the client is too slow: it then comes again with the last id that it has. If
    events behind that are not kept any more, the first event is `missed`.
    """
    if "text/event-stream" in request.headers.get("accept", ""):
        state: Any = request.app.state
        listener = state.hub.listen(
            _last_id(request, query.after), query.wanted(), caller, state.directory
        )
        return _Stream(
            state.crowd.place(caller.token.id),
            listener,
            ping=_PING_SECONDS,
            # The hub ends its streams when the server ends; the library would cut them off.
            shutdown_event=anyio.Event(),
            shutdown_grace_period=_FAREWELL_SECONDS,
        )
    found = await _wait(query, request, caller, verbs)
    after = query.after
    # Asked afterwards: what is deleted while this waits was missed, too.
    missed = after is not None and await anyio.to_thread.run_sync(verbs.events.lacks, after)
    last = found[-1].seq if found else after or 0
    items = [EventOut.of(event) for event in found]
    return EventsOut(items=items, last_seq=last, missed=missed)


async def _wait(
    query: EventsQuery, request: Request, caller: Caller, verbs: Verbs
) -> list[model.Event]:
    def look() -> list[model.Event]:
        return verbs.events.after(
            query.after or 0,
            kinds=query.kind,
            about=query.object,
            flow_run_id=query.flow_run,
            limit=query.limit,
        )

    state: Any = request.app.state
    deadline = anyio.current_time() + query.wait
    place = state.crowd.place(caller.token.id) if query.wait else contextlib.nullcontext()
    with place, state.signals.registered("events", "feed") as waiter:
        while True:
            found = await anyio.to_thread.run_sync(look)
            left = deadline - anyio.current_time()
            if found or left <= 0 or await request.is_disconnected():
                return found
            await waiter.wait(min(left, _LOOK_SECONDS))
            if await state.directory.find(caller.secret) is None:
                raise errors.UnauthenticatedError(_ENDED)


def _last_id(request: Request, after: int | None) -> int | None:
    text = request.headers.get("last-event-id")
    if not text:
        return after
    if not (text.isdecimal() and text.isascii() and int(text[:20]) <= _INT64):
        raise errors.CursorError(f"Last-Event-ID {text!r} is not the number of an event.")
    return int(text)
