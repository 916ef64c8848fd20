"""The driver's end of all lines to worker processes."""

from __future__ import annotations

import logging
import secrets
import selectors
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from raflow.execute._backend import CallsReturned, CallStarted, SlotsAsked, SlotsLeft
from raflow.execute._processes import Process
from raflow.execute._slots import SlotAnswer
from raflow.execute.ray._leases import BatchKey, Leases, Speaker
from raflow.execute.ray._mail import Line, Postbox, answer
from raflow.execute.ray._slot_mail import read_ask, read_leave, write_answer
from raflow.model import TaskRunKey

_BACKLOG: Final = 512
_KEPT_WORDS: Final = 64

_log = logging.getLogger(__name__)


class Word(NamedTuple):
    """What a process says of the Ray task that it runs."""

    session: int
    number: int
    """The batch with which the Ray task began."""
    batch: int | None = None
    """The last that has ended; None if there is no such news."""
    payload: bytes = b""
    """Of that batch the report and the values."""
    leaves: bool = False
    """It takes no other batch."""


class Mailroom:
    """Takes calls of worker processes on one thread, and hears what they say."""

    def __init__(
        self,
        host: str,
        *,
        started: Callable[[int, CallStarted], bool],
        returned: Callable[[int, CallsReturned], None],
        slots: Callable[[int, SlotsAsked | SlotsLeft], bool],
        leases: Leases,
        tenure: Callable[[Word, Line], None],
    ) -> None:
        """Open it.

        Args:
            host: The address to listen on; the worker processes must be able to reach it.
            started: Told of calls that have been running for a while, with their session; returns
                whether their batch still runs.
            returned: Told of calls that a batch hands back while it runs, with their session.
            slots: Told which slots of limits calls want, or leave, with their session; returns
                whether their batch still runs.
            leases: Told of all that speak.
            tenure: Told what processes say of their Ray task, and on which line.
        """
        self._socket = socket.create_server((host, 0), backlog=_BACKLOG)
        self._socket.setblocking(False)
        self.postbox = Postbox(host, self._socket.getsockname()[1], secrets.token_bytes(32))
        self._started = started
        self._returned = returned
        self._slots = slots
        self._leases = leases
        self._tenure = tenure
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

    def cancel_calls(self, session: int, batch: int, positions: Sequence[int]) -> bool:
        """Ask single calls of a running batch to stop; False if it has not said that it runs."""
        return self._send("cancel_calls", session, batch, list(positions))

    def tell_slots(self, session: int, batch: int, claim: int, answer: SlotAnswer) -> bool:
        """Answer a call that has asked for slots; False if its batch has not said that it runs."""
        return self._send("slots", session, batch, claim, write_answer(answer))

    def _send(self, what: str, session: int, batch: int, *more: object) -> bool:
        with self._lock:
            line = self._lines.get((session, batch))
        return line is not None and line.send({what: [session, batch, *more]})

    def expect(self, session: int, batch: int, line: Line) -> None:
        """Take note on which line a batch can be spoken to."""
        with self._lock:
            self._lines[session, batch] = line

    def forget(self, session: int, batch: int) -> str | None:
        """Forget an ended batch; returns the last words of its process, if it had a time limit."""
        self._leases.end((session, batch))
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
                    self._heed(key.data)
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

    def _heed(self, line: Line) -> None:
        try:
            self._hear(line)
        except Exception:
            # Whatever it is: if this thread ended, nobody would be heard any more. What this line
            # was to bring, Ray brings too.
            _log.exception("A message of a worker process could not be taken")
            self._hang_up(line)

    def _hear(self, line: Line) -> None:
        messages = line.receive()
        if messages is None:
            self._hang_up(line)
            return
        for message in messages:
            match message:
                case {"started": [*facts]}:
                    self._note_start(line, facts)
                case {"here": [*facts]} | {"told": [*facts]} | {"leaves": [*facts]}:
                    self._tenure(_word(message, facts), line)
                case {"beat": [int(session), int(batch)]}:
                    self._note_beat(line, (session, batch))
                case {"slots": [*facts]}:
                    self._note_ask(line, *read_ask(facts))
                case {"slots_left": [*facts]}:
                    self._slots(*read_leave(facts))
                case {"returned": [int(session), int(batch), [*ranges]]}:
                    self._returned(session, CallsReturned(batch, _positions(ranges)))

    def _note_start(self, line: Line, facts: list[object]) -> None:
        session, batch, node, map_index, attempt, at, pid, host, process_started, node_id = facts
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
        process = Process(pid, process_started)  # type: ignore[arg-type]
        speaker = Speaker(host=event.host, process=process, node_id=str(node_id))
        self._leases.begin((session, batch), speaker)
        if not self._started(session, event):
            self.forget(session, batch)

    def _note_ask(self, line: Line, session: int, event: SlotsAsked) -> None:
        with self._lock:
            self._lines[session, event.batch] = line
        if not self._slots(session, event):
            self.forget(session, event.batch)

    def _note_beat(self, line: Line, key: BatchKey) -> None:
        if self._leases.renew(key):
            with self._lock:
                self._lines[key] = line

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


def _word(message: dict[str, Any], facts: list[Any]) -> Word:
    session, number, batch = facts
    return Word(session, number, batch, message.get("payload", b""), "leaves" in message)


def _positions(ranges: list[Any]) -> list[int]:
    return [position for start, stop in ranges for position in range(start, stop)]
