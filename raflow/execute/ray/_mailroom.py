"""The driver's end of all lines to worker processes."""

from __future__ import annotations

import logging
import secrets
import selectors
import socket
import threading
from collections.abc import Callable
from typing import Any, Final

from raflow.execute._backend import CallsReturned, CallStarted
from raflow.execute.ray._mail import Line, Postbox, answer
from raflow.model import TaskRunKey

_BACKLOG: Final = 512
_KEPT_WORDS: Final = 64

_log = logging.getLogger(__name__)


class Mailroom:
    """Takes calls of worker processes on one thread, and hears what they say."""

    def __init__(
        self,
        host: str,
        *,
        started: Callable[[int, CallStarted], bool],
        returned: Callable[[int, CallsReturned], None],
    ) -> None:
        """Open it.

        Args:
            host: The address to listen on; the worker processes must be able to reach it.
            started: Told of calls that have been running for a while, with their session; returns
                whether their batch still runs.
            returned: Told of calls that a batch hands back while it runs, with their session.
        """
        self._socket = socket.create_server((host, 0), backlog=_BACKLOG)
        self._socket.setblocking(False)
        self.postbox = Postbox(host, self._socket.getsockname()[1], secrets.token_bytes(32))
        self._started = started
        self._returned = returned
        self._lock = threading.Lock()
        self._lines: dict[tuple[int, int], Line] = {}
        self._last_words: dict[tuple[int, int], str] = {}
        self._closed = False
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="raflow-mailroom", daemon=True)
        self._thread.start()

    def cancel(self, session: int, batch: int) -> bool:
        """Ask a running batch to stop; False if it has not said that it runs."""
        return self._send("cancel", session, batch)

    def kill(self, session: int, batch: int) -> bool:
        """Have the process of a running batch end itself; False if it has not said that it runs."""
        return self._send("kill", session, batch)

    def _send(self, what: str, session: int, batch: int) -> bool:
        with self._lock:
            line = self._lines.get((session, batch))
        return line is not None and line.send({what: [session, batch]})

    def forget(self, session: int, batch: int) -> str | None:
        """Forget an ended batch; returns the last words of its process, if it had a time limit."""
        with self._lock:
            self._lines.pop((session, batch), None)
            return self._last_words.pop((session, batch), None)

    def close(self) -> None:
        """Hang up."""
        self._closed = True
        self._wake.send(b".")
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._closed:
            for key, _ in self._selector.select():
                if key.fileobj is self._socket:
                    self._accept()
                elif isinstance(key.data, Line):
                    self._hear(key.data)
        for key in list(self._selector.get_map().values()):
            if isinstance(key.data, Line):
                key.data.close()
        self._selector.close()
        for sock in (self._socket, self._wake, self._woken):
            sock.close()

    def _accept(self) -> None:
        try:
            sock, _ = self._socket.accept()
        except OSError:
            return
        # On a thread of its own: whoever calls may be silent for as long as the handshake allows.
        threading.Thread(target=self._admit, args=(sock,), name="raflow-mail", daemon=True).start()

    def _admit(self, sock: socket.socket) -> None:
        try:
            line = answer(sock, self.postbox.key)
        except OSError as error:
            _log.debug("Refused a connection to the driver of a run: %s", error)
            return
        with self._lock:
            if not self._closed:
                self._selector.register(line, selectors.EVENT_READ, line)

    def _hear(self, line: Line) -> None:
        messages = line.receive()
        if messages is None:
            self._hang_up(line)
            return
        for message in messages:
            match message:
                case {"started": [*facts]}:
                    self._note_start(line, facts)
                case {"returned": [int(session), int(batch), [*ranges]]}:
                    self._returned(session, CallsReturned(batch, _positions(ranges)))

    def _note_start(self, line: Line, facts: list[object]) -> None:
        session, batch, node, map_index, attempt, at, pid, host = facts
        assert isinstance(session, int)
        assert isinstance(batch, int)
        event = CallStarted(
            batch,
            TaskRunKey(node, map_index),  # type: ignore[arg-type]  # our own process wrote it
            attempt,  # type: ignore[arg-type]
            at,  # type: ignore[arg-type]
            pid,  # type: ignore[arg-type]
            host,  # type: ignore[arg-type]
        )
        with self._lock:
            self._lines[session, batch] = line
        if not self._started(session, event):
            self.forget(session, batch)

    def _hang_up(self, line: Line) -> None:
        self._selector.unregister(line)
        words = line.last_words()
        with self._lock:
            self._lines = {key: kept for key, kept in self._lines.items() if kept is not line}
            if words is not None:
                self._last_words[words[0]] = words[1]
                while len(self._last_words) > _KEPT_WORDS:
                    self._last_words.pop(next(iter(self._last_words)))
        line.close()


def _positions(ranges: list[Any]) -> list[int]:
    return [position for start, stop in ranges for position in range(start, stop)]
