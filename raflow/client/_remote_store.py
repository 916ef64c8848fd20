"""What stands for the store where a service keeps the record."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote

import orjson

from raflow import errors, model
from raflow.client import _groups
from raflow.client._calls import PATIENCE_SECONDS, Calls, patiently
from raflow.client._http import Connection, check_url
from raflow.client._outbox import Outbox
from raflow.client._spool import RunSpool, Spool
from raflow.model import wire

_SEND_SECONDS: Final = 10.0
_CLOSE_SECONDS: Final = 5.0
_OPEN_SECONDS: Final = 5.0
_OF_A_RUN: Final = "raflow_r"
"""How the token of a run begins."""
_KEPT: Final = "kept-until-sent"
_ENDS: Final = frozenset({model.StateName.SUSPENDED})


class RemoteStore:
    """The record of the runs of this process, kept by a service; for use by any thread.

    What the service cannot take now waits on disk, in order, and is sent once it is back: by this
    process, or by the next one of this home. Whatever else is asked raises `StoreError` while the
    service is away.
    """

    def __init__(self, url: str, token: str, *, home: Path, spool_bytes: int) -> None:
        """Take what `open` takes, and ask nothing."""
        self._connection = Connection(check_url(url))
        self._calls = Calls(self._connection, token)
        self._spool = Spool(home / "spool")
        self._outbox = Outbox(self._spool, self._connection.url, self._post, most_bytes=spool_bytes)
        self._has_begun = False
        self._tickets = itertools.count()
        self._logs: dict[int, bytes] = {}
        self.requests: Final = _groups.Requests(self._calls, self._settle)
        self.leases: Final = _groups.Leases(self._calls, self._settle, self.requests.drives)
        self.limits: Final = _groups.Limits(self._calls)
        self.cache: Final = _groups.Cache(self._calls)
        self.recall: Final = _groups.Past(self._calls, self._settle)

    @classmethod
    def open(
        cls, url: str, token: str, *, home: Path, spool_bytes: int, adopt: bool = True
    ) -> Self:
        """Open the record of a service, and begin to send it what earlier processes have left.

        Args:
            url: The service: `https://host:port`.
            token: One that may author, or that of the only run that is recorded.
            home: Where batches wait while the service is away.
            spool_bytes: So much of a run waits at most; then the run does.
            adopt: Whether to send what earlier processes have left. Default: yes.

        Raises:
            ConfigError: There is no token, or the URL is none.
            StoreError: The service cannot be reached.
            AccessError: The token does not count, or may not record runs.
        """
        if not url:
            raise errors.ConfigError("No service is named. Set RAFLOW_API_URL.")
        if not token:
            raise errors.ConfigError(
                "RAFLOW_API_URL names a service, and RAFLOW_API_TOKEN has no token for it. An "
                "administrator makes one, with the role author."
            )
        found = cls(url, token, home=home, spool_bytes=spool_bytes)
        try:
            found._check()
        except BaseException:
            found._connection.close()
            raise
        if adopt:
            found._adopt()
        return found

    def _adopt(self) -> int:
        """Take up what earlier processes have left, as far as the token allows."""
        return self._outbox.adopt(self._calls.only)

    def _check(self) -> None:
        token = self._calls.api_token
        if token.startswith(_OF_A_RUN):
            begun = patiently(
                lambda: self._connection.ask("GET", "/record", token=token), _OPEN_SECONDS
            )
            self._calls.confine(wire.load_json(wire.RecordBegun, begun).root_id)
            return
        told = patiently(lambda: self._connection.ask("GET", "/me", token=token), _OPEN_SECONDS)
        if "author" not in orjson.loads(told)["permissions"]:
            raise errors.AccessError(
                f"The token for the service at {self._connection.url} may not record runs: that "
                "needs the role author."
            )

    def is_there(self) -> bool:
        """Whether the record is still the one that was opened."""
        return True

    def close(self) -> None:
        """Send what waits, if the service is there; close the connection."""
        self._outbox.close(_CLOSE_SECONDS)
        self.requests.close()
        self._connection.close()

    def send_all(self, seconds: float) -> int:
        """Send what earlier processes have left; return of how many runs that was.

        Raises:
            StoreError: The service was not there in time.
        """
        found = self._adopt()
        self._outbox.settle_all(seconds)
        return found

    # --- Writing ----------------------------------------------------------------------------------

    def apply(self, batch: model.RecordBatch) -> bool:
        """Send a batch, or have it wait on disk; see `Outbox.send`.

        Raises:
            FencedError: A later process of the flow run has begun.
            StoreError: The service is away, and the disk full.
        """
        runs = [record for record in batch.records if isinstance(record, model.FlowRun)]
        for run in runs:
            self._calls.learn(run)
        root = self._calls.root_of(batch.flow_run_id)
        parts = model.parts_of(batch)
        logs = tuple([self._logs[ticket] for ticket in _tickets(parts.records)])
        content = model.encode_batch(dataclasses.replace(parts, logs=logs))
        if len(content) > wire.MOST_BATCH_BYTES:
            raise errors.BatchError(
                f"Batch {batch.seq} of flow run {batch.flow_run_id!r} has {len(content):,} bytes, "
                f"and a service takes {wire.MOST_BATCH_BYTES:,} at once. Let its tasks return "
                "less, or say persist_result=False."
            )
        if root == self._calls.only and not self._has_begun:
            applied = self._begin(root, content)
        else:
            applied = self._outbox.send(root, batch.flow_run_id, content)
        for ticket in _tickets(batch.records):
            self._logs.pop(ticket, None)
        self._note(root, batch, runs)
        return applied

    def _begin(self, root: str, content: bytes) -> bool:
        """Send the first batch of a run that a worker has taken; that one never waits on disk.

        While nothing of the run is on record it has done nothing, and may become another worker's:
        so it must not do anything before.
        """
        applied = self._post(self._outbox.spool_of(root), root, content)
        self._has_begun = True
        return applied

    def _note(self, root: str, batch: model.RecordBatch, runs: Sequence[model.FlowRun]) -> None:
        if batch.flow_run_id == root:
            self.requests.drives(root, batch.incarnation)
            if any(run.state.type.is_final or run.state.name in _ENDS for run in runs):
                self.requests.ended(root)

    def append_log(self, flow_run_id: str, blob: bytes) -> tuple[str, int]:  # noqa: ARG002
        """Keep a log segment until the batch is sent that names it."""
        ticket = next(self._tickets)
        self._logs[ticket] = blob
        return _KEPT, ticket

    def _post(self, spool: RunSpool, flow_run_id: str, content: bytes) -> bool:
        self._calls.use(spool.root_id, spool.token)

        def ask(token: str) -> bytes:
            spool.token = token
            return self._connection.ask(
                "POST",
                f"/record/{quote(flow_run_id, safe='')}/batches",
                token=token,
                body=content,
                media_type=wire.BATCH_MEDIA_TYPE,
                seconds=_SEND_SECONDS,
            )

        return wire.load_json(wire.BatchTaken, self._calls.as_root(spool.root_id, ask)).applied

    def _settle(self, flow_run_id: str, seconds: float) -> None:
        self._outbox.settle(patiently(lambda: self._calls.root_of(flow_run_id), seconds), seconds)

    # --- Reading ----------------------------------------------------------------------------------

    def paces(self, flow: str, fingerprint: str) -> Mapping[str, model.TaskPace]:
        """Return what earlier runs of the same code have learned about its tasks, by task."""
        query = {"flow": flow, "fingerprint": fingerprint}
        if self._calls.only:
            return self._calls.get(
                self._calls.only, "/paces", dict[str, model.TaskPace], query=query
            )
        data = self._connection.ask(
            "GET", "/record/paces", token=self._calls.api_token, query=query
        )
        return wire.load_json(dict[str, model.TaskPace], data)

    def find_flow_run(self, text: str) -> model.FlowRun:
        """Return the flow run that a person means, once all that was left behind is on record."""
        self._adopt()
        self._outbox.settle_all(PATIENCE_SECONDS)
        run_id = patiently(lambda: self._calls.begin(wire.RecordBegin(find=text)), PATIENCE_SECONDS)
        return self._calls.get(run_id, "/run", model.FlowRun, patience=PATIENCE_SECONDS)

    def flow_runs(self, *, limit: int | None, parent: str) -> Sequence[model.FlowRun]:
        """Return the runs that the body of a flow run started, newest first."""
        self._settle(parent, PATIENCE_SECONDS)
        found = self._calls.get(parent, "/children", list[model.FlowRun], patience=PATIENCE_SECONDS)
        return found[:limit]

    def task_runs(
        self, flow_run_id: str, *, state_types: Collection[model.StateType] | None = None
    ) -> Sequence[model.TaskRun]:
        """Return task runs in the order of their keys."""
        self._settle(flow_run_id, PATIENCE_SECONDS)
        found = _groups.pages(self._calls, flow_run_id, "/task-runs", state_types)
        return list(itertools.chain.from_iterable(found))

    def states(self, flow_run_id: str) -> list[model.StateChange]:
        """Return what a flow run itself went through, oldest first."""
        self._settle(flow_run_id, PATIENCE_SECONDS)
        return self._calls.get(
            flow_run_id, "/states", list[model.StateChange], patience=PATIENCE_SECONDS
        )

    def result(
        self, flow_run_id: str, key: model.TaskRunKey | None = None
    ) -> model.ResultInfo | None:
        """Return what is known about the value of a task run, or by default of the flow run."""
        self._settle(flow_run_id, PATIENCE_SECONDS)
        query = {} if key is None else {"node": key.node, "item": key.map_index}
        data = self._calls.raw(
            "GET", flow_run_id, "/result", query=query, patience=PATIENCE_SECONDS
        )
        return None if data == b"null" else wire.load_json(model.ResultInfo, data)


def _tickets(records: Iterable[model.Record]) -> list[int]:
    """Return under which numbers the lines of log segments are kept."""
    return [record.offset for record in records if isinstance(record, model.LogSegment)]
