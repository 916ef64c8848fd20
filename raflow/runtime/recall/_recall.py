"""What the record knows of the past of a flow run: what a new process of it need not do again."""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from raflow import engine, errors
from raflow.model import (
    Chunk,
    Edge,
    FlowRun,
    GraphNode,
    ResultInfo,
    StateType,
    TaskRun,
    TaskRunBlock,
)
from raflow.runtime.calls import CallEntry, KeptValue, KeptValues, OnRecord

if TYPE_CHECKING:
    from raflow.runtime._ports import RunStore


class Piece(NamedTuple):
    """Neighbouring task runs that have completed, and where their values are."""

    start: int
    stop: int
    values: OnRecord
    position: int
    """Where the value of the first is in `values`."""
    attempts: int = 1
    """0: nothing ran, because another flow run has left their values."""

    def part(self, start: int, stop: int) -> Piece:
        """Return a part of it, by map index."""
        position = self.position + start - self.start
        return Piece(start, stop, self.values, position, self.attempts)

    def parts(self) -> Iterator[tuple[Piece, bool]]:
        """Yield it in parts whose values were all kept, or all not."""
        start = self.start
        stop_position = self.position + self.stop - self.start
        for position in self.values.lacks(self.position, stop_position):
            item = self.start + position - self.position
            if start < item:
                yield self.part(start, item), True
            yield self.part(item, item + 1), False
            start = item + 1
        if start < self.stop:
            yield self.part(start, self.stop), True


class Known(NamedTuple):
    """What is on record of the runs of one call."""

    answers: tuple[engine.Answer, ...]
    """For the engine."""
    pieces: tuple[tuple[Piece, bool], ...]
    """The runs that have completed, and whether their values were kept."""


NOTHING: Final = Known((), ())


def completed(pieces: Iterable[Piece]) -> Known:
    """Return what the engine has to know of runs that have completed."""
    parts = tuple([part for piece in pieces for part in piece.parts()])
    answers = [
        engine.Answer(
            start=part.start,
            stop=part.stop,
            has_value=has_value,
            attempts=part.attempts,
            truths=_truths(part) if has_value else b"",
            length=part.values.length(part.position) if part.start < 0 else None,
            cached=not part.attempts,
        )
        for part, has_value in parts
    ]
    return Known(tuple(answers), parts)


class Recall:
    """The past of one flow run."""

    def __init__(self, store: RunStore, flow_run_id: str) -> None:
        """Read it.

        Args:
            store: Where from.
            flow_run_id: The flow run.
        """
        past = store.recall
        self._store = store
        self._id = flow_run_id
        self.numbers = past.numbers(flow_run_id)
        self.rows = [_with_result(row, store.result) for row in past.rows(flow_run_id)]
        self._nodes = past.nodes(flow_run_id)
        self._edges = _by_target(past.edges(flow_run_id))
        self._unfinished = _by_node(row for row in self.rows if not _completed(row))
        self._pieces = _pieces(past.blocks(flow_run_id), self.rows)

    def knows(self, node: int) -> bool:
        """Whether the body made a call with this id before."""
        return node < len(self._nodes)

    def has_other(self, node: int) -> bool:  # noqa: ARG002 - here it is the same, or refused
        """Whether the body made another call with this id before; what is on record of it goes."""
        return False

    def check(self, node: int, call: CallEntry) -> None:
        """Refuse a call that is not the one that the body made in this place before.

        Raises:
            ResumeError: Names both.
        """
        if node >= len(self._nodes):
            return
        before, key = self._nodes[node], call.key
        if before.key != key or before.kind is not call.request.kind:
            told = f"not {before.key!r}"
        elif wirings(call.edges) != wirings(self._edges.get(node, ())):
            told = f"with values of other calls than {key!r} had before"
        elif None not in (before.inputs, call.inputs) and before.inputs != call.inputs:
            told = f"with other arguments than {key!r} had before"
        else:
            return
        raise errors.ResumeError(
            f"Call {node} of the flow is now {key!r}, {told}. What is recorded of a run is of use "
            "only if the body makes the same calls in the same order: take what changes (the time, "
            "random numbers, the state of the world) from a task. Run the flow anew instead."
        )

    def known(self, node: int) -> Known:
        """Return what is on record of the runs of a call."""
        if node not in self._pieces and node not in self._unfinished:
            return NOTHING
        known = completed(self.pieces(node))
        found = [*known.answers]
        found += [
            engine.Answer(
                start=row.key.map_index,
                stop=row.key.map_index + 1,
                completed=False,
                attempts=row.attempts,
            )
            for row in self._unfinished.get(node, ())
            if row.attempts
        ]
        return Known(tuple(sorted(found, key=_start_of)), known.pieces)

    def pieces(self, node: int) -> Sequence[Piece]:
        """Return the runs of a call that have completed, in the order of items."""
        return self._pieces.get(node, ())

    @property
    def nodes(self) -> Sequence[GraphNode]:
        """The calls of the body, by id."""
        return self._nodes

    def edges(self, node: int) -> Sequence[Edge]:
        """Return what a call depends on."""
        return self._edges.get(node, ())

    def values(self, chunk: Chunk) -> list[Piece] | None:
        """Return where the values of these runs are; None if not all of them were kept."""
        found = [
            part.part(max(part.start, chunk.start), min(part.stop, chunk.stop))
            for piece in self._pieces.get(chunk.node, ())
            for part, has_value in piece.parts()
            if has_value and part.start < chunk.stop and chunk.start < part.stop
        ]
        return found if sum(p.stop - p.start for p in found) == chunk.size else None

    def child(self, node: int) -> FlowRun | None:
        """Return the flow run that stands for a subflow call that has not completed.

        The process may have died when only one of the two was on record, the call or its run.
        """
        return None if node in self._done else self._children.get(node)

    @functools.cached_property
    def _children(self) -> Mapping[int, FlowRun]:
        """The newest flow run of each subflow call."""
        oldest_first = reversed(self._store.flow_runs(limit=None, parent=self._id))
        return {run.parent_node: run for run in oldest_first if run.parent_node is not None}

    @functools.cached_property
    def _done(self) -> frozenset[int]:
        """The calls that have a row which says that they have completed."""
        return frozenset(row.key.node for row in self.rows if _completed(row))


def _pieces(blocks: Iterable[TaskRunBlock], rows: Sequence[TaskRun]) -> Mapping[int, list[Piece]]:
    pieces: dict[int, list[Piece]] = defaultdict(list)
    with_row = _by_node(rows)
    for block in blocks:
        values, position = KeptValues(block), 0
        for chunk in block.chunks:
            piece = Piece(chunk.start, chunk.stop, values, position, 0 if block.origin else 1)
            pieces[chunk.node] += _without(piece, with_row.get(chunk.node, ()))
            position += chunk.size
    for row in rows:
        if _completed(row) and row.result is not None:
            item = row.key.map_index
            value = KeptValue(row.result, row.label)
            pieces[row.key.node].append(Piece(item, item + 1, value, 0, row.attempts))
    for found in pieces.values():
        found.sort(key=lambda piece: piece.start)
    return pieces


def _without(piece: Piece, rows: Iterable[TaskRun]) -> Iterator[Piece]:
    """Yield what is left of a piece without the runs that have a row."""
    start = piece.start
    for row in rows:
        item = row.key.map_index
        if start <= item < piece.stop:
            if start < item:
                yield piece.part(start, item)
            start = item + 1
    if start < piece.stop:
        yield piece.part(start, piece.stop)


def _with_result(row: TaskRun, result_of: Callable[[str], ResultInfo | None]) -> TaskRun:
    """Give the call of a subflow the value of its flow run."""
    child = row.child_flow_run_id
    return row if child is None else dataclasses.replace(row, result=result_of(child))


def _completed(row: TaskRun) -> bool:
    return row.state.type is StateType.COMPLETED


def _truths(part: Piece) -> bytes:
    return part.values.truths(part.position, part.position + part.stop - part.start)


def wirings(edges: Iterable[Edge]) -> list[tuple[int, int, int, str, str]]:
    """Return what edges connect, to be compared with those of another call."""
    return sorted(
        (
            edge.source,
            -1 if edge.source_item is None else edge.source_item,
            -1 if edge.target_item is None else edge.target_item,
            edge.kind,
            edge.parameter,
        )
        for edge in edges
    )


def _start_of(answer: engine.Answer) -> int:
    return answer.start


def _by_node(rows: Iterable[TaskRun]) -> Mapping[int, list[TaskRun]]:
    found: dict[int, list[TaskRun]] = defaultdict(list)
    for row in rows:
        found[row.key.node].append(row)
    return found


def _by_target(edges: Iterable[Edge]) -> Mapping[int, list[Edge]]:
    found: dict[int, list[Edge]] = defaultdict(list)
    for edge in edges:
        found[edge.target].append(edge)
    return found
