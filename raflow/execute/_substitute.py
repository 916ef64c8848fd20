"""Reports of batches whose process cannot make one: it was ended, or never began."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from raflow.execute._backend import BatchSpec
from raflow.model import (
    UNKNOWN_TRUTH,
    BatchReport,
    CallReport,
    Cause,
    Outcome,
    Place,
    TaskRunKey,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is said of a call in place of its process."""

    outcome: Outcome
    message: str
    began_at: float | None = None
    """When it began, if it is known: seconds since the Unix epoch."""
    lost_inputs: tuple[int, ...] = ()
    """See `CallReport.lost_inputs`."""
    cause: Cause | None = None


def substitute(
    spec: BatchSpec, verdicts: Mapping[int, Verdict], place: Place | None = None
) -> BatchReport:
    """Report about some calls of a batch, by position; all others are handed back.

    Args:
        spec: The batch.
        verdicts: By position.
        place: Where it ran, if that is known.
    """
    now = time.time()
    place = place or Place()
    started, ended = (array("d", bytes(8 * spec.size)) for _ in range(2))
    told: dict[int, CallReport] = {}
    for position, (run, attempt) in enumerate(runs_of(spec)):
        verdict = verdicts.get(position)
        if verdict is None:
            continue
        started[position] = verdict.began_at or now
        ended[position] = max(now, started[position])
        told[position] = CallReport(
            run=run,
            attempt=attempt,
            outcome=verdict.outcome,
            started_at=started[position],
            ended_at=ended[position],
            pid=place.pid,
            host=place.host,
            node_id=place.node_id,
            message=verdict.message,
            lost_inputs=verdict.lost_inputs,
            cause=verdict.cause,
        )
    return BatchReport(
        batch=spec.id,
        place=place,
        started_at=started,
        ended_at=ended,
        cpu_seconds=array("d", bytes(8 * spec.size)),
        unstarted=[position for position in range(spec.size) if position not in told],
        told=told,
        truths=bytes([UNKNOWN_TRUTH]) * spec.size,
    )


def runs_of(spec: BatchSpec) -> Iterator[tuple[TaskRunKey, int]]:
    """Yield which task run each call of a batch is, and which attempt, by position."""
    for call in spec.calls:
        for run in call.chunk.runs():
            yield run, call.chunk.attempt
