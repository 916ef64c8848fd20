"""Who asks: found out before anything is routed, so that a stranger learns nothing at all."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Final

import anyio.to_thread
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from raflow import errors, model
from raflow.model import Permission, TokenKind
from raflow.server import _guards, _problems
from raflow.server._crowd import Strangers
from raflow.service import permissions, signed_as
from raflow.store import Store

COOKIE: Final = "raflow_session"
CSRF_HEADER: Final = "x-raflow-csrf"
OPEN: Final = frozenset(
    {
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/signin"),
        ("HEAD", "/healthz"),
        ("HEAD", "/readyz"),
        ("HEAD", "/signin"),
        ("POST", "/api/v1/session"),
    }
)
"""All that may be asked without a token."""
_BY_COOKIE: Final = frozenset({TokenKind.SESSION})
_BY_HEADER: Final = frozenset({TokenKind.USER, TokenKind.WORKER, TokenKind.RUN})
_UNLISTED: Final = frozenset({TokenKind.SESSION, TokenKind.RUN})
"""Nobody looks at when these were used last."""
_KNOWN_SECONDS: Final = 1.0
_KNOWN_AT_MOST: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who asks, and what they may."""

    token: model.Token
    permissions: frozenset[Permission]
    secret: str = field(repr=False)
    """The text of the token, to find out later whether it still counts."""
    csrf: str = field(default="", repr=False)
    """What a browser must repeat; empty without a session."""

    @property
    def actor(self) -> str:
        """Who it is, for the record."""
        return signed_as(self.token)


class Directory:
    """Finds tokens, and remembers them for a second: a revoked one counts no longer than that."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._known: dict[bytes, tuple[float, model.Token]] = {}

    def knows(self, text: str) -> bool:
        """Whether a token has counted lately, though perhaps no more."""
        return _key(text) in self._known

    async def find(self, text: str) -> model.Token | None:
        """Return the token with this text; None if it does not count."""
        key = _key(text)
        now = self._clock()
        at, token = self._known.get(key, (-1.0, None))
        if token is not None and now - at < _KNOWN_SECONDS:
            return token
        self._known.pop(key, None)
        found = await anyio.to_thread.run_sync(self._look, text)
        if found is not None:
            if len(self._known) >= _KNOWN_AT_MOST:
                self._known.clear()
            self._known[key] = now, found
        return found

    def _look(self, text: str) -> model.Token | None:
        found = self._store.tokens.find(text)
        if found is not None and found.kind not in _UNLISTED:
            self._store.tokens.note_use(found)
        return found

    def forget(self) -> None:
        """Look every token up again."""
        self._known.clear()


def _key(text: str) -> bytes:
    # Not the secret itself: this may be seen in a dump of the process.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class Authentication:
    """Refuses whoever has no token that counts, but for what is open."""

    def __init__(self, app: ASGIApp, *, directory: Directory, strangers: Strangers) -> None:
        self._app = app
        self._directory = directory
        self._strangers = strangers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "http" and (scope["method"], scope["path"]) not in OPEN:
            try:
                found = await self._principal(scope, Headers(scope=scope))
            except errors.RaflowError as error:
                found = _problems.of_error(scope, error)
            if isinstance(found, Response):
                await found(scope, receive, send)
                return
            scope["raflow.principal"] = found
        await self._app(scope, receive, send)

    async def _find(self, text: str, address: str) -> model.Token | None:
        if not self._directory.knows(text):
            self._strangers.check(address)
        token = await self._directory.find(text)
        if token is None:
            self._strangers.failed(address)
        return token

    async def _principal(self, scope: Scope, headers: Headers) -> Principal | Response:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            text, cookie = bearer.strip(), False
        else:
            text, cookie = _cookie(headers), True
        token = await self._find(text, address_of(scope)) if text else None
        if token is None or token.kind not in (_BY_COOKIE if cookie else _BY_HEADER):
            raise errors.UnauthenticatedError(
                "This needs a token that counts: `Authorization: Bearer raflow_...`. "
                "`raflow server link` signs a browser in."
            )
        csrf = csrf_of(text) if cookie else ""
        if cookie and scope["method"] not in _guards.SAFE_METHODS:
            _check_csrf(headers, csrf)
        return Principal(token=token, permissions=permissions(token), secret=text, csrf=csrf)


def address_of(scope: Scope) -> str:
    """Return where a request comes from; behind a proxy that is believed, what that says."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def csrf_of(session: str) -> str:
    """Return what a browser must repeat in a header, which pages of others cannot know."""
    return hmac.new(session.encode("utf-8", "replace"), b"csrf", hashlib.sha256).hexdigest()


def _check_csrf(headers: Headers, csrf: str) -> None:
    given = headers.get(CSRF_HEADER, "").encode("utf-8", "replace")
    if not hmac.compare_digest(given, csrf.encode()) or "origin" not in headers:
        raise errors.AccessError(
            "A browser that changes something sends Origin and X-Raflow-CSRF; `GET /api/v1/me` "
            "tells what to send."
        )


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None else ""
