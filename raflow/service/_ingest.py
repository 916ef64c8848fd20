"""Batches of records on their way into the store: what arrives together is written together."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Final, NamedTuple

from raflow import errors, model
from raflow.service._families import Families
from raflow.service._signals import Signals
from raflow.store import Store

_AT_ONCE: Final = 64
"""How many batches one transaction writes at most, where only one can be open."""
_WRITERS: Final = 4
"""How many transactions are open at most, where there can be several."""
_MOST_BYTES: Final = 256 << 20
"""So much may be on its way at once."""
_LOG: Final = logging.getLogger("raflow.service")


class _Item(NamedTuple):
    parts: model.BatchParts
    done: Future[bool]


class Ingest:
    """Takes batches from runs, and writes them on threads of its own."""

    def __init__(self, store: Store, signals: Signals, families: Families) -> None:
        """Prepare it; its threads start with the first batch.

        Args:
            store: Where batches go.
            signals: Wakes those who wait for events.
            families: Which runs belong together.
        """
        self._store = store
        self._signals = signals
        self._families = families
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._bytes = 0
        self._flows: dict[str, str] = {}

    def enter(self, size: int) -> None:
        """Make room for a batch of so many bytes; `leave` gives it back.

        Raises:
            StoreError: Too much is on its way already.
        """
        with self._lock:
            if self._bytes and self._bytes + size > _MOST_BYTES:
                raise errors.StoreError(
                    f"{self._bytes:,} bytes of records are on their way already. Send it again in "
                    "a moment."
                )
            self._bytes += size

    def leave(self, size: int) -> None:
        """Give back the room for a batch."""
        with self._lock:
            self._bytes -= size

    def take(self, root_id: str, flow_run_id: str, data: bytes) -> Future[bool]:
        """Take a batch; done once it is on disk, with False if it was before.

        Args:
            root_id: The run that the caller may record, with all that belongs to it.
            flow_run_id: The run that the batch is of.
            data: What `model.encode_batch` returns.

        Raises:
            BatchError: It is no batch, or none of this run.
            NotFoundError: The run does not belong to the root.
        """
        parts = model.decode_batch(data)
        if parts.flow_run_id != flow_run_id:
            raise errors.BatchError(
                f"This is a batch of flow run {parts.flow_run_id!r}, and was sent as one of "
                f"{flow_run_id!r}."
            )
        self._check(root_id, parts)
        item = _Item(parts, Future())
        self._start()
        self._queue.put(item)
        return item.done

    def close(self) -> None:
        """Write what was taken, and end."""
        with self._lock:
            threads, self._threads = self._threads, []
        for _ in threads:
            self._queue.put(None)
        for thread in threads:
            thread.join()

    # --- Whether it may be written ----------------------------------------------------------------

    def _check(self, root_id: str, parts: model.BatchParts) -> None:
        run_id = parts.flow_run_id
        told = [record for record in parts.records if isinstance(record, model.FlowRun)]
        flow = self._flow_of(run_id)
        if flow is not None:
            self._families.check(root_id, run_id)
        elif not told:
            raise errors.BatchError(
                f"Batch {parts.seq} of flow run {run_id!r} came before the flow run itself."
            )
        else:
            self._check_new(root_id, told[-1])
            flow = told[-1].flow
        others = {name for name in _flows_of(parts.records) if name != flow}
        if others:
            raise errors.BatchError(
                f"Batch {parts.seq} of flow run {run_id!r}, which is one of {flow!r}, holds "
                f"records of {min(others)!r}."
            )

    def _check_new(self, root_id: str, run: model.FlowRun) -> None:
        if run.parent_id is not None:
            self._families.check(root_id, run.parent_id)
        elif run.id != root_id:
            raise errors.NotFoundError.of("flow run", run.id, ())

    def _flow_of(self, flow_run_id: str) -> str | None:
        """Return the flow of a run; None if the run is not on record."""
        known = self._flows.get(flow_run_id)
        if known is None:
            try:
                known = self._store.flow_run(flow_run_id).flow
            except errors.NotFoundError:
                return None
            if len(self._flows) >= _AT_ONCE * 100:
                self._flows.clear()
            self._flows[flow_run_id] = known
        return known

    # --- Writing ----------------------------------------------------------------------------------

    def _start(self) -> None:
        with self._lock:
            if not self._threads:
                count = 1 if self._store.is_embedded else _WRITERS
                self._threads = [
                    threading.Thread(target=self._work, name=f"raflow-ingest-{n}", daemon=True)
                    for n in range(count)
                ]
                for thread in self._threads:
                    thread.start()

    def _work(self) -> None:
        at_once = _AT_ONCE if self._store.is_embedded else 1
        going_on = True
        while going_on:
            items = [self._queue.get()]
            while len(items) < at_once and items[-1] is not None:
                try:
                    items.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            going_on = items[-1] is not None
            # Who has gone away meanwhile sends it again.
            self._write([i for i in items if i and i.done.set_running_or_notify_cancel()])

    def _write(self, items: Sequence[_Item]) -> None:
        try:
            outcomes = self._store.apply_many([item.parts for item in items])
        except Exception as error:
            _LOG.exception("A bug in raflow: batches of records cannot be written")
            outcomes = [errors.StoreError(f"{type(error).__name__}: {error}")] * len(items)
        for item, outcome in zip(items, outcomes, strict=True):
            if isinstance(outcome, errors.RaflowError):
                item.done.set_exception(outcome)
            else:
                item.done.set_result(outcome)
        if any(outcome is True for outcome in outcomes):
            self._signals.wake("feed")


def _flows_of(records: Iterable[model.Record]) -> Iterable[str]:
    kinds = (model.FlowRun, model.FlowVersion, model.TaskPace)
    return (record.flow for record in records if isinstance(record, kinds))
