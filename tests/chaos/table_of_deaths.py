"""What must come of the death of a process: one that runs tasks, or the one that drives the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.chaos.programs.shapes import Dial, Fault, Shape
from tests.chaos.rows import (
    AGAIN,
    BROKEN,
    COMPLETED,
    CRASHED,
    CUT,
    DIAMOND_FINE,
    DIES,
    DONE,
    EXITED,
    FAILED,
    FAULTED,
    FINE,
    FIRST,
    GONE,
    KILLED,
    MAP_CUT,
    MAP_FINE,
    MAPS_FINE,
    NOTHING,
    OTHERS,
    RAISED,
    RECOVERED,
    SECOND,
    STARVED,
    STARVES,
    SUB_FINE,
    TERMINATED,
    THEN,
    THIRD,
    TORN_DOWN,
    UPSTREAM,
    End,
    Row,
    eaches,
    items,
    row,
)
from tests.chaos.table_of_life import WHERE_VALUES_TRAVEL


def _dies(fault: Fault, cause: str) -> tuple[Row, ...]:
    """A death costs one of `crash_retries`, and says why."""
    return (
        row(Shape.CHAIN, fault, DIES, BROKEN, FAILED, NOTHING, failed=cause),
        row(Shape.CHAIN, fault, AGAIN, FINE, COMPLETED, SECOND, failed=cause, crash_retries=2),
    )


_OF_PROCESSES: Final = (
    *_dies(Fault.KILLED_BEFORE, KILLED),
    *_dies(Fault.KILLED_AFTER, KILLED),
    *_dies(Fault.KILLED_REPORTING, KILLED),
    *_dies(Fault.TERMINATED, TERMINATED),
    *_dies(Fault.EXITS, EXITED),
    *_dies(Fault.SEGFAULTS, FAULTED),
    row(Shape.CHAIN, Fault.KILLED_BEFORE, DIES, BROKEN, FAILED, NOTHING, failed=KILLED, retries=2),
    row(
        Shape.CHAIN,
        Fault.KILLED_BEFORE,
        End(CRASHED, 3),
        BROKEN,
        FAILED,
        NOTHING,
        failed=(KILLED,) * 3,
        times=3,
        crash_retries=2,
    ),
    # Once the report is there, the process is needed no more.
    row(Shape.CHAIN, Fault.KILLED_REPORTED, DONE, FINE, COMPLETED, FIRST),
    row(Shape.CHAIN, Fault.KILLED_REPORTED, DONE, FINE, COMPLETED, FIRST, dial=Dial.ONCE),
    row(
        Shape.DIAMOND,
        Fault.KILLED_BEFORE,
        AGAIN,
        DIAMOND_FINE,
        COMPLETED,
        f"[{SECOND}, {FIRST}]",
        failed=KILLED,
        crash_retries=2,
    ),
    row(Shape.MAP, Fault.KILLED_BEFORE, DIES, MAP_CUT, FAILED, NOTHING, failed=KILLED),
    row(
        Shape.MAP,
        Fault.KILLED_AFTER,
        AGAIN,
        MAP_FINE,
        COMPLETED,
        items(SECOND),
        failed=KILLED,
        crash_retries=2,
    ),
    row(
        Shape.MAP_AFTER_MAP,
        Fault.KILLED_BEFORE,
        AGAIN,
        MAPS_FINE,
        COMPLETED,
        items(FIRST),
        failed=KILLED,
        crash_retries=2,
    ),
    row(
        Shape.SUBFLOW,
        Fault.KILLED_BEFORE,
        DIES,
        {"inner-0": End(FAILED, 0), "after-0": CUT},
        FAILED,
        NOTHING,
        failed=KILLED,
    ),
    row(
        Shape.SUBFLOW,
        Fault.KILLED_BEFORE,
        AGAIN,
        SUB_FINE,
        COMPLETED,
        SECOND,
        failed=KILLED,
        crash_retries=2,
    ),
    row(Shape.TEARDOWN, Fault.KILLED_BEFORE, DIES, TORN_DOWN, FAILED, NOTHING, failed=KILLED),
    row(Shape.ALL_DONE, Fault.KILLED_BEFORE, DIES, THEN, COMPLETED, "None", failed=KILLED),
    row(
        Shape.ALLOW_FAILURE,
        Fault.KILLED_BEFORE,
        DIES,
        FINE,
        COMPLETED,
        "TaskCrashedError",
        failed=KILLED,
    ),
    row(
        Shape.ASYNC,
        Fault.KILLED_BEFORE,
        AGAIN,
        FINE,
        COMPLETED,
        SECOND,
        failed=KILLED,
        crash_retries=2,
    ),
    row(Shape.ASYNC, Fault.TERMINATED, DIES, BROKEN, FAILED, NOTHING, failed=TERMINATED, retries=2),
    row(
        Shape.CHAIN,
        Fault.KILLED_AFTER,
        AGAIN,
        FINE,
        COMPLETED,
        SECOND,
        failed=KILLED,
        crash_retries=2,
        dial=Dial.TASK,
    ),
    # What may have happened is never done again.
    row(
        Shape.CHAIN,
        Fault.KILLED_BEFORE,
        DIES,
        BROKEN,
        FAILED,
        NOTHING,
        failed=KILLED,
        dial=Dial.ONCE,
    ),
    row(
        Shape.CHAIN,
        Fault.KILLED_AFTER,
        DIES,
        BROKEN,
        FAILED,
        NOTHING,
        failed=KILLED,
        dial=Dial.ONCE,
    ),
    row(
        Shape.ALLOW_FAILURE,
        Fault.KILLED_REPORTING,
        DIES,
        FINE,
        COMPLETED,
        "TaskCrashedError",
        failed=KILLED,
        dial=Dial.ONCE,
    ),
)

OF_MEMORY: Final = (
    row(Shape.CHAIN, Fault.GREEDY, STARVES, BROKEN, FAILED, NOTHING, failed=STARVED, retries=2),
    row(Shape.CHAIN, Fault.GREEDY, AGAIN, FINE, COMPLETED, SECOND, failed=STARVED, crash_retries=2),
    row(
        Shape.CHAIN, Fault.GREEDY, STARVES, BROKEN, FAILED, NOTHING, failed=STARVED, dial=Dial.ONCE
    ),
)
"""Where Ray watches the memory."""

SHARING: Final = (
    row(Shape.MAP, Fault.KILLED_BEFORE, DIES, MAP_CUT, FAILED, NOTHING, failed=KILLED, shared=True),
    row(
        Shape.MAP,
        Fault.KILLED_AFTER,
        AGAIN,
        MAP_FINE,
        COMPLETED,
        items(SECOND),
        failed=KILLED,
        crash_retries=2,
        shared=True,
    ),
)
"""Where the victim may share its process with others."""


def _goes_on(
    shape: Shape,
    fault: Fault,
    victim: End,
    rest: Mapping[str, End],
    saw: tuple[str, ...] | str,
    *dials: Dial,
) -> tuple[Row, ...]:
    return tuple(
        row(shape, fault, victim, rest, RECOVERED, saw, dial=dial)
        for dial in dials or (Dial.GROUP, Dial.TASK)
    )


ONE_AFTER: Final = {"before-0": DONE, "after-0": AGAIN}

RESUMED: Final = (
    # What waited runs once; what ran and was not on record runs again.
    *_goes_on(
        Shape.CHAIN, Fault.DRIVER_PENDING, DONE, {"before-0": AGAIN, "after-0": DONE}, FIRST, *Dial
    ),
    *_goes_on(Shape.CHAIN, Fault.DRIVER_BEFORE, AGAIN, FINE, SECOND),
    *_goes_on(Shape.CHAIN, Fault.DRIVER_AFTER, AGAIN, FINE, SECOND),
    # What is on record never runs again, and those that need it get that value.
    *_goes_on(Shape.CHAIN, Fault.DRIVER_COMMITTED, DONE, ONE_AFTER, (FIRST, FIRST), *Dial),
    # Here is the difference between the modes: the consumer has seen a value that nobody kept. That
    # it has run is not on record either, so that nothing tells of its first attempt.
    *_goes_on(
        Shape.CHAIN,
        Fault.DRIVER_UNCOMMITTED,
        AGAIN,
        {"before-0": DONE, "after-0": End(COMPLETED, 2)},
        (FIRST, SECOND),
        Dial.GROUP,
    ),
    *_goes_on(Shape.CHAIN, Fault.DRIVER_UNCOMMITTED, AGAIN, FINE, SECOND, Dial.TASK),
    row(
        Shape.CHAIN,
        Fault.DRIVER_RETRIED,
        End(RECOVERED, 3),
        {"before-0": DONE, "after-0": End(COMPLETED, 2)},
        RECOVERED,
        (SECOND, THIRD),
        failed=RAISED,
        times=2,
        retries=2,
    ),
    row(
        Shape.CHAIN,
        Fault.DRIVER_RETRIED,
        End(RECOVERED, 3),
        FINE,
        RECOVERED,
        THIRD,
        failed=RAISED,
        times=2,
        retries=2,
        dial=Dial.TASK,
    ),
    # Nor does what may share a process with the victim begin earlier.
    row(
        Shape.CHAIN,
        Fault.DRIVER_UNCOMMITTED,
        AGAIN,
        FINE,
        RECOVERED,
        SECOND,
        dial=Dial.TASK,
        shared=True,
    ),
    # What may have happened is not done again, in no case.
    row(Shape.CHAIN, Fault.DRIVER_BEFORE, GONE, BROKEN, FAILED, NOTHING, dial=Dial.ONCE),
    row(Shape.CHAIN, Fault.DRIVER_AFTER, GONE, BROKEN, FAILED, NOTHING, dial=Dial.ONCE),
    row(
        Shape.CHAIN,
        Fault.DRIVER_UNCOMMITTED,
        GONE,
        {"before-0": DONE, "after-0": End(UPSTREAM, 1)},
        FAILED,
        FIRST,
        dial=Dial.ONCE,
    ),
    row(
        Shape.ALLOW_FAILURE,
        Fault.DRIVER_BEFORE,
        GONE,
        FINE,
        RECOVERED,
        "TaskCrashedError",
        dial=Dial.ONCE,
    ),
    # Maps go on item by item, and subflows too.
    *_goes_on(Shape.MAP, Fault.DRIVER_BEFORE, AGAIN, MAP_FINE, items(SECOND)),
    *_goes_on(
        Shape.MAP_AFTER_MAP,
        Fault.DRIVER_UNCOMMITTED,
        AGAIN,
        {**OTHERS, **eaches(End(COMPLETED, 2)), "after-0": End(COMPLETED, 2)},
        (items(FIRST), items(FIRST)),
        Dial.GROUP,
    ),
    *_goes_on(
        Shape.MAP_AFTER_MAP, Fault.DRIVER_UNCOMMITTED, AGAIN, MAPS_FINE, items(FIRST), Dial.TASK
    ),
    *_goes_on(
        Shape.SUBFLOW,
        Fault.DRIVER_BEFORE,
        AGAIN,
        {"inner-0": End(RECOVERED, 0), "after-0": DONE},
        SECOND,
    ),
    *_goes_on(
        Shape.SUBFLOW,
        Fault.DRIVER_COMMITTED,
        DONE,
        {"inner-0": End(COMPLETED, 0), "after-0": AGAIN},
        (FIRST, FIRST),
    ),
    *_goes_on(Shape.DIAMOND, Fault.DRIVER_AFTER, AGAIN, DIAMOND_FINE, f"[{SECOND}, {FIRST}]"),
    *_goes_on(Shape.TEARDOWN, Fault.DRIVER_BEFORE, AGAIN, TORN_DOWN, NOTHING),
    row(Shape.TEARDOWN, Fault.DRIVER_BEFORE, GONE, TORN_DOWN, FAILED, NOTHING, dial=Dial.ONCE),
)
"""Where the process that drives the run dies, and another one goes on."""

RESUMED_AT_NIGHT: Final = tuple(
    row
    for row in RESUMED
    if (row.case.shape, row.case.fault)
    not in {
        (Shape.CHAIN, Fault.DRIVER_BEFORE),
        (Shape.CHAIN, Fault.DRIVER_UNCOMMITTED),
        (Shape.MAP, Fault.DRIVER_BEFORE),
    }
)
"""On Ray, where each call that is held has a process of its own, and those take time."""

ON_RAY: Final = (*WHERE_VALUES_TRAVEL, *_OF_PROCESSES)
