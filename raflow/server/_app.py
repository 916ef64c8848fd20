"""The application, put together."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from raflow._util import version_of
from raflow.server import _auth, _guards, _problems, _sse, routes
from raflow.server._crowd import Crowd, Strangers
from raflow.server.schemas import Problem
from raflow.service import Families, Ingest, Signals, Upkeep
from raflow.store import Store

PREFIX: Final = "/api/v1"
_PROBLEM: Final = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_PROBLEMS: Final = {
    400: "A cursor that is none",
    401: "No token, or one that does not count",
    403: "The token does not allow this",
    404: "There is no such thing",
    405: "The path is there, but not for this method",
    409: "This does not fit the present state",
    412: "It has changed meanwhile",
    413: "The body is too large, or nested too deeply",
    415: "The body is not of the kind that is taken here",
    421: "This server is not known by that name",
    422: "A parameter or the body does not fit",
    429: "One asks too often without success, or for too much at once",
    503: "The database cannot be reached, or takes too long over a list",
}
_DECODING: Final = 2
"""So many batches of records are decoded at a time: that takes the processor, not the database."""
_UPLOADING: Final = 4
"""So many bundles are taken at a time: each holds a thread until all of it has come."""
_THREADS: Final = 24
"""A database that hangs holds at most so many."""


def make_app(
    store: Store,
    *,
    home: Path,
    allowed_hosts: Iterable[str] = (),
    signals: Signals | None = None,
    upkeep: Upkeep | None = None,
    storage: str = "",
) -> FastAPI:
    """Make the application over a store.

    Args:
        store: The record; stays open as long as the application is used.
        home: The directory whose disk must not be full.
        allowed_hosts: Names of this server besides those of the loopback interface.
        signals: What wakes those who wait in this process. Default: its own.
        upkeep: What looks after schedules and runs, whose health is the server's. Default: another
            process does it.
        storage: fsspec URL, or path, of the code of deployments. Default: `bundles` in `home`.
    """
    app = FastAPI(
        title="raflow",
        version=version_of("raflow"),
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=_lifespan,
        separate_input_output_schemas=False,
    )
    signals = signals or Signals()
    app.state.store = store
    app.state.home = home
    app.state.storage = storage or str(home / "bundles")
    app.state.signals = signals
    app.state.upkeep = upkeep
    app.state.hub = _sse.Hub(store, signals)
    app.state.directory = _auth.Directory(store)
    app.state.strangers = Strangers()
    app.state.crowd = Crowd()
    app.state.families = Families(store)
    app.state.ingest = Ingest(store, signals, app.state.families)
    app.state.decoding = anyio.CapacityLimiter(_DECODING)
    app.state.uploading = anyio.CapacityLimiter(_UPLOADING)
    app.state.closing = False
    app.state.begun_at = time.monotonic()
    for router in routes.API:
        app.include_router(router, prefix=PREFIX)
    for router in routes.PLAIN:
        app.include_router(router)
    _problems.handle(app)
    app.openapi = functools.partial(_described, app)  # type: ignore[method-assign]
    # The one that is added last is the first to see a request.
    app.add_middleware(
        _auth.Authentication, directory=app.state.directory, strangers=app.state.strangers
    )
    app.add_middleware(_guards.Guards, allowed_hosts=tuple(allowed_hosts))
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
    async with anyio.create_task_group() as group:
        group.start_soon(app.state.hub.run)
        yield
        app.state.hub.close()
    await anyio.to_thread.run_sync(app.state.ingest.close)


def _described(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI description; made when it is first asked for, as that takes a while."""
    if app.openapi_schema is None:
        app.openapi_schema = _describe(app)
    return app.openapi_schema


def _describe(app: FastAPI) -> dict[str, Any]:
    found = get_openapi(title="raflow", version=version_of("raflow"), routes=app.routes)
    schemes = {
        "token": {"type": "http", "scheme": "bearer"},
        "session": {"type": "apiKey", "in": "cookie", "name": _auth.COOKIE},
    }
    components = found["components"]
    # What FastAPI itself would answer with; here it is a problem, too.
    for name in ("HTTPValidationError", "ValidationError"):
        del components["schemas"][name]
    components["schemas"]["Problem"] = Problem.model_json_schema()
    components["securitySchemes"] = schemes
    components["responses"] = {
        f"Problem{status}": {"description": description, "content": _PROBLEM}
        for status, description in _PROBLEMS.items()
    }
    problems = {
        str(status): {"$ref": f"#/components/responses/Problem{status}"} for status in _PROBLEMS
    }
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            is_open = (method.upper(), path) in _auth.OPEN
            operation["security"] = [] if is_open else [{"token": []}, {"session": []}]
            operation["responses"] |= problems
    return found
