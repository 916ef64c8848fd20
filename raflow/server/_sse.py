"""The feed for those who listen: one reader for the whole process, and a queue for each client."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from typing import Final

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from sse_starlette import ServerSentEvent

from raflow import errors, model
from raflow.server._auth import Directory, Principal
from raflow.server.schemas import EventOut
from raflow.service import Signals
from raflow.store import Store

LOOK_SECONDS: Final = 0.25
"""Other processes write into the database, too: it is looked into so often while anyone listens."""
IDLE_SECONDS: Final = 1.0
_QUEUE: Final = 1000
_PAGE: Final = 500
_RECHECK_SECONDS: Final = 5.0
_log = logging.getLogger("raflow.server")

Wanted = Callable[[model.Event], bool]


class Hub:
    """Reads the feed once, and hands what is new to every listener."""

    def __init__(self, store: Store, signals: Signals) -> None:
        self._store = store
        self._signals = signals
        self._listeners: set[MemoryObjectSendStream[model.Event]] = set()
        self._seq = 0
        self._begun = anyio.Event()
        """Whether it is known how far the feed was read. Before that a listener could miss events:
        those between its own look and the first one of the hub."""
        self._closing = False

    async def run(self) -> None:
        """Read until the server ends; also numbers the events of writers on PostgreSQL."""
        with self._signals.registered("feed", "hub") as waiter:
            while not self._closing:
                try:
                    if not self._begun.is_set():
                        self._seq = await anyio.to_thread.run_sync(self._store.feed.last)
                        self._begun.set()
                    found = await anyio.to_thread.run_sync(self._read)
                except errors.StoreError as error:
                    # Whoever listens keeps what it has; the number goes on when the database does.
                    _log.warning("The feed cannot be read: %s", error)
                    found = []
                self._hand_out(found)
                if len(found) < _PAGE:
                    await waiter.wait(LOOK_SECONDS if self._listeners else IDLE_SECONDS)
        self._begun.set()
        for listener in self._listeners:
            listener.close()

    def close(self) -> None:
        """End all listeners: the server ends. From any thread."""
        self._closing = True
        self._signals.wake("hub", "feed", "events")

    async def listen(
        self, after: int | None, wanted: Wanted, who: Principal, directory: Directory
    ) -> AsyncIterator[ServerSentEvent]:
        """Yield what has happened behind an event, and then what happens.

        Args:
            after: The number of the last event that the client has; None: begin now.
            wanted: Which events.
            who: Whose stream it is; it ends when their token does.
            directory: Knows that.
        """
        send, receive = anyio.create_memory_object_stream[model.Event](_QUEUE)
        # Registered first: what is committed from here on comes by the queue.
        self._listeners.add(send)
        try:
            self._signals.wake("hub")
            await self._begun.wait()
            last = self._seq if after is None else after
            if after is not None and await anyio.to_thread.run_sync(self._store.feed.lacks, after):
                yield ServerSentEvent(event="missed", data="{}")
            async for event in self._missed(last):
                last = event.seq
                if wanted(event):
                    yield _sent(event)
            async for new in self._coming(receive, who, directory):
                if new is None:
                    yield ServerSentEvent(event="gap", data="{}")
                    return
                if new.seq > last and wanted(new):
                    yield _sent(new)
        finally:
            self._listeners.discard(send)
            send.close()
            receive.close()

    async def _missed(self, after: int) -> AsyncIterator[model.Event]:
        full = True
        while full:
            page = await anyio.to_thread.run_sync(self._page, after)
            for event in page:
                after = event.seq
                yield event
            full = len(page) == _PAGE

    async def _coming(
        self,
        receive: MemoryObjectReceiveStream[model.Event],
        who: Principal,
        directory: Directory,
    ) -> AsyncIterator[model.Event | None]:
        """Yield events; None at the end, if the client was too slow to take them all."""
        checks_at = anyio.current_time() + _RECHECK_SECONDS
        while not self._closing:
            event: model.Event | None = None
            with anyio.move_on_after(checks_at - anyio.current_time()):
                try:
                    event = await receive.receive()
                except anyio.EndOfStream:
                    if not self._closing:
                        yield None
                    return
            if event is not None:
                yield event
            # However much happens: events must not put it off.
            if anyio.current_time() >= checks_at:
                if not await _counts(who, directory):
                    return
                checks_at = anyio.current_time() + _RECHECK_SECONDS

    def _read(self) -> list[model.Event]:
        self._store.feed.sequence()
        return self._page(self._seq)

    def _page(self, after: int) -> list[model.Event]:
        return self._store.feed.after(after, limit=_PAGE)

    def _hand_out(self, events: list[model.Event]) -> None:
        for event in events:
            self._seq = event.seq
            for listener in [*self._listeners]:
                try:
                    listener.send_nowait(event)
                except anyio.WouldBlock:
                    # Too slow: it is told, and comes again with the number that it has.
                    self._listeners.discard(listener)
                    listener.close()
        if events:
            self._signals.wake("events")


async def _counts(who: Principal, directory: Directory) -> bool:
    """Whether somebody's token still counts; while the database is away none can be revoked."""
    try:
        return await directory.find(who.secret) is not None
    except errors.StoreError:
        return True


def _sent(event: model.Event) -> ServerSentEvent:
    return ServerSentEvent(
        id=str(event.seq), event=event.kind, data=EventOut.of(event).model_dump_json()
    )
