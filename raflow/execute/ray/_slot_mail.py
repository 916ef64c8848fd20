"""How the slots of limits that calls hold are talked about on the line to the driver."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from raflow import errors
from raflow.execute._backend import SlotsAsked, SlotsLeft
from raflow.execute._slots import BatchSlots, ClaimMade, SlotAnswer
from raflow.execute.ray._mail import Line
from raflow.execute.ray._watch import interrupt_main_thread
from raflow.model import Awaited, Granted, TaskRunKey

_GRANTED: Final = "granted"
_AWAITED: Final = "awaited"
_TRIES: Final = 5
_PAUSE_SECONDS: Final = 0.1


def write_answer(answer: SlotAnswer) -> list[object]:
    """Write an answer of the driver as JSON."""
    if isinstance(answer, Granted):
        return [_GRANTED]
    if isinstance(answer, Awaited):
        return [_AWAITED, answer.reason]
    return [type(answer).__name__, answer.message, answer.details]


def read_answer(written: Sequence[Any]) -> SlotAnswer:
    """Read what `write_answer` wrote."""
    kind, *rest = written
    if kind == _GRANTED:
        return Granted()
    if kind == _AWAITED:
        return Awaited(*rest)
    message, details = rest
    cls = getattr(errors, kind, errors.RaflowError)
    error: errors.RaflowError = cls(message, **details)
    return error


def write_ask(session: int, batch: int, made: ClaimMade) -> dict[str, object]:
    """Write what a call wants as a message."""
    claim, run, label, amounts, priority, strict = made
    return {"slots": [session, batch, claim, *run, label, dict(amounts), priority, strict]}


def write_leave(session: int, batch: int, claim: int) -> dict[str, object]:
    """Write as a message that a call wants nothing any more."""
    return {"slots_left": [session, batch, claim]}


def read_ask(facts: Sequence[Any]) -> tuple[int, SlotsAsked]:
    """Read what `write_ask` wrote; returns the session, too."""
    session, batch, claim, node, item, *wanted = facts
    made = ClaimMade(claim, TaskRunKey(node, item), *wanted)
    return session, SlotsAsked(batch, made)


def read_leave(facts: Sequence[Any]) -> tuple[int, SlotsLeft]:
    """Read what `write_leave` wrote; returns the session, too."""
    session, batch, claim = facts
    return session, SlotsLeft(batch, claim)


class Outbox:
    """Sends on a thread of its own: the one that runs user code may be interrupted anywhere."""

    def __init__(self) -> None:
        """Begin with nothing; the thread is started with the first message."""
        self._work: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, send: Callable[[], object]) -> None:
        """Have something sent, in its turn."""
        self._work.put(send)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="raflow-outbox", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            self._work.get()()


class Loses(Protocol):
    """A batch whose calls can lose their slots."""

    def lose_slots(self, position: int, error: errors.SlotLostError) -> None:
        """End a call that has lost its slots."""


class BatchLine:
    """The line from a batch's calls to the driver; see `SlotLine`."""

    def __init__(
        self,
        session: int,
        batch: int,
        *,
        loop: Callable[[], Loses | None],
        line: Callable[[], Line | None],
        outbox: Outbox,
    ) -> None:
        """Prepare it.

        Args:
            session: The session of the batch.
            batch: The batch.
            loop: Returns what runs the calls; None once that is over. It is not kept: what calls
                were given, arrays in shared memory among them, is to go when the batch has ended.
            line: Opens the line, or returns it; None if the driver cannot be reached.
            outbox: On whose thread is sent.
        """
        self.slots = BatchSlots(self)
        self._session = session
        self._batch = batch
        self._loop = loop
        self._line = line
        self._outbox = outbox

    def ask(self, made: ClaimMade) -> None:
        """Ask for slots; see `SlotLine`."""
        message = write_ask(self._session, self._batch, made)

        def send() -> None:
            if not self._send(message):
                self.slots.unreachable(made.claim)

        self._outbox.put(send)

    def leave(self, claim: int) -> None:
        """Give slots back; see `SlotLine`."""
        message = write_leave(self._session, self._batch, claim)
        self._outbox.put(lambda: self._send(message))

    def end_call(self, position: int, error: errors.SlotLostError) -> None:
        """End a call that has lost its slots; see `SlotLine`."""
        loop = self._loop()
        if loop is not None:
            loop.lose_slots(position, error)
            interrupt_main_thread()

    def _send(self, message: dict[str, object]) -> bool:
        # A line that was open until now may have been cut: its reader then makes room for another.
        for _ in range(_TRIES):
            line = self._line()
            if line is None:
                return False
            if line.send(message):
                return True
            line.close()
            time.sleep(_PAUSE_SECONDS)
        return False
