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
)
"""The name of the state that a code stands for. New columns are zeros: PENDING."""
CODES: Final[Mapping[StateName, int]] = {name: NAMES.index(name) for name in StateName}

PENDING: Final = CODES[StateName.PENDING]
COMPLETED: Final = CODES[StateName.COMPLETED]
SUBMITTED: Final = CODES[StateName.SUBMITTED]
AWAITING_RETRY: Final = CODES[StateName.AWAITING_RETRY]
QUEUED: Final = len(StateName)
"""PENDING, with all inputs there, and on its way into a batch."""
REQUEUED: Final = QUEUED + 1
"""AWAITING_RETRY, with the delay over, and on its way into a batch."""
MAPPED: Final = QUEUED + 2
"""No single call: the items of a map have states of their own."""

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
IS_SUCCEEDED: Final = _table({code: end == SUCCEEDED for code, end in enumerate(ENDS)})
IS_FAILED: Final = _table({code: end == FAILED for code, end in enumerate(ENDS)})
IS_DECIDED: Final = _table({code: end in (FAILED, SKIPPED) for code, end in enumerate(ENDS)})
IS_WAITING: Final = _table(dict.fromkeys((PENDING, QUEUED, AWAITING_RETRY, REQUEUED), 1))
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


def both(one: bytes | bytearray, other: bytes | bytearray) -> bytes:
    """Return a one where both columns of zeros and ones have one."""
    together = int.from_bytes(one, "big") & int.from_bytes(other, "big")
    return together.to_bytes(len(one), "big")
