"""A server in this process over a store of each kind, and one in a process of its own."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio.from_thread
import httpx
import orjson
import pytest

from raflow import model
from raflow.model import Role
from raflow.server import make_app
from raflow.service import Service, Upkeep
from raflow.store import Store
from tests.store.conftest import sqlite_url
from tests.store.records import batch, flow_run, flow_version

__all__ = ["sqlite_url"]

BASE = "http://127.0.0.1:8484"
API = f"{BASE}/api/v1"


@dataclass(frozen=True, slots=True)
class Served:
    """A server in this process; each call is a request of its own."""

    store: Store
    app: Any
    portal: anyio.from_thread.BlockingPortal
    tokens: dict[Role, str] = field(default_factory=dict)

    def token(self, role: Role = Role.ADMIN) -> str:
        """Return the text of a token with this role."""
        if role not in self.tokens:
            made = Service(self.store, actor="test").tokens.make(name=role.value, role=role)
            self.tokens[role] = made.text
        return self.tokens[role]

    def ask(
        self,
        method: str,
        path: str,
        *,
        role: Role | None = Role.ADMIN,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> httpx.Response:
        """Send a request; `path` is below `/api/v1` unless it begins with two slashes."""
        sent = dict(headers or {})
        if role is not None:
            sent["Authorization"] = f"Bearer {self.token(role)}"
        return self.portal.call(functools.partial(self.send, method, path, headers=sent, **more))

    async def send(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Send a request on the loop of the server."""
        url = f"{BASE}{path[1:]}" if path.startswith("//") else f"{API}{path}"
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport) as client:
            return await client.request(method, url, **more)

    def get(self, path: str, **more: Any) -> Any:
        """Return the JSON of what must be there."""
        answer = self.ask("GET", path, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def events(self, query: str, count: int) -> list[Any]:
        """Return so many events; where they are numbered after their commit they come later."""
        found: list[Any] = []
        deadline = time.monotonic() + 60
        while len(found) < count and time.monotonic() < deadline:
            found = self.get(f"/events?wait=1&{query}")["items"]
        return found


@contextlib.contextmanager
def serving(store: Store, home: Path, upkeep: Upkeep | None = None) -> Iterator[Served]:
    """Serve a store in this process."""
    app = make_app(store, home=home, allowed_hosts=["raflow.example"], upkeep=upkeep)
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(app.router.lifespan_context(app)),
    ):
        yield Served(store, app, portal)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    """A server over an empty store in each kind of database."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    with Store.open(url, log_dir=tmp_path / "logs") as store, serving(store, tmp_path) as found:
        yield found


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Served]:
    """A server over an empty store in a file."""
    url = f"sqlite:///{tmp_path / 'raflow.db'}"
    with Store.open(url, log_dir=tmp_path / "logs") as store, serving(store, tmp_path) as found:
        yield found


def record(store: Store, run_id: str, *records: model.Record, **more: Any) -> None:
    """Record a run of the flow `etl`."""
    rows = (flow_version(), flow_run(run_id, **more), *records)
    store.apply(batch(*rows, flow_run_id=run_id))


@dataclass(frozen=True, slots=True)
class Started:
    """A server in a process of its own."""

    url: str
    token: str
    pid: int
    home: Path
    said: tuple[str, ...]
    """The lines that it printed."""

    def client(self) -> httpx.Client:
        """Return a client that has its token."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=f"{self.url}/api/v1/", headers=headers, timeout=30)


@contextlib.contextmanager
def started(home: Path, *, lines: int = 2, database: str = "") -> Iterator[Started]:
    """Run a server until the end of the block; at its first start it prints two lines."""
    process = subprocess.Popen(
        [sys.executable, "-m", "raflow.server", "--port", "0"],
        env=os.environ | {"RAFLOW_HOME": str(home), "RAFLOW_DATABASE_URL": database},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        said = tuple(process.stdout.readline().rstrip() for _ in range(lines))
        told = orjson.loads((home / "server.json").read_bytes())
        yield Started(told["url"], told["token"], process.pid, home, said)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()
            process.stdout.close()
