"""What really happened: a file to which tasks and clients append a line at each step they take.

A line is written by one `write` to a file opened for appending, so that it is whole or not there,
whoever else writes and whoever dies. No part of raflow has a hand in it.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from raflow import get_run_context


class Event(StrEnum):
    """A step of a task."""

    BEGUN = "begun"
    BEAT = "beat"
    """It is still alive."""
    DONE = "done"
    """Its effect is there; it is about to return."""
    RAISED = "raised"


class Key(NamedTuple):
    """Which task run, among all runs."""

    run: str
    node: int
    map_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of the journal of effects."""

    run: str
    task: str
    node: int
    map_index: int
    attempt: int
    event: Event
    time: float
    pid: int
    told: str = ""
    """What else there is to say, such as what the task was given."""
    epoch: int = 1
    """Which process of the flow run had it executed; see `read_journal`."""

    @property
    def key(self) -> Key:
        return Key(self.run, self.node, self.map_index)


class Promise(StrEnum):
    """Something that a client was told, and may rely on."""

    ACCEPTED = "accepted"
    """The run will not be lost."""
    CANCELLING = "cancelling"
    """Nothing new starts."""
    ENDED = "ended"
    """`state` is how it ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """A line of a client's ledger."""

    run: str
    promise: Promise
    time: float
    state: str = ""


def note(journal: str, event: Event, told: str = "") -> None:
    """Write down a step of the task that this code is part of."""
    context = get_run_context()
    entry = Entry(
        run=context.flow_run_id,
        task=context.task,
        node=context.run.node,
        map_index=context.run.map_index,
        attempt=context.attempt,
        event=event,
        time=time.time(),
        pid=os.getpid(),
        told=told,
    )
    _append(journal, entry)


@contextlib.contextmanager
def journaled(journal: str, told: str = "") -> Iterator[str]:
    """Write down that a task begins and how it ends; gives the value that it should return."""
    note(journal, Event.BEGUN, told)
    try:
        yield value_of(get_run_context().attempt)
    except BaseException:
        note(journal, Event.RAISED)
        raise
    note(journal, Event.DONE)


def value_of(attempt: int) -> str:
    """What an attempt returns, so that its result tells whose it is."""
    return f"by attempt {attempt}"


def acknowledge(ledger: str, ack: Ack) -> None:
    """Write down what a client was told."""
    _append(ledger, ack)


def read_journal(journal: Path, deaths: Sequence[float] = ()) -> list[Entry]:
    """Return the lines of a journal, oldest first.

    Args:
        journal: The file.
        deaths: When processes that drove the run had died. A process that was there before works
            for the dead one, whatever it still writes: none is ever passed on to another driver.
    """
    entries = [Entry(**line | {"event": Event(line["event"])}) for line in _lines(journal)]
    first: dict[int, float] = {}
    for entry in entries:
        first.setdefault(entry.pid, entry.time)
    epochs = {pid: 1 + bisect.bisect_left(deaths, at) for pid, at in first.items()}
    return [dataclasses.replace(entry, epoch=epochs[entry.pid]) for entry in entries]


def read_ledger(ledger: Path) -> list[Ack]:
    """Return the lines of a ledger, oldest first."""
    return [Ack(**line | {"promise": Promise(line["promise"])}) for line in _lines(ledger)]


def _append(path: str, line: Entry | Ack) -> None:
    written = f"{json.dumps(dataclasses.asdict(line))}\n".encode()
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        size = os.write(file, written)
        assert size == len(written)
    finally:
        os.close(file)


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    # Of a line that is just being written a reader may see a part.
    whole, _, _ = path.read_text().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]
