"""Tokens, and the sessions of browsers."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from fastapi import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from raflow import errors
from raflow.model import Permission, TokenKind
from raflow.server import _auth
from raflow.server._router import Caller, Routes, Verbs
from raflow.server.schemas import MeOut, Page, SessionIn, TokenIn, TokenMadeOut, TokenOut
from raflow.service import SESSION_SECONDS, Service, permissions, signed_as

routes = Routes("tokens")
plain = Routes("browsers")

_SCRIPT: Final = """
const say = text => document.getElementById("said").textContent = text;
const code = new URLSearchParams(location.hash.slice(1)).get("code");
history.replaceState(null, "", location.pathname);
fetch("api/v1/session", {
  method: "POST",
  headers: {"Content-Type": "application/json"},
  body: JSON.stringify({code: code || ""}),
}).then(async answer => {
  const told = await answer.json();
  say(answer.ok ? "You are signed in as " + told.actor + "." : told.detail);
}, () => say("The server cannot be reached."));
"""
_PAGE: Final = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>raflow: sign in</title>
<main><h1>raflow</h1><p id="said" role="status">Signing in…</p></main>
<script>{_SCRIPT}</script></html>
"""
_DIGEST: Final = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
_POLICY: Final = (
    f"default-src 'none'; connect-src 'self'; script-src 'sha256-{_DIGEST}'; frame-ancestors 'none'"
)


@plain.get("/signin", Permission.OPEN, response_class=HTMLResponse, include_in_schema=False)
def show_signin() -> HTMLResponse:
    """Return the page that a sign-in link opens; the code stands behind `#`, never in a log."""
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-store"}
    return HTMLResponse(_PAGE, headers=headers)


@routes.post("/session", Permission.OPEN, status_code=201, response_model=MeOut)
def begin_session(wanted: SessionIn, request: Request) -> Response:
    """Begin a session of a browser with the code of a sign-in link, which is used up by that."""
    state = request.app.state
    address = _auth.address_of(request.scope)
    state.strangers.check(address)
    try:
        made = Service(state.store, actor="", signals=state.signals).tokens.sign_in(wanted.code)
    except errors.UnauthenticatedError:
        state.strangers.failed(address)
        raise
    me = MeOut(
        actor=signed_as(made.token),
        kind=made.token.kind,
        role=made.token.role,
        permissions=sorted(permissions(made.token)),
        csrf=_auth.csrf_of(made.text),
    )
    answer = JSONResponse(me.model_dump(mode="json"), 201)
    answer.set_cookie(
        _auth.COOKIE,
        made.text,
        max_age=int(SESSION_SECONDS),
        path=request.scope.get("root_path") or "/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return answer


@routes.delete("/session", Permission.READ, status_code=204)
def end_session(caller: Caller, verbs: Verbs, request: Request) -> Response:
    """End the session of the browser that asks."""
    answer = Response(status_code=204)
    if caller.token.kind is TokenKind.SESSION:
        verbs.tokens.revoke(caller.token.id)
        request.app.state.directory.forget()
        answer.delete_cookie(_auth.COOKIE, path=request.scope.get("root_path") or "/")
    return answer


@routes.get("/me", Permission.READ)
def get_me(caller: Caller) -> MeOut:
    """Return who asks, and what they may."""
    return MeOut(
        actor=caller.actor,
        kind=caller.token.kind,
        role=caller.token.role,
        permissions=sorted(caller.permissions),
        csrf=caller.csrf,
    )


@routes.get("/tokens", Permission.ADMIN)
def list_tokens(verbs: Verbs) -> Page[TokenOut]:
    """List the tokens of people and workers that count, without their secrets, oldest first."""
    return Page(items=[TokenOut.of(token) for token in verbs.tokens.list()])


@routes.post("/tokens", Permission.ADMIN, status_code=201)
def make_token(wanted: TokenIn, verbs: Verbs) -> TokenMadeOut:
    """Make a token for a person, a program or a worker. Its text is told only now."""
    seconds = None if wanted.days is None else wanted.days * 86_400
    made = verbs.tokens.make(
        name=wanted.name, role=wanted.role, kind=wanted.kind, scope=wanted.pool, seconds=seconds
    )
    return TokenMadeOut.of_made(made)


@routes.delete("/tokens/{token_id}", Permission.ADMIN, status_code=204)
def revoke_token(token_id: str, verbs: Verbs, request: Request) -> None:
    """End a token at once."""
    verbs.tokens.revoke(token_id)
    request.app.state.directory.forget()
