"""The worker's end of the line: tells of long calls, and brings back cancel requests."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from raflow.execute._course import Running
from raflow.execute._loop import BatchLoop
from raflow.execute.ray._mail import Line, Postbox, call
from raflow.execute.ray._watch import interrupt_main_thread
from raflow.model import Place

_RETRY_SECONDS: Final = 60.0


class Active(NamedTuple):
    """The batch that runs now."""

    session: int
    batch: int
    loop: BatchLoop
    postbox: Postbox


class Messenger:
    """Opens a line to the driver when there is something to tell, and keeps it."""

    def __init__(self, place: Place) -> None:
        self.active: Active | None = None
        """Set by the main thread."""
        self._cancelled: Active | None = None
        self._place = place
        self._lock = threading.Lock()
        self._lines: dict[Postbox, Line] = {}
        self._silent_until: dict[Postbox, float] = {}

    def announce(self, active: Active, call: Running) -> None:
        """Tell that a call has been running for a while; nothing if its batch has ended."""
        line = self.line(active.postbox) if self.active is active else None
        if line is not None:
            place = self._place
            facts = [*call.run, call.attempt, call.started_at, place.pid, place.host]
            line.send({"started": [active.session, active.batch, *facts]})

    def give_back(self, active: Active, positions: Sequence[int]) -> None:
        """Tell which calls a batch that goes on running has handed back."""
        line = self.line(active.postbox)
        if line is not None:
            ranges = [[positions[0], positions[-1] + 1]]
            line.send({"returned": [active.session, active.batch, ranges]})

    def line(self, postbox: Postbox) -> Line | None:
        """Return the line to a driver; None if it cannot be reached, as behind a firewall."""
        with self._lock:
            line = self._lines.get(postbox)
            if line is None and self._silent_until.get(postbox, 0.0) < time.monotonic():
                line = self._open(postbox)
            return line

    def is_cancelled(self, active: Active) -> bool:
        """Tell whether this very batch was asked to stop."""
        return self._cancelled is active

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
        active = self._find(target)
        if active is not None:
            self._cancelled = active
            active.loop.cancel()
            interrupt_main_thread()

    def _kill(self, target: object) -> None:
        if self._find(target) is not None:
            os.kill(os.getpid(), signal.SIGKILL)

    def _find(self, target: object) -> Active | None:
        active = self.active
        found = active is not None and [active.session, active.batch] == target
        return active if found else None
