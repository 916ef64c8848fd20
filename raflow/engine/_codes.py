"""States as single bytes, so that those of a million task runs are a `bytearray`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from raflow.model import TASK_RUN_TRANSITIONS, StateName, StateType, TaskRunEvent

NAMES: Final = (
    StateName.PENDING,
    *(name for name in StateName if name is not StateName.PENDING),
    StateName.PENDING,
    StateName.AWAITING_RETRY,
    StateName.PENDING,
    StateName.PENDING,
    StateName.AWAITING_RETRY,
)
"""The name of the state that a code stands for. New columns are zeros: PENDING."""
CODES: Final[Mapping[StateName, int]] = {name: NAMES.index(name) for name in StateName}

PENDING: Final = CODES[StateName.PENDING]
COMPLETED: Final = CODES[StateName.COMPLETED]
CACHED: Final = CODES[StateName.CACHED]
SUBMITTED: Final = CODES[StateName.SUBMITTED]
AWAITING_RETRY: Final = CODES[StateName.AWAITING_RETRY]
QUEUED: Final = len(StateName)
"""PENDING, with all inputs there, and on its way into a batch."""
REQUEUED: Final = QUEUED + 1
"""AWAITING_RETRY, with the delay over, and on its way into a batch."""
MAPPED: Final = QUEUED + 2
"""No single call: the items of a map have states of their own."""
HELD: Final = QUEUED + 3
"""PENDING, with all inputs decided, but not on its way into a batch: see `_gate`."""
REHELD: Final = QUEUED + 4
"""AWAITING_RETRY, with the delay over, and held like that."""
AWAITING_SLOT: Final = CODES[StateName.AWAITING_SLOT]

OPEN: Final = 0
"""How a task run ended: not yet."""
SUCCEEDED: Final = 1
FAILED: Final = 2
"""FAILED, CRASHED or CANCELLED."""
SKIPPED: Final = 3

_INVALID: Final = 255
_ENDED: Final = {StateType.COMPLETED: SUCCEEDED, StateType.SKIPPED: SKIPPED}


def _table(values: Mapping[int, int], default: int = 0) -> bytes:
    return bytes(values.get(code, default) for code in range(256))


def _end_of(name: StateName) -> int:
    return _ENDED.get(name.type, FAILED) if name.type.is_final else OPEN


ENDS: Final = _table({code: _end_of(name) for code, name in enumerate(NAMES)})
"""How a run with this code ended: a table for `bytes.translate`, or to look up."""
IS_PENDING: Final = _table({PENDING: 1})
IS_FINAL: Final = _table({code: end != OPEN for code, end in enumerate(ENDS)})
IS_OPEN: Final = _table({code: end == OPEN for code, end in enumerate(ENDS)})
IS_SUCCEEDED: Final = _table({code: end == SUCCEEDED for code, end in enumerate(ENDS)})
IS_FAILED: Final = _table({code: end == FAILED for code, end in enumerate(ENDS)})
IS_DECIDED: Final = _table({code: end in (FAILED, SKIPPED) for code, end in enumerate(ENDS)})
IS_HELD: Final = _table(dict.fromkeys((HELD, REHELD, AWAITING_SLOT), 1))
IS_QUEUED: Final = _table(dict.fromkeys((QUEUED, REQUEUED), 1))
_STAYS: Final = {code: code for code in range(256)}
HOLD: Final = _table(
    {**_STAYS, PENDING: HELD, QUEUED: HELD, AWAITING_RETRY: REHELD, REQUEUED: REHELD}
)
LET_GO: Final = _table(
    {
        **_STAYS,
        QUEUED: PENDING,
        HELD: PENDING,
        REQUEUED: AWAITING_RETRY,
        REHELD: AWAITING_RETRY,
    }
)
IS_WAITING: Final = _table(
    dict.fromkeys((PENDING, QUEUED, HELD, AWAITING_RETRY, REQUEUED, REHELD, AWAITING_SLOT), 1)
)
"""Not submitted, not final."""
IS_OUT: Final = _table(
    {CODES[name]: 1 for name in (StateName.SUBMITTED, StateName.RUNNING, StateName.RETRYING)}
)
"""In a batch."""


def _moves(event: TaskRunEvent) -> bytes:
    following = {
        code: CODES[TASK_RUN_TRANSITIONS[name, event]]
        for code, name in enumerate(NAMES)
        if (name, event) in TASK_RUN_TRANSITIONS and code != MAPPED
    }
    return _table(following, _INVALID)


MOVES: Final[Mapping[TaskRunEvent, bytes]] = {event: _moves(event) for event in TaskRunEvent}
"""The table of transitions, for a whole column at once."""


def moved(states: bytearray, event: TaskRunEvent) -> bytearray | None:
    """Return what states become by an event; None if the table lacks it for one of them."""
    following = states.translate(MOVES[event])
    return None if _INVALID in following else following


def marked(column: bytes | bytearray) -> Iterator[int]:
    """Yield the positions of the ones."""
    at = column.find(1)
    while at >= 0:
        yield at
        at = column.find(1, at + 1)


def stretches(column: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Yield `(start, stop)` of each unbroken row of ones in a column of zeros and ones."""
    start = column.find(1)
    while start >= 0:
        stop = column.find(0, start)
        if stop < 0:
            stop = len(column)
        yield start, stop
        start = column.find(1, stop)


def rows(positions: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield `(start, stop)` of each unbroken row of sorted positions."""
    if not positions:
        return
    start, stop = positions[0], positions[-1] + 1
    if stop - start == len(positions):
        yield start, stop
        return
    stop = start + 1
    for position in positions[1:]:
        if position != stop:
            yield start, stop
            start = position
        stop = position + 1
    yield start, stop


class Marks:
    """A byte for each row of a table, zero unless it was set; takes no room until one is."""

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        """Begin with zeros."""
        self._bytes = bytearray()

    def __bool__(self) -> bool:
        """Whether any was ever set."""
        return bool(self._bytes)

    def __getitem__(self, index: int) -> int:
        """Return one."""
        return self._bytes[index] if index < len(self._bytes) else 0

    def part(self, start: int, stop: int) -> bytes:
        """Return those from `start` to `stop`."""
        return bytes(self._bytes[start:stop]).ljust(stop - start, b"\0")

    def put(self, start: int, stop: int, value: int) -> None:
        """Set those from `start` to `stop`."""
        if not value and not self._bytes:
            return
        self._bytes.extend(bytes(max(0, stop - len(self._bytes))))
        self._bytes[start:stop] = bytes([value]) * (stop - start)

    def count(self, start: int, stop: int) -> None:
        """Add one to those from `start` to `stop`, as far as a byte can hold it."""
        self._bytes.extend(bytes(max(0, stop - len(self._bytes))))
        self._bytes[start:stop] = self._bytes[start:stop].translate(_PLUS_ONE)


_PLUS_ONE: Final = bytes(min(code + 1, 255) for code in range(256))
IS_ZERO: Final = bytes([1]) + bytes(255)


def either(one: bytes | bytearray, other: bytes | bytearray) -> bytes:
    """Return what is not zero where one of two columns has something."""
    together = int.from_bytes(one, "big") | int.from_bytes(other, "big")
    return together.to_bytes(len(one), "big")


def both(one: bytes | bytearray, other: bytes | bytearray) -> bytes:
    """Return a one where both columns of zeros and ones have one."""
    together = int.from_bytes(one, "big") & int.from_bytes(other, "big")
    return together.to_bytes(len(one), "big")
