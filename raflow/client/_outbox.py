"""Sends batches to the service in their order: at once, or from the spool once it is back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from raflow import errors
from raflow._util import short_id
from raflow.client._spool import RunSpool, Spool

_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 2.0
_LOG: Final = logging.getLogger("raflow.client")


class _Line:
    """The batches of one root run: none overtakes another."""

    def __init__(self, spool: RunSpool) -> None:
        self.changed = threading.Condition()
        self.spool = spool
        self.refused: errors.RaflowError | None = None
        """Why the service will take no more of it."""


class Outbox:
    """Sends batches; those that the service cannot take now wait on disk."""

    def __init__(
        self,
        spool: Spool,
        url: str,
        post: Callable[[RunSpool, str, bytes], bool],
        *,
        most_bytes: int,
    ) -> None:
        """Prepare it; the thread that sends what waits starts when something does.

        Args:
            spool: Where batches wait.
            url: The service.
            post: Sends a batch of a run; takes what waits of the root run, for its token.
            most_bytes: So much of a root run waits at most; then the run does.
        """
        self._spool = spool
        self._url = url
        self._post = post
        self._most_bytes = most_bytes
        self._lines: dict[str, _Line] = {}
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def adopt(self, only: str = "") -> int:
        """Take up what processes that are gone have left; return of how many runs that is.

        Args:
            only: The root run to look for. Default: all.
        """
        found = list(self._spool.left_behind(self._url, only))
        for spool in found:
            with self._lock:
                known = self._lines.setdefault(spool.root_id, _Line(spool))
            if known.spool is not spool:
                spool.let_go()
        if found:
            self._start()
        return len(found)

    def spool_of(self, root_id: str) -> RunSpool:
        """Return what waits of a root run."""
        return self._line(root_id).spool

    def send(self, root_id: str, flow_run_id: str, content: bytes) -> bool:
        """Send a batch, or have it wait on disk; one of the two has happened on return.

        Returns:
            False if it is on record since before.

        Raises:
            StoreError: Neither was possible.
            RaflowError: The service will not take it.
        """
        line = self._line(root_id)
        with line.changed:
            if not len(line.spool) and line.refused is None:
                try:
                    return self._post(line.spool, flow_run_id, content)
                except errors.StoreError as error:
                    _LOG.warning("The record waits in %s: %s", line.spool.folder, error)
            self._wait_for_room(line, len(content))
            if line.refused is not None:
                raise line.refused
            line.spool.put(flow_run_id, content)
        self._start()
        return True

    def settle(self, root_id: str, seconds: float) -> None:
        """Return once nothing of a root run waits any more.

        Raises:
            StoreError: The service was not there in time.
        """
        line = self._line(root_id)
        deadline = time.monotonic() + seconds
        with line.changed:
            while len(line.spool) and line.refused is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise errors.StoreError(
                        f"{len(line.spool)} batches of flow run {short_id(root_id)!r} wait for "
                        f"the service at {self._url}, which must have them first."
                    )
                line.changed.wait(left)

    def settle_all(self, seconds: float) -> None:
        """Return once nothing waits; see `settle`."""
        deadline = time.monotonic() + seconds
        for root_id in list(self._lines):
            self.settle(root_id, deadline - time.monotonic())

    def close(self, seconds: float) -> None:
        """Wait so long for what is still to be sent; what is left then waits for others."""
        try:
            self.settle_all(seconds)
        except errors.StoreError as error:
            _LOG.warning("%s `raflow spool send` sends them, or the next run does.", error)
        self._closed = True
        self._woken.set()
        if self._thread is not None:
            self._thread.join()
        for line in self._lines.values():
            line.spool.let_go()

    # --- The thread that sends --------------------------------------------------------------------

    def _line(self, root_id: str) -> _Line:
        with self._lock:
            if root_id not in self._lines:
                self._lines[root_id] = _Line(self._spool.of(root_id, self._url))
            return self._lines[root_id]

    def _wait_for_room(self, line: _Line, size: int) -> None:
        if not len(line.spool) or line.spool.size + size <= self._most_bytes:
            return
        _LOG.warning(
            "%s bytes wait in %s for the service at %s: the run waits, too. "
            "RAFLOW_SPOOL_BYTES allows more.",
            f"{line.spool.size:,}",
            line.spool.folder,
            self._url,
        )
        while len(line.spool) and line.spool.size + size > self._most_bytes:
            if line.refused is not None:
                return
            line.changed.wait()

    def _start(self) -> None:
        self._woken.set()
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._work, name="raflow-spool", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self._closed:
            waiting = [line for line in list(self._lines.values()) if _has_more(line)]
            if not waiting:
                self._woken.wait()
                self._woken.clear()
                continue
            sent = [self._send_first(line) for line in waiting]
            if any(sent):
                pause = _FIRST_PAUSE_SECONDS
                continue
            # Not to be woken by batches that come to wait meanwhile, but by the end.
            deadline = time.monotonic() + pause
            while not self._closed and (left := deadline - time.monotonic()) > 0:
                time.sleep(min(left, _FIRST_PAUSE_SECONDS))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _send_first(self, line: _Line) -> bool:
        """Send the oldest batch; False if the service cannot take it now."""
        try:
            with line.changed:
                batch = line.spool.first()
            if batch is not None:
                self._post(line.spool, batch.flow_run_id, batch.content)
        except errors.StoreError:
            return False
        except errors.RaflowError as error:
            self._refuse(line, error)
            return True
        with line.changed:
            line.spool.remove_first()
            line.changed.notify_all()
        return True

    def _refuse(self, line: _Line, error: errors.RaflowError) -> None:
        with line.changed:
            line.refused = error
            if isinstance(error, errors.AccessError):
                # With another token they may be taken.
                _LOG.error("What waits in %s is not sent: %s", line.spool.folder, error)
            else:
                aside = line.spool.refuse()
                _LOG.error("The service takes no more of a run; it lies in %s: %s", aside, error)
            line.changed.notify_all()


def _has_more(line: _Line) -> bool:
    return len(line.spool) > 0 and line.refused is None
