"""Blocks of task runs that completed at their first attempt: made from what a batch reported."""

from __future__ import annotations

import dataclasses
import functools
from array import array
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, TypeVar

import orjson

from raflow.model._plain import Plain, describe_plain
from raflow.model._records import TaskRunBlock
from raflow.model._report import (
    BatchReport,
    CallReport,
    Chunk,
    Outcome,
    ResultInfo,
    TaskRunKey,
)

T = TypeVar("T")


class _Stretch(NamedTuple):
    """Neighbouring positions of a batch."""

    start: int
    stop: int
    offset: int
    """Position in the block of the first of them."""


def completed_block(
    report: BatchReport,
    chunks: Sequence[tuple[Chunk, int]],
    *,
    flow_run_id: str,
    number: int,
    submitted_at: float,
) -> TaskRunBlock:
    """Return the record of calls of a batch that completed at their first attempt.

    Args:
        report: What the batch told. A block of all its calls takes the columns as they are.
        chunks: The calls, and the position in the batch of the first of each chunk.
        flow_run_id: The flow run that they belong to.
        number: Position among the blocks of the flow run.
        submitted_at: When the batch was sent.
    """
    stretches = _stretches(chunks)
    results, labels = _told(report)
    return TaskRunBlock(
        flow_run_id=flow_run_id,
        number=number,
        chunks=tuple([chunk for chunk, _ in chunks]),
        submitted_at=submitted_at,
        started_at=_cut(report.started_at, stretches),
        ended_at=_cut(report.ended_at, stretches),
        cpu_seconds=_cut(report.cpu_seconds, stretches),
        place=report.place,
        peak_memory=report.peak_memory,
        plain=_cut_plain(report.plain, stretches),
        results=_moved(results, stretches),
        labels=_moved(labels, stretches),
    )


def block_without(block: TaskRunBlock, nodes: Collection[int]) -> TaskRunBlock:
    """Return what is left of a block without the task runs of some nodes."""
    chunks: list[tuple[Chunk, int]] = []
    position = 0
    for chunk in block.chunks:
        if chunk.node not in nodes:
            chunks.append((chunk, position))
        position += chunk.size
    stretches = _stretches(chunks)
    return dataclasses.replace(
        block,
        chunks=tuple([chunk for chunk, _ in chunks]),
        started_at=_cut(block.started_at, stretches),
        ended_at=_cut(block.ended_at, stretches),
        cpu_seconds=_cut(block.cpu_seconds, stretches),
        plain=_cut_plain(block.plain, stretches),
        results=_moved(block.results, stretches),
        labels=_moved(block.labels, stretches),
    )


def call_report(
    report: BatchReport, position: int, *, run: TaskRunKey, attempt: int
) -> CallReport | None:
    """Return what happened to one call of a batch; None if it was handed back."""
    told = report.told.get(position)
    if told is not None:
        return told
    if position in report.unstarted:
        return None
    return CallReport(
        run=run,
        attempt=attempt,
        outcome=Outcome.COMPLETED,
        started_at=report.started_at[position],
        ended_at=report.ended_at[position],
        cpu_seconds=report.cpu_seconds[position],
        peak_memory=report.peak_memory,
        pid=report.place.pid,
        host=report.place.host,
        node_id=report.place.node_id,
        result=_result(report, position),
    )


def _result(report: BatchReport, position: int) -> ResultInfo | None:
    known = report.results.get(position)
    if known is not None or not report.plain:
        return known
    return describe_plain(_values(report.plain)[position])


@functools.lru_cache(maxsize=2)
def _values(plain: bytes) -> list[Plain]:
    # Asked again and again for the same bytes, where many calls of a batch are told one by one.
    values: list[Plain] = orjson.loads(plain)
    return values


def _stretches(chunks: Sequence[tuple[Chunk, int]]) -> list[_Stretch]:
    stretches: list[_Stretch] = []
    first = following = offset = 0
    for (_, start, stop, _), position in chunks:
        if position != following:
            if following > first:
                stretches.append(_Stretch(first, following, offset))
            offset += following - first
            first = position
        following = position + stop - start
    if following > first:
        stretches.append(_Stretch(first, following, offset))
    return stretches


def _cut(column: array[float], stretches: Sequence[_Stretch]) -> array[float]:
    if len(stretches) == 1:
        start, stop, _ = stretches[0]
        return column if stop - start == len(column) else column[start:stop]
    cut = array("d")
    for start, stop, _ in stretches:
        cut.extend(column[start:stop])
    return cut


def _cut_plain(plain: bytes, stretches: Sequence[_Stretch]) -> bytes:
    # Values behind those of the block do no harm: mostly they are the nulls of calls handed back.
    if not plain or (len(stretches) == 1 and stretches[0].start == 0):
        return plain
    values = orjson.loads(plain)
    return orjson.dumps([value for start, stop, _ in stretches for value in values[start:stop]])


def _told(report: BatchReport) -> tuple[Mapping[int, ResultInfo], Mapping[int, str]]:
    if not report.told:
        return report.results, {}
    completed = {n: c for n, c in report.told.items() if c.outcome is Outcome.COMPLETED}
    results = {n: call.result for n, call in completed.items() if call.result is not None}
    labels = {n: call.label for n, call in completed.items() if call.label}
    return {**report.results, **results}, labels


def _moved(by_position: Mapping[int, T], stretches: Sequence[_Stretch]) -> dict[int, T]:
    """Return what is known by position in the batch by position in the block."""
    moved: dict[int, T] = {}
    if not by_position:
        return moved
    stretches = sorted(stretches)
    for position, known in by_position.items():
        at = bisect_right(stretches, position, key=_start_of) - 1
        if at >= 0 and position < stretches[at].stop:
            moved[stretches[at].offset + position - stretches[at].start] = known
    return moved


def _start_of(stretch: _Stretch) -> int:
    return stretch.start
