"""The log lines of a flow run, in the order in which they were written."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from raflow import errors
from raflow.model import (
    FlowGraph,
    FlowRun,
    GraphNode,
    LogLine,
    LogSegment,
    TaskRunKey,
)
from raflow.store import Store

POLL_SECONDS: Final = 0.5
_BODY: Final = TaskRunKey(-1)


class Origin(NamedTuple):
    """Who wrote a line."""

    label: str
    """The label of the task run; empty for the body of the flow."""
    attempt: int


class Logs:
    """The log of one flow run, seen through a filter."""

    def __init__(
        self,
        store: Store,
        run: FlowRun,
        *,
        task: str | None = None,
        level: int = 0,
        attempt: int | None = None,
    ) -> None:
        """Look at a log.

        Args:
            store: The record.
            run: The flow run.
            task: Label of a task run, key of a node (all items of a map), or name of a task
                (all its calls). Default: everything, the body of the flow too.
            level: Lowest level of lines, as `logging` numbers them.
            attempt: Only attempts of this number. Default: all.

        Raises:
            NotFoundError: The run has no such task.
        """
        self._store = store
        self._run = run
        self._level = level
        self._attempt = attempt
        self._graph = store.graph(run.id)
        self._wanted = None if task is None else _wanted(store, run, self._graph, task)
        self._seen = 0
        self._labels: dict[TaskRunKey, str] = {_BODY: ""}

    def new_lines(self) -> Iterator[tuple[LogLine, Origin]]:
        """Return the lines that were recorded since this was called last."""
        segments = self._store.log_segments(self._run.id, attempt=self._attempt)
        fresh = [s for s in segments if s.number >= self._seen]
        self._seen = max((s.number + 1 for s in segments), default=self._seen)
        chosen = [s for s in fresh if s.level >= self._level and self._fits(s)]
        for at, segment in merge_lines(chosen, self._store.read_log):
            if at.level >= self._level:
                yield at, Origin(self._label(segment.key or _BODY), segment.attempt)

    def follow(
        self, sleep: Callable[[float], None] = time.sleep
    ) -> Iterator[tuple[LogLine, Origin]]:
        """Return the lines there are, and those that come, until the run is final."""
        while True:
            # Asked before reading, so that the last lines are not missed.
            final = self._store.find_flow_run(self._run.id).state.is_final
            yield from self.new_lines()
            if final:
                return
            sleep(POLL_SECONDS)

    def _fits(self, segment: LogSegment) -> bool:
        if self._wanted is None:
            return True
        key = segment.key or _BODY
        return key in self._wanted or TaskRunKey(key.node) in self._wanted

    def _label(self, key: TaskRunKey) -> str:
        if key not in self._labels:
            self._labels.update(
                (run.key, run.label) for run in self._store.task_runs(self._run.id, node=key.node)
            )
        return self._labels.get(key, "")


def merge_lines(
    segments: Sequence[LogSegment], read: Callable[[LogSegment], Iterable[LogLine]]
) -> Iterator[tuple[LogLine, LogSegment]]:
    """Return the lines of segments by time, reading each segment only when its turn comes.

    Args:
        segments: In any order.
        read: Returns the lines of one, oldest first.
    """
    waiting = sorted(segments, key=lambda s: (s.first_at, s.number), reverse=True)
    tie = itertools.count()
    heap: list[tuple[float, int, LogLine, LogSegment, Iterator[LogLine]]] = []

    def push(segment: LogSegment, lines: Iterator[LogLine]) -> None:
        line = next(lines, None)
        if line is not None:
            heapq.heappush(heap, (line.at, next(tie), line, segment, lines))

    while waiting or heap:
        while waiting and (not heap or waiting[-1].first_at <= heap[0][0]):
            segment = waiting.pop()
            push(segment, iter(read(segment)))
        if heap:
            _, _, line, segment, lines = heapq.heappop(heap)
            yield line, segment
            push(segment, lines)


def _wanted(store: Store, run: FlowRun, graph: FlowGraph, task: str) -> frozenset[TaskRunKey]:
    nodes = [node for node in graph.nodes if task in {node.key, node.name}]
    if nodes:
        return frozenset(TaskRunKey(node.id) for node in nodes)
    item = _item(graph.nodes, task)
    if item is not None:
        return frozenset([item])
    task_runs = store.task_runs(run.id)
    found = [t.key for t in task_runs if t.label == task]
    if found:
        return frozenset(found)
    known = {node.name for node in graph.nodes} | {t.label for t in task_runs[:2000]}
    raise errors.NotFoundError.of(
        "task or task run", task, sorted(known), f"See `raflow runs show {run.name}`."
    )


def _item(nodes: Iterable[GraphNode], text: str) -> TaskRunKey | None:
    """Return the key that `clean-1[7]` stands for."""
    key, bracket, rest = text.partition("[")
    number = rest.removesuffix("]")
    if not bracket or not number.isdecimal():
        return None
    return next((TaskRunKey(n.id, int(number)) for n in nodes if n.key == key), None)
