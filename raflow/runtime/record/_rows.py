"""Records of calls, task runs and attempts, made of what the engine decides."""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Sequence
from typing import Final

import orjson

from raflow import engine
from raflow._util import maker
from raflow.model import (
    Attempt,
    Chunk,
    GraphNode,
    NodeKind,
    Place,
    Plain,
    ResultInfo,
    TaskRunBlock,
)
from raflow.runtime.calls import CallEntry
from raflow.runtime.recall import Piece


def node_of(call: engine.CallMade, entry: CallEntry) -> GraphNode:
    """Return the record of a call."""
    at, node, kind, name, key, options, _, length, _, _, _, _ = call
    return _graph_node(
        (
            node,
            key,
            kind,
            name,
            key,
            entry.request.line,
            length,
            options.trigger_rule,
            None if kind is NodeKind.SUBFLOW else options.resources,
            at,
            entry.inputs,
            entry.code,
        )
    )


_graph_node: Final = maker(GraphNode)


def reused_block(
    runs: Sequence[tuple[int, Piece]], flow_run_id: str, number: int, origin: str, at: float
) -> TaskRunBlock:
    """Return the record of task runs whose values another flow run has left, by node."""
    plain: list[Plain] = []
    results: dict[int, ResultInfo] = {}
    labels: dict[int, str] = {}
    for _, piece in runs:
        before = len(plain)
        told = piece.values.told(piece.position, piece.position + piece.stop - piece.start)
        plain += told.plain
        results |= {before + n: info for n, info in told.results.items()}
        labels |= {before + n: label for n, label in told.labels.items()}
    times = array("d", [at]) * len(plain)
    return TaskRunBlock(
        flow_run_id=flow_run_id,
        number=number,
        chunks=tuple(Chunk(node, piece.start, piece.stop) for node, piece in runs),
        submitted_at=at,
        started_at=times,
        ended_at=times,
        cpu_seconds=array("d", [0.0]) * len(plain),
        place=Place(),
        plain=orjson.dumps(plain),
        results=results,
        labels=labels,
        origin=origin,
    )


def attempt_of(flow_run_id: str, ended: engine.AttemptEnded) -> Attempt:
    """Return the record of an attempt."""
    report, cause = ended.report, ended.cause
    base = Attempt(
        flow_run_id=flow_run_id,
        key=ended.run,
        number=ended.number,
        outcome=ended.outcome,
        submitted_at=ended.submitted_at,
        started_at=None,
        ended_at=ended.ended_at,
        message=ended.message,
        cause=cause,
        memory=ended.memory,
    )
    if cause is not None:
        base = dataclasses.replace(
            base,
            peak_memory=cause.peak_memory,
            pid=cause.pid,
            host=cause.host,
            node_id=cause.node_id,
        )
    if report is None:
        return base
    return dataclasses.replace(
        base,
        started_at=report.started_at,
        cpu_seconds=report.cpu_seconds,
        peak_memory=report.peak_memory,
        pid=report.pid,
        host=report.host,
        node_id=report.node_id,
        error=report.error,
    )
