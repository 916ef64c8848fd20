"""The worker's end of the line: tells of long calls, and brings back cancel requests."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Final, NamedTuple

from raflow.execute._attempt import Work
from raflow.execute._usage import Place
from raflow.execute.ray._mail import Line, Postbox, call
from raflow.execute.ray._watch import interrupt_main_thread

_RETRY_SECONDS: Final = 60.0


class Running(NamedTuple):
    """The call that runs now."""

    session: int
    batch: int
    work: Work
    at: float


class Messenger:
    """Opens a line to the driver when there is something to tell, and keeps it."""

    def __init__(self, place: Place) -> None:
        self.running: Running | None = None
        """Set by the main thread."""
        self._cancelled: Running | None = None
        self._place = place
        self._lock = threading.Lock()
        self._lines: dict[Postbox, Line] = {}
        self._silent_until: dict[Postbox, float] = {}

    def announce(self, postbox: Postbox, running: Running) -> None:
        """Tell that a call has been running for a while; nothing if it has ended."""
        line = self.line(postbox) if self.running is running else None
        if line is None:
            return
        run, attempt = running.work.run, running.work.attempt
        place = self._place
        facts = [running.session, running.batch, *run, attempt, running.at, place.pid, place.host]
        line.send({"started": facts})

    def line(self, postbox: Postbox) -> Line | None:
        """Return the line to a driver; None if it cannot be reached, as behind a firewall."""
        with self._lock:
            line = self._lines.get(postbox)
            if line is None and self._silent_until.get(postbox, 0.0) < time.monotonic():
                line = self._open(postbox)
            return line

    def is_cancelled(self, running: Running) -> bool:
        """Tell whether this very call was asked to stop."""
        return self._cancelled is running

    def _open(self, postbox: Postbox) -> Line | None:
        try:
            line = call(postbox)
        except OSError:
            self._silent_until[postbox] = time.monotonic() + _RETRY_SECONDS
            return None
        self._lines[postbox] = line
        reader = threading.Thread(
            target=self._read, args=(postbox, line), name="raflow-mail", daemon=True
        )
        reader.start()
        return line

    def _read(self, postbox: Postbox, line: Line) -> None:
        while (messages := line.receive()) is not None:
            for message in messages:
                if "cancel" in message:
                    self._cancel(message["cancel"])
                elif "kill" in message:
                    self._kill(message["kill"])
        with self._lock:
            self._lines.pop(postbox, None)
        line.close()

    def _cancel(self, target: object) -> None:
        running = self.running
        if running is not None and [running.session, running.batch] == target:
            self._cancelled = running
            interrupt_main_thread()

    def _kill(self, target: object) -> None:
        running = self.running
        if running is not None and [running.session, running.batch] == target:
            os.kill(os.getpid(), signal.SIGKILL)
