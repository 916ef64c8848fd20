"""Streams and long requests in this process; see `test_process` for those over a socket."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import anyio.to_thread
import pytest
from starlette.types import Message

from raflow import errors, model
from raflow.model import wire
from raflow.server import _sse
from raflow.server._auth import Principal
from raflow.service import Service, Signals, permissions
from tests.server.conftest import Served


def test_a_stream_ends_with_its_token_however_much_happens(
    one: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sse, "_RECHECK_SECONDS", 1.0)
    state = one.app.state
    verbs = Service(one.store, actor="test", signals=state.signals)
    made = verbs.tokens.make(name="ann")
    who = Principal(token=made.token, permissions=permissions(made.token), secret=made.text)

    def happen() -> None:
        verbs.limits.set(model.Limit(name="busy", slots=1))

    async def listen() -> int:
        seen = 0
        with anyio.fail_after(30):
            async for _ in state.hub.listen(0, lambda _: True, who, state.directory):
                seen += 1
                if seen == 10:
                    await anyio.to_thread.run_sync(verbs.tokens.revoke, made.token.id)
                # Each event brings the next one.
                await anyio.to_thread.run_sync(happen)
        return seen

    assert one.portal.call(listen) > 10


def test_a_stream_outlives_a_database_that_is_away(
    one: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sse, "_RECHECK_SECONDS", 0.05)
    state = one.app.state
    verbs = Service(one.store, actor="test", signals=state.signals)
    made = verbs.tokens.make(name="ann")
    who = Principal(token=made.token, permissions=permissions(made.token), secret=made.text)

    was_asked = threading.Event()

    def away(_: str) -> None:
        was_asked.set()
        raise errors.StoreError("away")

    def change() -> None:
        assert was_asked.wait(30)
        verbs.limits.set(model.Limit(name="w", slots=1))

    async def listen() -> str:
        with anyio.fail_after(30):
            events = state.hub.listen(
                None, lambda e: e.kind == "limit.changed", who, state.directory
            )
            event = await anext(events)
            await events.aclose()
            return str(event.event)

    monkeypatch.setattr(one.store.tokens, "find", away)
    changing = threading.Thread(target=change)
    changing.start()
    assert one.portal.call(listen) == "limit.changed"
    changing.join()


def test_a_request_that_waits_ends_with_its_token(one: Served) -> None:
    made = Service(one.store, actor="test").tokens.make(name="ann")
    headers = {"Authorization": f"Bearer {made.text}"}
    last = one.get("/events?limit=1000")["last_seq"]

    async def wait() -> int:
        async with anyio.create_task_group() as group:

            async def revoke() -> None:
                await anyio.sleep(0.3)
                await anyio.to_thread.run_sync(one.store.tokens.revoke, made.token.id)

            group.start_soon(revoke)
            path = f"/events?after={last}&wait=20&object=limit:none"
            answer = await one.send("GET", path, headers=headers)
        return answer.status_code

    assert one.portal.call(wait) == 401


def test_a_stream_that_begins_before_the_hub_misses_nothing_and_repeats_nothing(
    one: Served,
) -> None:
    verbs = Service(one.store, actor="test")
    verbs.limits.set(model.Limit(name="old", slots=1))
    made = verbs.tokens.make(name="ann")
    who = Principal(token=made.token, permissions=permissions(made.token), secret=made.text)

    async def listen() -> str:
        hub = _sse.Hub(one.store, Signals())
        events: Any = hub.listen(None, lambda _: True, who, one.app.state.directory)
        async with anyio.create_task_group() as group:

            async def later() -> None:
                await anyio.sleep(0.3)
                group.start_soon(hub.run)
                await hub._begun.wait()
                limit = model.Limit(name="new", slots=1)
                await anyio.to_thread.run_sync(verbs.limits.set, limit)

            group.start_soon(later)
            with anyio.fail_after(30):
                event = await anext(events)
            await events.aclose()
            hub.close()
        return str(event.data)

    assert '"limit:new"' in one.portal.call(listen)


def test_who_goes_away_while_sending_leaves_no_bug_in_the_log(
    one: Served, caplog: pytest.LogCaptureFixture
) -> None:
    token = one.ask("POST", "/record", json={"run_id": "r1"}).json()["token"]
    headers = {
        "host": "localhost",
        "authorization": f"Bearer {token}",
        "content-type": wire.BATCH_MEDIA_TYPE,
    }
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/v1/record/r1/batches",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    answers: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        answers.append(message)

    one.portal.call(one.app, scope, receive, send)
    assert answers == []
    assert not [line for line in caplog.records if line.levelname == "ERROR"]


def test_who_comes_too_late_for_events_is_told(one: Served) -> None:
    verbs = Service(one.store, actor="test", signals=one.app.state.signals)
    for slots in range(1, 6):
        verbs.limits.set(model.Limit(name="busy", slots=slots))
    page = one.get("/events?after=0")
    assert not page["missed"]
    one.store.feed.sequence()
    assert one.store.feed.trim(seconds=1e9, most=2)
    first = one.store.feed.first()
    assert one.get("/events?after=0")["missed"]
    assert one.get(f"/events?after={first - 2}")["missed"]
    assert not one.get(f"/events?after={first - 1}")["missed"]
    assert not one.get("/events")["missed"]
    made = verbs.tokens.make(name="ann")
    who = Principal(token=made.token, permissions=permissions(made.token), secret=made.text)

    async def first_two(after: int) -> list[str | None]:
        told: list[str | None] = []
        state = one.app.state
        with anyio.fail_after(30):
            async for event in state.hub.listen(after, lambda _: True, who, state.directory):
                told.append(event.event)
                if len(told) == 2:
                    break
        return told

    assert one.portal.call(first_two, 0)[0] == "missed"
    assert one.portal.call(first_two, first - 1)[0] == "limit.changed"
