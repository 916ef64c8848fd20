"""The line between a run's driver and its worker processes: how both ends open it, and messages.

After the handshake of `multiprocessing.connection`, which proves that both ends know the run's key,
each message is one line of JSON. Batches and reports follow theirs as pickled bytes, as Ray itself
would carry them. A process that hangs in C is ended by a timer of the C library, which then writes
where it hung as plain text: the last words.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
import threading
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from typing import Final, NamedTuple

import orjson

HANDSHAKE_SECONDS: Final = 5
MARK: Final = "raflow_batch_{session}_{batch}"
"""Name of a frame in the last words of a process: they tell nothing else about whose they are."""

_MARKED: Final = re.compile(r" in raflow_batch_(\d+)_(\d+)$", re.MULTILINE)
_MAX_BUFFERED: Final = 1 << 20
MAX_PAYLOAD: Final = 1 << 14
"""Bytes that a message may carry; what is larger is left to Ray."""


class Postbox(NamedTuple):
    """Where the driver listens."""

    host: str
    port: int
    key: bytes


class Line:
    """One end of an open line; sending is safe from any thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sending = threading.Lock()
        self._received = bytearray()
        self._head: dict[str, object] | None = None
        """A message whose payload is still on its way."""

    def fileno(self) -> int:
        """Return the file descriptor, for selectors and last words."""
        return self._sock.fileno()

    def send(self, message: dict[str, object], payload: bytes | None = None) -> bool:
        """Send a message; False if the other end is gone.

        Args:
            message: What JSON can hold.
            payload: Bytes that come with it; the other end finds them as `payload`.
        """
        if payload is not None:
            message = {**message, "size": len(payload)}
        data = orjson.dumps(message) + b"\n" + (payload or b"")
        try:
            with self._sending:
                self._sock.sendall(data)
        except BaseException as error:
            # What follows half a message would be taken for the other half.
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
            if not isinstance(error, OSError):
                raise
            return False
        return True

    def receive(self) -> list[dict[str, object]] | None:
        """Wait for data and return the messages that are complete; None at the end of the line."""
        try:
            data = self._sock.recv(65536)
        except OSError:
            return None
        if not data or len(self._received) > _MAX_BUFFERED:
            return None
        self._received += data
        messages = []
        while (message := self._complete()) is not None:
            messages.append(message)
        return messages

    def _complete(self) -> dict[str, object] | None:
        """Take the next message out of what was received, if all of it is there."""
        received = self._received
        if self._head is None:
            end = received.find(b"\n") if received.startswith(b"{") else -1
            if end < 0:
                return None
            self._head = orjson.loads(bytes(received[:end]))
            del received[: end + 1]
        message = self._head
        size = message.get("size", 0)
        assert isinstance(size, int)
        if len(received) < size:
            return None
        if size:
            message["payload"] = bytes(received[:size])
            del received[:size]
        self._head = None
        return message

    def last_words(self) -> tuple[tuple[int, int], str] | None:
        """Return whose last words were received, as `(session, batch)`, and what they are."""
        text = self._received.decode(errors="replace")
        marked = _MARKED.search(text)
        if marked is None:
            return None
        return (int(marked[1]), int(marked[2])), text

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


def answer(sock: socket.socket, key: bytes) -> Line:
    """Do the driver's part of the handshake.

    Raises:
        OSError: The other end is not ours, or is silent.
    """
    return _shake_hands(sock, key, first=True)


def call(postbox: Postbox) -> Line:
    """Open a line to the driver.

    Raises:
        OSError: The driver cannot be reached.
    """
    sock = socket.create_connection((postbox.host, postbox.port), timeout=HANDSHAKE_SECONDS)
    return _shake_hands(sock, postbox.key, first=False)


def _shake_hands(sock: socket.socket, key: bytes, *, first: bool) -> Line:
    sock.settimeout(None)
    # The kernel's own limit: the handshake reads and writes the bare file descriptor.
    limit = struct.pack("ll", HANDSHAKE_SECONDS, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection = Connection(os.dup(sock.fileno()))
    try:
        for step in (deliver_challenge, answer_challenge)[:: 1 if first else -1]:
            step(connection, key)
    except (OSError, EOFError, AssertionError, ValueError) as error:
        sock.close()
        raise OSError(f"no line to the other end: {error!r}") from error
    except BaseException as error:
        sock.close()
        raise OSError(f"the other end does not know the key: {error!r}") from error
    finally:
        connection.close()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 0))
    return Line(sock)
