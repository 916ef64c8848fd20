"""Whether the server is there, whether it can work, and what it is."""

from __future__ import annotations

import platform
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fastapi import Request
from starlette.responses import Response

from raflow import model
from raflow._util import version_of
from raflow.model import Permission
from raflow.server import _problems
from raflow.server._router import Routes
from raflow.server.schemas import AliveOut, HealthOut, LookOut, LoopOut, VersionOut
from raflow.service import LoopState, Upkeep
from raflow.store import EXPECTED_REVISION, Store

routes = Routes("server")
plain = Routes("server")

_NEEDED_BYTES: Final = 512 << 20
API_VERSION: Final = 1


@plain.get("/healthz", Permission.OPEN)
async def is_alive() -> AliveOut:
    """Say that the process is there; asks nothing of the database."""
    return AliveOut()


@plain.get("/readyz", Permission.OPEN, response_model=AliveOut)
def is_ready(request: Request) -> AliveOut | Response:
    """Say whether the server can work: the database answers, nothing is stuck, there is room."""
    state = request.app.state
    state.store.feed.last()
    ill = [loop for loop in _loops(request) if not loop.is_well]
    if ill:
        names = " and ".join(f"the {loop.name}" for loop in ill)
        detail = f"Runs of deployments are not looked after: {names} is stuck, see /health."
        return _problems.problem(request.scope, 503, "raflow.loop_stuck", detail)
    free = _free_bytes(state.home)
    if free < _NEEDED_BYTES:
        detail = f"Only {free:,} bytes are free on the disk of the home; {_NEEDED_BYTES:,} must be."
        return _problems.problem(request.scope, 503, "raflow.disk_full", detail)
    return AliveOut()


@routes.get("/health", Permission.READ)
def get_health(request: Request) -> HealthOut:
    """Return how the server is, in detail."""
    state = request.app.state
    store: Store = state.store
    begun = time.monotonic()
    now = store.now()
    store.feed.last()
    return HealthOut(
        at=datetime.fromtimestamp(now, UTC),
        database=store.shown_url,
        revision=EXPECTED_REVISION,
        database_seconds=round(time.monotonic() - begun, 6),
        free_bytes=_free_bytes(state.home),
        uptime_seconds=round(begun - state.begun_at, 3),
        loops=[LoopOut.of(loop) for loop in _loops(request)],
        versions=_versions(),
    )


@routes.get("/version", Permission.READ)
def get_version() -> VersionOut:
    """Return what this server is, and how states are called and look."""
    return VersionOut(
        versions=_versions(),
        api=API_VERSION,
        states=dict(model.TYPE_OF),
        palette=[
            LookOut(type=kind, fill=look.fill, ink=look.ink, icon=look.icon)
            for kind, look in model.PALETTE.items()
        ],
    )


@routes.get("/openapi.json", Permission.READ, include_in_schema=False, response_model=None)
def get_openapi(request: Request) -> dict[str, Any]:
    """Return the description of this API."""
    description: dict[str, Any] = request.app.openapi()
    return description


def _loops(request: Request) -> tuple[LoopState, ...]:
    upkeep: Upkeep | None = request.app.state.upkeep
    return () if upkeep is None else upkeep.states()


def _free_bytes(home: Path) -> int:
    """Return the room on the disk of a directory that may not have been made yet."""
    there = next(path for path in (home, *home.parents) if path.exists())
    return shutil.disk_usage(there).free


def _versions() -> dict[str, str]:
    return {"raflow": version_of("raflow"), "python": platform.python_version()}
