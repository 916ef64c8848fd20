"""Running the server: where it listens, how its own people find it, and how it ends."""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

import orjson
import uvicorn
from fastapi import FastAPI

from raflow import config, errors
from raflow.model import Role, TokenKind
from raflow.server import _guards
from raflow.server._app import make_app
from raflow.service import Service, Signals, Upkeep
from raflow.store import Store

_DRAIN_SECONDS: Final = 5
_KEEP_ALIVE_SECONDS: Final = 20
_WAIT_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Where a server listens, and what stands before it."""

    host: str
    port: int
    """0: one that is free."""
    tls_cert: str = ""
    tls_key: str = ""
    behind_proxy: str = ""
    """Addresses of proxies, separated by commas, whose `X-Forwarded-*` headers are believed."""

    def check(self) -> None:
        """Refuse to show tokens to a network.

        Raises:
            ConfigError: Others could read along.
        """
        if bool(self.tls_cert) is not bool(self.tls_key):
            raise errors.ConfigError("--tls-cert and --tls-key belong together: give both.")
        if self.host in _guards.LOOPBACK or self.tls_cert or self.behind_proxy:
            return
        raise errors.ConfigError(
            f"The server would listen on {self.host!r} without encryption, and everybody in the "
            "network could read the tokens. Give --tls-cert and --tls-key, or --behind-proxy with "
            "the address of the proxy that encrypts, or listen on 127.0.0.1."
        )

    def url(self, port: int) -> str:
        """Return how people of this machine reach it."""
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::", "localhost"} else self.host  # noqa: S104
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self.tls_cert else 'http'}://{shown}:{port}"


def serve(settings: config.Settings, listen: Listen) -> None:
    """Run a server until it is told to end: by SIGTERM, or by Ctrl-C.

    Raises:
        ConfigError: It cannot listen there, or another server of this home runs.
        StoreError: The database cannot be opened.
    """
    listen.check()
    with _only_one(settings.home), _listening(listen) as listening:
        url = listen.url(listening.getsockname()[1])
        with Store.open(
            settings.database, log_dir=settings.logs, wait_seconds=_WAIT_SECONDS
        ) as store:
            signals = Signals()
            upkeep = Upkeep(store, wake=signals.wake)
            signals.tell("schedules", upkeep.wake)
            app = make_app(
                store,
                home=settings.home,
                allowed_hosts=settings.allowed_hosts,
                signals=signals,
                upkeep=upkeep,
                storage=settings.bundles,
            )
            with _known(store, settings.home, url), upkeep:
                _run(app, listen, listening)


def _run(app: FastAPI, listen: Listen, listening: socket.socket) -> None:
    # After its own end uvicorn raises the signal again: there is still something to clean up.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    settings = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="on",
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
        proxy_headers=bool(listen.behind_proxy),
        forwarded_allow_ips=listen.behind_proxy or None,
        ssl_certfile=listen.tls_cert or None,
        ssl_keyfile=listen.tls_key or None,
    )
    _Server(settings, app).run(sockets=[listening])


class _Server(uvicorn.Server):
    """Ends its streams at once when it is told to end, instead of waiting for them."""

    def __init__(self, settings: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(settings)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._app.state.hub.close()
        self._app.state.closing = True
        self._app.state.signals.wake("closing")
        super().handle_exit(sig, frame)


@contextlib.contextmanager
def _listening(listen: Listen) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        listening = socket.create_server((listen.host, listen.port), family=family, backlog=1024)
    except OSError as error:
        raise errors.ConfigError(
            f"The server cannot listen on {listen.host!r}, port {listen.port}: {error.strerror}. "
            "Choose another one with --port or RAFLOW_SERVER_PORT."
        ) from error
    with listening:
        yield listening


# --- How it is found ------------------------------------------------------------------------------


@contextlib.contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Be the only server of a home: its file would tell of one of them only."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(home / "server.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        there = _told(home)
        raise errors.ConfigError(
            f"A server of {home} runs already: {there.get('url', 'it is just starting')}, process "
            f"{there.get('pid', 'unknown')}. Stop it first, or set RAFLOW_HOME to another one."
        ) from error
    try:
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _known(store: Store, home: Path, url: str) -> Iterator[None]:
    """Let the command line of whoever owns the home find the server, with a token of its own."""
    tokens = Service(store, actor=_person()).tokens
    # Of a server that was killed: it could not end its token itself.
    _forget(store, home)
    people = [token for token in tokens.list() if token.role is Role.ADMIN]
    link = "" if people else f"{url}/signin#code={tokens.signin_code(name=_person())}"
    made = tokens.make(name=_person(), role=Role.ADMIN, kind=TokenKind.USER)
    told = {
        "url": url,
        "pid": os.getpid(),
        "started_at": time.time(),
        "token": made.text,
        "token_id": made.token.id,
    }
    _write(home / "server.json", orjson.dumps(told))
    try:
        _say(f"raflow serves {store.shown_url} on {url}")
        if link:
            _say(f"Sign in, once, within 15 minutes: {link}")
        yield
    finally:
        _forget(store, home)


def _forget(store: Store, home: Path) -> None:
    token_id = _told(home).get("token_id")
    if isinstance(token_id, str):
        with contextlib.suppress(errors.NotFoundError, errors.StoreError):
            store.tokens.revoke(token_id)
    (home / "server.json").unlink(missing_ok=True)


def _told(home: Path) -> dict[str, object]:
    try:
        found = orjson.loads((home / "server.json").read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read; nobody ever sees a part of it."""
    partly = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(partly, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
    partly.replace(path)


def signin_link(settings: config.Settings) -> str:
    """Return a link that signs a browser in as an administrator, once, within 15 minutes.

    Whoever may write to the database may have one.

    Raises:
        ConfigError: No server of this home runs.
    """
    url = _told(settings.home).get("url")
    if url is None:
        raise errors.ConfigError(
            f"No server of {settings.home} runs. `raflow server` starts one; RAFLOW_HOME names "
            "another home."
        )
    with Store.open(settings.database, log_dir=settings.logs) as store:
        code = Service(store, actor=_person()).tokens.signin_code(name=_person())
    return f"{url}/signin#code={code}"


def _person() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def log_to_stderr(level: str) -> None:
    """Write what the server logs to stderr, a line each."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # What they tell of themselves at INFO is for their own developers.
    for library in ("alembic", "uvicorn"):
        logging.getLogger(library).setLevel(max(logging.WARNING, logging.getLogger().level))
