"""Errors as problem documents (RFC 9457): one form, with a stable code for programs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from raflow import errors

MEDIA_TYPE: Final = "application/problem+json"
_log = logging.getLogger("raflow.server")

_STATUS: Final[Mapping[str, int]] = {
    "raflow.already_answered": 409,
    "raflow.bad_batch": 422,
    "raflow.bad_cursor": 400,
    "raflow.bundle_mismatch": 422,
    "raflow.bundle_missing": 409,
    "raflow.bundle_refused": 422,
    "raflow.bundle_storage": 503,
    "raflow.config": 422,
    "raflow.definition": 422,
    "raflow.fenced": 409,
    "raflow.forbidden": 403,
    "raflow.idempotency_conflict": 409,
    "raflow.infeasible": 422,
    "raflow.not_found": 404,
    "raflow.parameters": 422,
    "raflow.result_storage": 503,
    "raflow.resume": 409,
    "raflow.run_has_ended": 409,
    "raflow.run_is_alive": 409,
    "raflow.schedule": 422,
    "raflow.stale": 412,
    "raflow.store": 503,
    "raflow.too_many": 429,
    "raflow.too_slow": 503,
    "raflow.unauthenticated": 401,
    "raflow.unknown_limit": 404,
}
"""What the errors of raflow are in HTTP, by code; every other one is a bug of the server."""

_RETRY_SECONDS: Final[Mapping[str, int]] = {
    "raflow.bundle_storage": 1,
    "raflow.result_storage": 1,
    "raflow.store": 1,
    "raflow.too_many": 10,
}
"""When to try again; what was too slow would be so again."""

_OF_STATUS: Final[Mapping[int, str]] = {
    400: "raflow.invalid",
    401: "raflow.unauthenticated",
    403: "raflow.forbidden",
    404: "raflow.not_found",
    405: "raflow.method_not_allowed",
    413: "raflow.too_large",
    415: "raflow.unsupported",
}
_TITLES: Final[Mapping[int, str]] = {
    400: "The request cannot be read",
    401: "Nobody knows who asks",
    403: "This is not allowed",
    404: "There is no such thing",
    405: "This cannot be done here",
    408: "The request has not come in time",
    409: "This does not fit the present state",
    412: "It has changed meanwhile",
    413: "The request is too large",
    415: "This kind of content is not taken",
    421: "This server is not known by that name",
    422: "The request does not fit",
    429: "This is too much at once",
    500: "The server has failed",
    503: "The server cannot answer now",
}


def problem(
    scope: Scope,
    status: int,
    code: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """Return a problem document.

    Args:
        scope: The request, whose id stands in the document.
        status: Of HTTP.
        code: For programs: `raflow.not_found`.
        detail: For people: what happened, to which thing, and what to do.
        headers: Further headers of the answer.
        **more: Further members of the document.
    """
    document = {
        "type": "about:blank",
        "title": _TITLES.get(status, "The request has failed"),
        "status": status,
        "detail": detail,
        "code": code,
        "instance": scope.get("raflow.request_id", ""),
        **{name: value for name, value in more.items() if value},
    }
    # A detail can quote what was asked, with halves of surrogate pairs, which JSON cannot carry.
    document["detail"] = detail.encode("utf-8", "backslashreplace").decode()
    return Response(
        orjson.dumps(document, default=str), status, dict(headers or {}), media_type=MEDIA_TYPE
    )


def of_error(scope: Scope, error: errors.RaflowError) -> Response:
    """Return the problem document of an error of raflow."""
    status = _STATUS.get(error.code)
    if status is None:
        return of_bug(scope, error)
    headers, detail = {}, error.message
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    retry = _RETRY_SECONDS.get(error.code)
    if retry is not None:
        headers["Retry-After"] = str(retry)
    if status == 503:
        _log.warning("%s: %s", error.code, error.message)
        if "raflow.principal" not in scope:
            # The message names hosts, users and files.
            detail = "What the server works on does not answer. The log of the server tells more."
    near = error.details.get("closest")
    return problem(
        scope,
        status,
        error.code,
        detail,
        headers=headers,
        closest=list(near) if near else None,
        retry_after=retry,
    )


def of_bug(scope: Scope, error: Exception) -> Response:
    """Return a problem document that tells no more than where to look in the log."""
    request_id = scope.get("raflow.request_id", "")
    _log.error("Request %s has failed", request_id, exc_info=error)
    return problem(
        scope,
        500,
        "raflow.internal",
        f"This is a bug in raflow, or in how it is set up. The log of the server tells more at "
        f"request {request_id}.",
    )


def handle(app: FastAPI) -> None:
    """Let an application answer with problem documents only."""
    app.add_exception_handler(errors.RaflowError, _raflow_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)


async def _raflow_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.RaflowError)
    return of_error(request.scope, error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = [{"loc": [str(part) for part in e["loc"]], "msg": e["msg"]} for e in error.errors()]
    return problem(request.scope, 422, "raflow.invalid", _in_words(found), errors=found)


def _in_words(found: Sequence[Mapping[str, Any]]) -> str:
    first = found[0]
    more = f" (and {len(found) - 1} more, see errors)" if len(found) > 1 else ""
    return f"{'.'.join(first['loc'])}: {first['msg']}{more}."


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _OF_STATUS.get(error.status_code, "raflow.invalid")
    detail = f"{request.method} {request.url.path}: {error.detail}."
    return problem(request.scope, error.status_code, code, detail, headers=error.headers)
