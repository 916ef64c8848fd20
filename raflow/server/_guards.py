"""What every request must pass, whoever asks: host, origin, kind and size of the body."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raflow._util import new_id
from raflow.model import wire
from raflow.server import _problems

BODY_LIMIT: Final = 1 << 20
"""Bytes of a JSON body."""
BUNDLE_LIMIT: Final = 256 << 20
"""Bytes of the archive of a bundle."""
DEPTH_LIMIT: Final = 64
"""How deeply JSON may be nested: parsers recurse."""
_BODY_SECONDS: Final = 30.0
"""Who takes longer to send so little holds a connection for its own sake."""
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
}
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_RAW: Final = (
    (re.compile(r"/api/v1/record/[^/]+/batches"), wire.MOST_BATCH_BYTES),
    (re.compile(r"/api/v1/bundles/[^/]+"), BUNDLE_LIMIT),
)
"""Where records and code come: larger than all else, and read by the route, once it is known who
sends; with the most bytes of each."""
_HOST: Final = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
# Possessive, and the closing quote may be missing: strangers send this, and whatever they send is
# looked at once.
_STRINGS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


class Guards:
    """Outermost: gives each request an id, refuses what cannot be meant for this server."""

    def __init__(self, app: ASGIApp, *, allowed_hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._hosts = LOOPBACK | {host.lower().strip("[]") for host in allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # There are no websockets; the server then refuses the connection.
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else new_id()
        scope["raflow.request_id"] = request_id
        answer = _Answer(send, request_id, private=scope["path"].startswith("/api/"))
        refused = self._refused(scope, headers)
        body: bytes | None = None
        if refused is None and scope["method"] not in SAFE_METHODS:
            most = next((most for path, most in _RAW if path.fullmatch(scope["path"])), None)
            if most is not None:
                refused = _too_large(scope, headers, most)
            else:
                body, refused = await _body(scope, headers, receive)
        if refused is not None:
            await refused(scope, receive, answer)
            return
        try:
            await self._app(scope, receive if body is None else _replay(body, receive), answer)
        except ClientDisconnect:
            return  # nobody is there to be told
        except Exception as error:
            if answer.begun:
                raise
            await _problems.of_bug(scope, error)(scope, receive, answer)

    def _refused(self, scope: Scope, headers: Headers) -> Response | None:
        host = host_of(headers.get("host", ""))
        if host not in self._hosts:
            return _problems.problem(
                scope,
                421,
                "raflow.unknown_host",
                f"This server does not answer to the host {headers.get('host', '')!r}. Name it in "
                "RAFLOW_ALLOWED_HOSTS, if it is this server's.",
            )
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            # No name has it, and not every database can even look for it.
            detail = "There is a NUL in the address. No name here has one."
            return _problems.problem(scope, 400, "raflow.invalid", detail)
        origin = headers.get("origin")
        foreign = origin is not None and origin.partition("://")[2] != headers.get("host")
        if foreign and scope["method"] not in SAFE_METHODS:
            return _problems.problem(
                scope,
                403,
                "raflow.forbidden",
                f"A page of {origin!r} may change nothing here.",
            )
        return None


class _Answer:
    """Adds the headers that every answer has."""

    def __init__(self, send: Send, request_id: str, *, private: bool) -> None:
        self._send = send
        self._request_id = request_id
        self._private = private
        self.begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self._request_id
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            if self._private:
                headers["Cache-Control"] = "no-store"
        await self._send(message)


def host_of(text: str) -> str:
    """Return the host of a `Host` header, without its port and brackets; empty if it is none."""
    found = _HOST.fullmatch(text.lower())
    return "" if found is None else found[1].strip("[]")


def _too_large(scope: Scope, headers: Headers, most: int) -> Response | None:
    """Refuse a body that says that it is too large, or does not say how large in a sane way."""
    length = headers.get("content-length", "0")
    fits = length.isdecimal() and len(length) <= 20 and int(length) <= most
    return None if fits else _of_size(scope, most)


def _of_size(scope: Scope, most: int) -> Response:
    detail = f"The body is larger than {most:,} bytes."
    return _problems.problem(scope, 413, "raflow.too_large", detail)


async def _body(
    scope: Scope, headers: Headers, receive: Receive
) -> tuple[bytes, None] | tuple[None, Response]:
    """Read the whole body: it is small, or refused."""
    too_large = _too_large(scope, headers, BODY_LIMIT)
    if too_large is not None:
        return None, too_large
    parts = bytearray()
    more = True
    with anyio.move_on_after(_BODY_SECONDS):
        while more and len(parts) <= BODY_LIMIT:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            parts += message.get("body", b"")
            more = message.get("more_body", False)
    if len(parts) > BODY_LIMIT:
        return None, _of_size(scope, BODY_LIMIT)
    if more:
        detail = f"The body has not come, not within {_BODY_SECONDS:.0f} s."
        return None, _problems.problem(scope, 408, "raflow.invalid", detail)
    body = bytes(parts)
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and kind != "application/json":
        detail = f"The body is {kind or 'of no kind'!r}. Send application/json."
        return None, _problems.problem(scope, 415, "raflow.unsupported", detail)
    if _depth(body) > DEPTH_LIMIT:
        detail = f"The body is nested more than {DEPTH_LIMIT} deep."
        return None, _problems.problem(scope, 413, "raflow.too_large", detail)
    return body, None


def _depth(body: bytes) -> int:
    deepest = depth = 0
    for byte in _STRINGS.sub(b"", body).translate(None, _NO_BRACKETS):
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


def _replay(body: bytes, receive: Receive) -> Receive:
    told = False

    async def again() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
