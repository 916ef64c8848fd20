"""What others ask of a run: one question to the service that waits for news, again and again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from raflow import errors
from raflow.model import RunRequest, wire

_WAIT_SECONDS: Final = 20.0
_AGAIN_SECONDS: Final = 0.5
_LOG: Final = logging.getLogger("raflow.client")


class Mailbox:
    """Hears of requests to a root run and its subflows, on a thread of its own."""

    def __init__(self, root_id: str, wait: Callable[[int, float], wire.Mail]) -> None:
        """Begin to listen.

        Args:
            root_id: The run.
            wait: Asks for requests; takes the last one that is known, and how long to wait.
        """
        self._wait = wait
        self._mail = wire.Mail()
        self._answered: set[int] = set()
        self._closed = threading.Event()
        name = f"raflow-mailbox-{root_id[-8:]}"
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def is_closed(self) -> bool:
        """Whether nobody listens any more."""
        return self._closed.is_set()

    @property
    def fenced(self) -> bool:
        """Whether a later process has taken the run over."""
        return self._mail.fenced

    def open_of(self, flow_run_id: str) -> tuple[RunRequest, ...]:
        """Return what is asked of a run and waits for an answer."""
        return tuple(
            request
            for request in self._mail.requests
            if request.flow_run_id == flow_run_id and request.id not in self._answered
        )

    def answered(self, request_id: int) -> None:
        """Take note that a request was answered."""
        self._answered.add(request_id)

    def close(self) -> None:
        """Listen no more; does not wait for the answer that is under way."""
        self._closed.set()

    def _work(self) -> None:
        last = 0
        while not self._closed.is_set():
            try:
                mail = self._wait(last, _WAIT_SECONDS)
            except errors.StoreError:
                self._closed.wait(_AGAIN_SECONDS)
                continue
            except errors.RaflowError as error:
                _LOG.warning("Requests to the run are not heard of any more: %s", error)
                self._closed.set()
                return
            self._mail = mail
            last = max([last, *(request.id for request in mail.requests)])
            if mail.fenced:
                self._closed.set()
