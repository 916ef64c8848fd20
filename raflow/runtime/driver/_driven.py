"""The driver of a run, as those see it who carry out a part of its work."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from typing import Protocol

from raflow import engine, execute
from raflow.model import Chunk
from raflow.runtime.calls import CallEntry, Outcomes
from raflow.runtime.driver._messages import Message
from raflow.runtime.record import History


class Driven(Protocol):
    """The driver of a run, as far as it is needed here."""

    history: History
    outcomes: Outcomes
    entries: list[CallEntry | None]
    settled: Future[engine.RunSettled]
    session: execute.Session

    def clock(self) -> float:
        """Return the time."""

    def post(self, message: Message) -> None:
        """Hand over a message, from any thread."""

    def feed(self, event: engine.Event) -> None:
        """Tell the engine what has happened, and do what it says."""

    def entry(self, node: int) -> CallEntry:
        """Return a call of which not every run is final."""

    def runs_over(self, chunks: Iterable[Chunk]) -> None:
        """Let go of what was needed to run these calls."""
