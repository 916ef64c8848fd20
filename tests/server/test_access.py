"""Nobody gets in who may not: each route, each kind of token, hosts, origins and browsers."""

from __future__ import annotations

import contextlib
import re
import time
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from raflow import errors
from raflow.model import PERMISSIONS, Permission, Role, TokenKind
from raflow.server import _crowd, _guards
from raflow.server._auth import OPEN
from raflow.service import Service
from tests.server.conftest import BASE, Served, record

PATHS = {
    "{run_id}": "run-1",
    "{name}": "warehouse",
    "{key}": "0",
    "{number}": "0",
    "{fingerprint}": "f1",
    "{backfill_id}": "nobody",
    "{schedule_id}": "nobody",
    "{schedule}": "nobody",
    "{token_id}": "nobody",
    "{worker_id}": "nobody",
    "{digest}": "0" * 64,
}


def operations(app: FastAPI) -> list[tuple[str, str, Permission]]:
    """Return each method and path with the permission that it asks for."""
    found = []
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            filled = re.sub(r"\{\w+\}", lambda match: PATHS[match[0]], path)
            found.append((method.upper(), filled, Permission(operation["x-permission"])))
    return found


def test_every_route_says_what_it_asks_for_and_none_is_open_by_accident(one: Served) -> None:
    def walk(routes: list[Any]) -> list[APIRoute]:
        found: list[APIRoute] = []
        for route in routes:
            inner = getattr(route, "routes", None) or getattr(
                getattr(route, "original_router", None), "routes", []
            )
            found += [route] if isinstance(route, APIRoute) else walk(inner)
        return found

    declared = walk(one.app.routes)
    assert len(declared) > 30
    assert all((route.openapi_extra or {}).get("x-permission") for route in declared)
    open_ = {
        (method, path)
        for method, path, permission in operations(one.app)
        if permission is Permission.OPEN
    }
    assert open_ <= OPEN
    assert {path for _, path in OPEN} == {"/healthz", "/readyz", "/signin", "/api/v1/session"}


def test_without_a_token_that_counts_every_path_is_closed_whether_it_is_there_or_not(
    one: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_crowd, "TRIES", 1 << 30)
    tokens = Service(one.store, actor="test").tokens
    revoked = tokens.make(name="gone", role=Role.ADMIN)
    expired = tokens.make(name="late", role=Role.ADMIN, seconds=-1)
    signin = tokens.signin_code(name="ann")
    tokens.revoke(revoked.token.id)
    good = one.token()
    strangers = {
        "none": {},
        "nonsense": {"Authorization": "Bearer raflow_uaaaaaaaaaa_x"},
        "revoked": {"Authorization": f"Bearer {revoked.text}"},
        "expired": {"Authorization": f"Bearer {expired.text}"},
        "for signing in": {"Authorization": f"Bearer {signin}"},
        "almost": {"Authorization": f"Bearer {good[:-1]}"},
        "another kind": {"Authorization": f"Bearer {good.replace('raflow_u', 'raflow_w')}"},
        "in a cookie": {"Cookie": f"raflow_session={good}"},
        "basic": {"Authorization": f"Basic {good}"},
    }
    paths = [(method, path) for method, path, p in operations(one.app) if p is not Permission.OPEN]
    paths += [("GET", "/api/v1/nothing-here"), ("GET", "/"), ("PATCH", "/healthz")]
    for name, headers in strangers.items():
        for method, path in paths:
            answer = one.ask(method, f"/{path}", role=None, headers=headers)
            assert answer.status_code == 401, (name, method, path)
            assert answer.json()["code"] == "raflow.unauthenticated"
            assert answer.headers["content-type"] == "application/problem+json"


def test_each_role_gets_as_far_as_its_permissions(one: Served) -> None:
    record(one.store, "run-1")
    for role in Role:
        for method, path, permission in operations(one.app):
            if permission is not Permission.OPEN and (method, path) != ("DELETE", "/api/v1/cache"):
                body: dict[str, Any] = {"json": {}} if method in {"POST", "PUT"} else {}
                answer = one.ask(method, f"/{path}", role=role, **body)
                may = permission in PERMISSIONS[role]
                assert (answer.status_code == 403) is not may, (role, method, path, answer.text)


def test_a_worker_may_take_runs_and_read_nothing(one: Served) -> None:
    made = Service(one.store, actor="test").tokens.make(
        name="w", kind=TokenKind.WORKER, role=Role.ADMIN, scope="default"
    )
    for method, path, permission in operations(one.app):
        if permission is not Permission.OPEN:
            headers = {"Authorization": f"Bearer {made.text}"}
            answer = one.ask(method, f"/{path}", role=None, headers=headers)
            if permission is Permission.WORK:
                assert answer.status_code in {404, 409, 422}, (method, path)
                continue
            assert answer.status_code in {403, 422}, (method, path)
            assert answer.status_code == 403 or method in {"POST", "PUT"}


def test_a_revoked_token_ends_at_once(one: Served) -> None:
    made = one.ask("POST", "/tokens", json={"name": "ann", "role": "viewer"})
    assert made.status_code == 201
    headers = {"Authorization": f"Bearer {made.json()['text']}"}
    assert one.ask("GET", "/me", role=None, headers=headers).json()["actor"] == "ann"
    assert made.json()["text"] not in one.ask("GET", "/tokens").text
    assert one.ask("DELETE", f"/tokens/{made.json()['id']}").status_code == 204
    assert one.ask("GET", "/me", role=None, headers=headers).status_code == 401
    kinds = [event["kind"] for event in one.get("/events?kind=token.*")["items"]]
    assert kinds[-2:] == ["token.made", "token.revoked"]


# --- Hosts, origins, bodies -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8484", 200),
        ("localhost", 200),
        ("[::1]:8484", 200),
        ("raflow.example:443", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("[::1", 421),
        ("localhost/evil?x#", 421),
        ("evil.example@localhost", 421),
        ("", 421),
    ],
)
def test_only_names_of_this_server_are_answered_to(one: Served, host: str, status: int) -> None:
    answer = one.ask("GET", "//healthz", role=None, headers={"Host": host})
    assert answer.status_code == status


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://[::1"]
)
def test_pages_of_others_change_nothing(one: Served, origin: str) -> None:
    wanted = {"slots": 1}
    refused = one.ask("PUT", "/limits/w", json=wanted, headers={"Origin": origin})
    assert refused.status_code == 403
    same = one.ask("PUT", "/limits/w", json=wanted, headers={"Origin": BASE})
    assert same.status_code == 200
    assert "access-control-allow-origin" not in same.headers


def test_bodies_are_json_small_and_flat(one: Served) -> None:
    def put(body: bytes, kind: str = "application/json") -> int:
        sent = {"Content-Type": kind}
        return one.ask("PUT", "/limits/w", content=body, headers=sent).status_code

    assert put(b'{"slots": 1}') == 200
    assert put(b'{"slots": 1}', "text/plain") == 415
    assert put(b'{"slots": 1}', "application/json; charset=utf-8") == 200
    assert put(b" " * (1 << 20) + b" ") == 413
    assert put(b"[" * 65 + b"]" * 65) == 413
    assert put(b'"' + b"[" * 65 + b'"') == 422
    assert put(b"{") == 422
    assert put(b'{"slots": 1, "color": 2}') == 422
    assert put(b'{"slots": -1}') == 422


def test_a_body_without_a_length_is_bounded_too(one: Served) -> None:
    async def parts() -> Any:
        for _ in range(40):
            yield b" " * 32_768

    sent = {"Content-Type": "application/json"}
    assert one.ask("PUT", "/limits/w", content=parts(), headers=sent).status_code == 413


@pytest.mark.parametrize("end", [b"", b"\\"])
def test_a_body_that_never_closes_its_strings_holds_nobody_up(end: bytes) -> None:
    # An expression that begins anew at each quote takes four times as long at twice the length.
    times = []
    for length in (1_000, 20_000):
        body = b'["' + b'\\"' * length + end
        begun = time.thread_time()
        assert _guards._depth(body) == 1
        times.append(time.thread_time() - begun)
    assert times[1] < 100 * max(times[0], 0.001)


def test_a_body_that_does_not_come_is_not_waited_for(
    one: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_guards, "_BODY_SECONDS", 0.05)

    async def parts() -> Any:
        yield b'{"slots":'
        await anyio.sleep(60)
        yield b"1}"

    sent = {"Content-Type": "application/json"}
    answer = one.ask("PUT", "/limits/w", content=parts(), headers=sent)
    assert answer.status_code == 408
    assert one.get("/limits")["items"] == []


def test_answers_carry_an_id_and_may_not_be_kept_or_framed(one: Served) -> None:
    answer = one.ask("GET", "/me", headers={"X-Request-Id": "my-id.1"})
    assert answer.headers["x-request-id"] == "my-id.1"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    made = one.ask("GET", "/nothing", headers={"X-Request-Id": "bad id\t"})
    assert re.fullmatch(r"[0-9a-f-]{36}", made.headers["x-request-id"])
    assert made.json()["instance"] == made.headers["x-request-id"]


# --- Browsers -------------------------------------------------------------------------------------


def test_a_browser_signs_in_once_and_repeats_what_no_other_page_knows(one: Served) -> None:
    code = Service(one.store, actor="me").tokens.signin_code(name="ann")
    signed = one.ask("POST", "/session", role=None, json={"code": code})
    assert signed.status_code == 201
    cookie = signed.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Path=/" in cookie
    assert one.ask("POST", "/session", role=None, json={"code": code}).status_code == 401

    browser = {"Cookie": cookie.partition(";")[0]}
    me = one.ask("GET", "/me", role=None, headers=browser).json()
    assert (me["actor"], me["kind"], me["csrf"]) == ("ann", "session", signed.json()["csrf"])

    def put(**headers: str) -> int:
        sent = browser | headers
        return one.ask("PUT", "/limits/w", role=None, json={"slots": 1}, headers=sent).status_code

    csrf = {"X-Raflow-CSRF": me["csrf"]}
    assert put() == 403
    assert put(**csrf) == 403
    assert put(Origin=BASE) == 403
    assert put(**csrf, Origin="http://evil.example") == 403
    assert put(**{"X-Raflow-CSRF": "0" * 64}, Origin=BASE) == 403
    assert put(**csrf, Origin=BASE) == 200

    ended = one.ask("DELETE", "/session", role=None, headers=browser | csrf | {"Origin": BASE})
    assert ended.status_code == 204
    assert one.ask("GET", "/me", role=None, headers=browser).status_code == 401


def test_the_sign_in_page_runs_its_own_script_only(one: Served) -> None:
    page = one.ask("GET", "//signin", role=None)
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "script-src 'sha256-" in policy
    assert "unsafe" not in policy
    assert "code=" not in page.text


def test_a_session_works_in_a_cookie_only(one: Served) -> None:
    tokens = Service(one.store, actor="me").tokens
    session = tokens.sign_in(tokens.signin_code(name="ann")).text
    headers = {"Authorization": f"Bearer {session}"}
    assert one.ask("GET", "/me", role=None, headers=headers).status_code == 401


def test_an_address_has_so_many_tries_and_those_inside_are_not_shut_out(one: Served) -> None:
    inside = {"Authorization": f"Bearer {one.token(Role.VIEWER)}"}
    assert one.ask("GET", "/me", role=None, headers=inside).status_code == 200
    for n in range(_crowd.TRIES - 1):
        wrong = {"Authorization": f"Bearer raflow_u{n}_wrong"}
        assert one.ask("GET", "/me", role=None, headers=wrong).status_code == 401
    code = {"code": "raflow_inothing_wrong"}
    assert one.ask("POST", "/session", role=None, json=code).status_code == 401
    for answer in (
        one.ask("GET", "/me", role=None, headers={"Authorization": "Bearer raflow_unew_wrong"}),
        one.ask("POST", "/session", role=None, json=code),
    ):
        assert (answer.status_code, answer.json()["code"]) == (429, "raflow.too_many")
        assert int(answer.headers["retry-after"]) > 0
    assert one.ask("GET", "/me", role=None, headers=inside).status_code == 200
    assert one.ask("GET", "/me", role=None).status_code == 401


def test_tries_are_forgotten_after_a_minute_and_many_addresses_are_one_stranger() -> None:
    now = 0.0
    strangers = _crowd.Strangers(lambda: now)
    for _ in range(_crowd.TRIES):
        strangers.check("a")
        strangers.failed("a")
    with pytest.raises(errors.TooManyError):
        strangers.check("a")
    strangers.check("b")
    now = 60.0
    strangers.check("a")
    for n in range(_crowd._ADDRESSES + 1):
        strangers.failed(str(n))
    with pytest.raises(errors.TooManyError):
        strangers.check("c")


def test_one_token_does_not_take_all_places_and_gives_them_back(
    one: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_crowd, "PLACES", 2)
    token = one.store.tokens.find(one.token(Role.VIEWER))
    assert token is not None
    stream = {"Accept": "text/event-stream"}
    with contextlib.ExitStack() as held:
        for _ in range(2):
            held.enter_context(one.app.state.crowd.place(token.id))
        for path, headers in (("/events?wait=1", {}), ("/events", stream)):
            answer = one.ask("GET", path, role=Role.VIEWER, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (429, "raflow.too_many")
        assert one.ask("GET", "/events", role=Role.VIEWER).status_code == 200
        assert one.ask("GET", "/events?wait=0.01", role=Role.ADMIN).status_code == 200
    for _ in range(3):
        assert one.ask("GET", "/events?wait=0.01", role=Role.VIEWER).status_code == 200
    assert not one.app.state.crowd._taken
