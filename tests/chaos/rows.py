"""What must come of each fault in each shape of flow: worked out from the promises, not observed.

A row says what is done to one call, the victim, and how everything ends. Executions are counted by
the journal of effects. An attempt that did not complete is told as its outcome and its cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from raflow.model import StateName
from tests.chaos.programs.shapes import ITEMS, TARGET, Case, Dial, Fault, Shape

CANCELLED = StateName.CANCELLED
COMPLETED = StateName.COMPLETED
CRASHED = StateName.CRASHED
FAILED = StateName.FAILED
LOST = StateName.LOST
OUT_OF_MEMORY = StateName.OUT_OF_MEMORY
RECOVERED = StateName.RECOVERED
SKIPPED = StateName.SKIPPED
TIMED_OUT = StateName.TIMED_OUT
UPSTREAM = StateName.UPSTREAM_FAILED


class End(NamedTuple):
    """How a call ends, and how often it has run."""

    state: StateName
    executions: int


DONE: Final = End(COMPLETED, 1)
FAILS: Final = End(FAILED, 1)
LATE: Final = End(TIMED_OUT, 1)
DIES: Final = End(CRASHED, 1)
ENDS: Final = End(CANCELLED, 1)
GONE: Final = End(LOST, 1)
STARVES: Final = End(OUT_OF_MEMORY, 1)
SKIPS: Final = End(SKIPPED, 1)
AGAIN: Final = End(RECOVERED, 2)
CUT: Final = End(UPSTREAM, 0)
STOPPED: Final = End(CANCELLED, 0)
PASSED: Final = End(SKIPPED, 0)

FIRST: Final = "by attempt 1"
SECOND: Final = "by attempt 2"
THIRD: Final = "by attempt 3"
NOTHING: Final = ()

ALONE: Final[Mapping[str, End]] = {}
FINE: Final = {"before-0": DONE, "after-0": DONE}
BROKEN: Final = {"before-0": DONE, "after-0": CUT}
OTHERS: Final = {f"victim-0[{n}]": DONE for n in range(ITEMS) if n != TARGET}
ASYNC_OTHERS: Final = {f"sleeper-0[{n}]": DONE for n in range(ITEMS) if n != TARGET}


MAP_FINE: Final = {**OTHERS, "after-0": DONE}
MAP_CUT: Final = {**OTHERS, "after-0": CUT}
DIAMOND_FINE: Final = {**FINE, "beside-0": DONE}
DIAMOND_CUT: Final = {**BROKEN, "beside-0": DONE}
TORN_DOWN: Final = {"before-0": DONE, "beside-0": DONE}
HALTED: Final = {"before-0": DONE, "after-0": STOPPED}
THEN: Final = {"after-0": DONE}
NO_MORE: Final = {"after-0": CUT}
PASSED_BY: Final = {"after-0": PASSED}
SUB_FINE: Final = {"inner-0": End(COMPLETED, 0), "after-0": DONE}


def items(hit: str) -> str:
    """What a call is given that takes all items of a map."""
    return f"[{', '.join(hit if n == TARGET else FIRST for n in range(ITEMS))}]"


def eaches(hit: End) -> dict[str, End]:
    """The items of a map over the map of the victim."""
    return {f"each-0[{n}]": hit if n == TARGET else DONE for n in range(ITEMS)}


MAPS_FINE: Final = {**OTHERS, **eaches(DONE), "after-0": DONE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A fault, and what comes of it."""

    case: Case
    victim: End
    failed: tuple[str, ...] = ()
    """The attempts of the victim that did not complete."""
    rest: Mapping[str, End] = field(hash=False)
    """All other calls, by label."""
    run: StateName
    saw: tuple[str, ...]
    """What the last call was given, each time that it ran."""

    def __str__(self) -> str:
        case = self.case
        once = f" x{case.times}" if case.times > 1 else ""
        budget = f", budget {case.retries}+{case.crash_retries}"
        shared = ", shared" if case.shared else ""
        told = f"{case.shape}: {case.fault}{once}{budget}, {case.dial}{shared}"
        return told.replace(" ", "-")


def row(
    shape: Shape,
    fault: Fault,
    victim: End,
    rest: Mapping[str, End],
    run: StateName,
    saw: tuple[str, ...] | str,
    *,
    failed: tuple[str, ...] | str = (),
    dial: Dial = Dial.GROUP,
    times: int = 1,
    retries: int = 0,
    crash_retries: int = 0,
    shared: bool = False,
) -> Row:
    """Write a row down."""
    case = Case(
        shape=shape,
        fault=fault,
        dial=dial,
        times=times,
        retries=retries,
        crash_retries=crash_retries,
        shared=shared,
    )
    return Row(
        case=case,
        victim=victim,
        failed=(failed,) if isinstance(failed, str) else failed,
        rest=rest,
        run=run,
        saw=(saw,) if isinstance(saw, str) else saw,
    )


RAISED: Final = "failed: ValueError"
TOO_LATE: Final = "timed_out: TaskTimedOutError"
KILLED: Final = "crashed: killed, signal 9"
TERMINATED: Final = "crashed: signal, signal 15"
EXITED: Final = "crashed: exit, code 0"
FAULTED: Final = "crashed: signal, signal 11"
NO_VALUE: Final = "failed: UnserializableResultError"
NOT_KEPT: Final = "failed: SerializationError"
NO_ERROR: Final = "failed: _Stuck"
STARVED: Final = "out_of_memory: out of memory, signal 9"
ENDED: Final = "cancelled"
