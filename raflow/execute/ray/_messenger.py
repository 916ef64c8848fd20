"""The worker's end of the line: tells of long calls, and brings back cancel requests."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from raflow.execute._course import Running
from raflow.execute._loop import BatchLoop
from raflow.execute._offspring import FORCE_GRACE_SECONDS
from raflow.execute._processes import process
from raflow.execute._slots import BatchSlots
from raflow.execute.ray._mail import Line, Postbox, call
from raflow.execute.ray._slot_mail import Outbox, read_answer
from raflow.execute.ray._watch import interrupt_main_thread
from raflow.model import Place

_RETRY_SECONDS: Final = 60.0


class Handed(NamedTuple):
    """A batch that has come by mail."""

    batch: int
    head: bytes


class Active(NamedTuple):
    """The batch that runs now."""

    session: int
    batch: int
    loop: BatchLoop
    postbox: Postbox
    slots: BatchSlots


class Messenger:
    """Opens a line to the driver when there is something to tell, and keeps it."""

    def __init__(self, place: Place) -> None:
        self.active: Active | None = None
        """Set by the main thread."""
        self._cancelled: Active | None = None
        self._place = place
        own = process(place.pid)
        self._process_started = 0 if own is None else own.started
        self._lock = threading.Lock()
        self._lines: dict[Postbox, Line] = {}
        self._silent_until: dict[Postbox, float] = {}
        self._tenure: tuple[int, int] | None = None
        """Session, and first batch, of the Ray task that takes more batches."""
        self._next: queue.SimpleQueue[Handed | None] = queue.SimpleQueue()
        self._coming: list[int] | None = None
        """Session and batch of what has come by mail and does not run yet."""
        self._early: list[dict[str, object]] = []
        """What was said to that."""
        self._handing = threading.Lock()

    # --- a Ray task that runs one batch after the other -----------------------------------------

    def begin_tenure(self, postbox: Postbox, session: int, number: int, outbox: Outbox) -> None:
        """Say that a Ray task has begun, and take more batches for it from now on."""
        with self._handing:
            self._tenure, self._next = (session, number), queue.SimpleQueue()
        here: dict[str, object] = {"here": [session, number, None]}
        line = self._lines.get(postbox)
        if line is not None:
            line.send(here)
        else:
            # To open one takes some milliseconds.
            outbox.put(lambda: (line := self.line(postbox)) is not None and line.send(here))

    def tell(self, postbox: Postbox, batch: int, payload: bytes) -> bool:
        """Tell of a batch; False if the driver does not hear."""
        line, tenure = self._lines.get(postbox), self._tenure
        return (
            line is not None
            and tenure is not None
            and line.send({"told": [*tenure, batch]}, payload)
        )

    def following(self, seconds: float) -> Handed | None:
        """Wait for another batch; None if there is none, or is to be none."""
        try:
            return self._next.get(timeout=seconds)
        except queue.Empty:
            return None

    def end_tenure(self, postbox: Postbox, last: int) -> Handed | None:
        """Take no more batches after the last one; returns one that has come meanwhile."""
        with self._handing:
            tenure, self._tenure = self._tenure, None
            handed = None if self._next.empty() else self._next.get()
            if handed is not None:
                self._tenure = tenure
                return handed
        line = self._lines.get(postbox)
        if line is not None and tenure is not None:
            line.send({"leaves": [*tenure, last]})
        return None

    def activate(self, active: Active) -> None:
        """Take note which batch runs from now on."""
        with self._handing:
            self.active = active
            early, self._early, self._coming = self._early, [], None
        for message in early:
            self._heed(message)

    def _hand(self, session: int, number: int, batch: int, head: bytes) -> None:
        with self._handing:
            # Of a Ray task that is over, the driver finds that out.
            if self._tenure == (session, number):
                self._coming = [session, batch]
                self._next.put(Handed(batch, head))

    def _leave(self, session: int, number: int) -> None:
        with self._handing:
            if self._tenure == (session, number):
                self._next.put(None)

    def _is_early(self, message: dict[str, object]) -> bool:
        """Keep what is said to a batch that has come and does not run yet."""
        with self._handing:
            if self._coming is None or self._coming not in [
                value[:2] for value in message.values() if isinstance(value, list)
            ]:
                return False
            self._early.append(message)
            return True

    # --- what is told of a batch while it runs --------------------------------------------------

    def announce(self, active: Active, call: Running) -> None:
        """Tell that a call has been running for a while; nothing if its batch has ended."""
        line = self.line(active.postbox) if self.active is active else None
        if line is not None:
            place = self._place
            facts = [*call.run, call.attempt, call.started_at, place.pid, place.host]
            facts += [self._process_started, place.node_id]
            line.send({"started": [active.session, active.batch, *facts]})

    def beat(self, active: Active) -> None:
        """Tell that the process is there."""
        line = self.line(active.postbox) if self.active is active else None
        if line is not None:
            line.send({"beat": [active.session, active.batch]})

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

    def mark(self) -> str | None:
        """Return the mark of the call that this code is part of; see `_offspring`."""
        active = self.active
        return None if active is None else active.loop.mark()

    def slots(self) -> BatchSlots | None:
        """Return where the calls of the batch that runs now have slots of limits."""
        active = self.active
        return None if active is None else active.slots

    def files(self) -> list[int]:
        """Return the file descriptors of the open lines."""
        return [line.fileno() for line in self._lines.values()]

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
                match message:
                    case {"next": [int(session), int(number), int(batch)], "payload": bytes(head)}:
                        self._hand(session, number, batch, head)
                    case {"leave": [int(session), int(number)]}:
                        self._leave(session, number)
                    case _:
                        if not self._is_early(message):
                            self._heed(message)
        with self._lock:
            self._lines.pop(postbox, None)
        line.close()

    def _heed(self, message: dict[str, object]) -> None:
        match message:
            case {"cancel": target}:
                self._cancel(target)
            case {"kill": target}:
                self._kill(target)
            case {"cancel_calls": [int(session), int(batch), [*positions]]}:
                self._cancel_calls([session, batch], positions)
            case {"slots": [int(session), int(batch), int(claim), [*answer]]}:
                self._slots_told([session, batch], claim, answer)

    def _cancel(self, target: object) -> None:
        active = self._find(target)
        if active is not None:
            self._cancelled = active
            active.loop.cancel()
            interrupt_main_thread()

    def _cancel_calls(self, target: object, positions: list[Any]) -> None:
        active = self._find(target)
        if active is not None:
            active.loop.cancel_calls(positions)
            interrupt_main_thread()

    def _slots_told(self, target: object, claim: int, answer: list[Any]) -> None:
        active = self._find(target)
        if active is not None:
            active.slots.answered(claim, read_answer(answer))

    def _kill(self, target: object) -> None:
        active = self._find(target)
        if active is not None:
            with contextlib.suppress(Exception):  # whatever it is: the process has to end
                active.loop.end_offspring(FORCE_GRACE_SECONDS)
            if self.active is active:  # else it has ended meanwhile
                os.kill(os.getpid(), signal.SIGKILL)

    def _find(self, target: object) -> Active | None:
        active = self.active
        found = active is not None and [active.session, active.batch] == target
        return active if found else None
