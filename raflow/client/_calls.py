"""What runs ask of the service: each with the token of its root run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote

from raflow import errors
from raflow._util import new_id
from raflow.client._http import READ_SECONDS, Connection
from raflow.model import FlowRun, wire

T = TypeVar("T")

PATIENCE_SECONDS: Final = 30.0
"""How long the service is waited for where somebody cannot go on without it."""
_PAUSE_SECONDS: Final = 0.25


class Calls:
    """Knows which run belongs to which root run, and with which token it is recorded."""

    def __init__(self, connection: Connection, token: str) -> None:
        """Take the connection, and the token of whoever runs flows here."""
        self.connection = connection
        self.api_token = token
        self.only = ""
        """The run that the token is good for, with its subflows; empty: for any."""
        self._roots: dict[str, str] = {}
        self._tokens: dict[str, str] = {}

    def learn(self, run: FlowRun) -> None:
        """Take note of a run that is being recorded."""
        parent = run.parent_id
        self._roots.setdefault(run.id, run.id if parent is None else self.root_of(parent))

    @property
    def latest(self) -> str:
        """A run of this process, for questions that are about none."""
        if not self._roots:
            self.begin(wire.RecordBegin(run_id=new_id()))
        return next(reversed(self._roots))

    def root_of(self, flow_run_id: str) -> str:
        """Return the run that began all that a run is a part of."""
        if flow_run_id not in self._roots:
            self.begin(wire.RecordBegin(run_id=flow_run_id))
        return self._roots[flow_run_id]

    def confine(self, flow_run_id: str) -> None:
        """Take note that the token is that of a run, whose process this one is."""
        self.only = flow_run_id
        self._roots[flow_run_id] = flow_run_id
        self._tokens[flow_run_id] = self.api_token

    def begin(self, which: wire.RecordBegin) -> str:
        """Get the token for a run; return the id of the run."""
        if self.only:
            # Whether it belongs to that run, the service knows.
            found = which.find or which.run_id
            self._roots[found] = self.only
            return found
        data = self.connection.ask(
            "POST", "/record", token=self.api_token, body=wire.dump_json(which)
        )
        begun = wire.load_json(wire.RecordBegun, data)
        self._roots[begun.run_id] = begun.root_id
        self._tokens[begun.root_id] = begun.token
        return begun.run_id

    def token_of(self, root_id: str) -> str:
        """Return the token of a root run, a new one if need be."""
        if root_id not in self._tokens:
            self.begin(wire.RecordBegin(run_id=root_id))
        return self._tokens[root_id]

    def use(self, root_id: str, token: str) -> None:
        """Take a token that was kept with what waits of a run."""
        if token:
            self._tokens.setdefault(root_id, token)

    def as_root(self, root_id: str, ask: Callable[[str], T]) -> T:
        """Ask something with the token of a root run; with a new one if that counts no more."""
        try:
            return ask(self.token_of(root_id))
        except errors.UnauthenticatedError:
            if not self.api_token or self.only:
                raise
            del self._tokens[root_id]
            return ask(self.token_of(root_id))

    def raw(
        self,
        method: str,
        flow_run_id: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: object = None,
        patience: float = 0.0,
        seconds: float = READ_SECONDS,
    ) -> bytes:
        """Ask something of a run; return the bytes of the answer.

        Args:
            method: Of HTTP.
            flow_run_id: The run.
            path: Behind its name.
            query: Parameters.
            body: What is sent, as JSON.
            patience: How long it is asked again if the service is away.
            seconds: How long the answer is waited for.
        """
        root = patiently(lambda: self.root_of(flow_run_id), patience)
        content = None if body is None else wire.dump_json(body)

        def ask(token: str) -> bytes:
            return self.connection.ask(
                method,
                f"/record/{quote(flow_run_id, safe='')}{path}",
                token=token,
                query=query,
                body=content,
                seconds=seconds,
            )

        return patiently(lambda: self.as_root(root, ask), patience)

    def get(self, flow_run_id: str, path: str, kind: type[T], **more: Any) -> T:
        """Ask for something of a run."""
        return wire.load_json(kind, self.raw("GET", flow_run_id, path, **more))

    def post(self, flow_run_id: str, path: str, body: object, kind: type[T], **more: Any) -> T:
        """Have something done for a run; doing it twice must be as doing it once."""
        return wire.load_json(kind, self.raw("POST", flow_run_id, path, body=body, **more))


def patiently(ask: Callable[[], T], seconds: float) -> T:
    """Ask again while the service is away."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except errors.StoreError:
            if time.monotonic() + _PAUSE_SECONDS >= deadline:
                raise
            time.sleep(_PAUSE_SECONDS)
