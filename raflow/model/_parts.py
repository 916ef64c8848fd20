"""A batch of records, with what takes long to encode already encoded: as it is sent, and kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from raflow import errors
from raflow.model._block_codec import encode_block, encode_spans
from raflow.model._graph_codec import encode_graph
from raflow.model._records import (
    FlowRun,
    FlowVersion,
    GraphRecord,
    LogSegment,
    Record,
    RecordBatch,
    TaskPace,
    TaskRunBlock,
)
from raflow.model._spans import Span, spans_of

_OF_NO_RUN: Final = frozenset({FlowVersion, TaskPace})
_ENCODED: Final = frozenset({GraphRecord, TaskRunBlock})


class BlockPart(NamedTuple):
    """A block of task runs: where it is looked up, and its bytes."""

    number: int
    first_node: int
    last_node: int
    first_item: int
    last_item: int
    size: int
    """How many task runs it holds."""
    spans: bytes
    content: bytes


class GraphPart(NamedTuple):
    """A part of the graph: where it is looked up, and its bytes."""

    first_node: int
    """-1 if it has no nodes."""
    last_node: int
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchParts:
    """A batch of records whose blocks and graph are bytes, which nobody needs to read."""

    flow_run_id: str
    seq: int
    incarnation: int
    records: tuple[Record, ...]
    """All but graph and blocks; without those of calls that a later record drops."""
    graph: GraphPart | None = None
    blocks: tuple[BlockPart, ...] = ()
    dropped: frozenset[int] = frozenset()
    """Nodes of which all that was recorded before is dropped."""
    logs: tuple[bytes, ...] = ()
    """The lines of its log segments, one for each, where they are not kept yet."""

    def with_logs_at(self, places: Iterable[tuple[str, int]]) -> BatchParts:
        """Return it with its log segments at these files and offsets, where they are kept now."""
        known = iter(places)
        records = [
            dataclasses.replace(record, file=place[0], offset=place[1])
            if isinstance(record, LogSegment) and (place := next(known, None))
            else record
            for record in self.records
        ]
        return dataclasses.replace(self, records=tuple(records), logs=())


def parts_of(batch: RecordBatch) -> BatchParts:
    """Encode what takes long.

    Raises:
        StoreError: A record belongs to another flow run.
    """
    _check_owner(batch)
    records, dropped = _without_dropped(batch.records)
    graphs = [record for record in records if type(record) is GraphRecord]
    return BatchParts(
        flow_run_id=batch.flow_run_id,
        seq=batch.seq,
        incarnation=batch.incarnation,
        records=tuple([r for r in records if type(r) not in _ENCODED]),
        graph=_graph_part(graphs),
        blocks=tuple([block_part_of(r) for r in records if type(r) is TaskRunBlock]),
        dropped=dropped,
    )


def block_part(number: int, spans: Sequence[Span], encoded: bytes, content: bytes) -> BlockPart:
    """Return a block whose bytes are known.

    Args:
        number: Its position among the blocks of the flow run.
        spans: Which task runs it holds.
        encoded: The same, as bytes.
        content: What `encode_block` returns of it.
    """
    return BlockPart(
        number,
        min((span.node for span in spans), default=-1),
        max((span.node_ids[-1] for span in spans), default=-1),
        min((span.start for span in spans), default=-1),
        max((span.stop - 1 for span in spans), default=-1),
        sum(span.size for span in spans),
        encoded,
        content,
    )


def block_part_of(block: TaskRunBlock) -> BlockPart:
    """Return a block as it is kept."""
    spans = spans_of(block.chunks)
    return block_part(block.number, spans, encode_spans(spans), encode_block(block, spans=spans))


def _graph_part(parts: Sequence[GraphRecord]) -> GraphPart | None:
    nodes = [node for part in parts for node in part.nodes]
    edges = [edge for part in parts for edge in part.edges]
    if not nodes and not edges:
        return None
    ids = [node.id for node in nodes] or [-1]
    return GraphPart(min(ids), max(ids), encode_graph(nodes, edges))


def _without_dropped(records: Sequence[Record]) -> tuple[Sequence[Record], frozenset[int]]:
    """Return the records that still count, and the calls that are dropped."""
    if not any(isinstance(record, GraphRecord) and record.dropped for record in records):
        return records, frozenset()
    dropped: set[int] = set()
    left: list[Record] = []
    for record in reversed(records):
        if isinstance(record, GraphRecord):
            dropped.update(record.dropped)
        key = getattr(record, "key", None)
        if key is None or key.node not in dropped:
            left.append(record)
    return left[::-1], frozenset(dropped)


def _check_owner(batch: RecordBatch) -> None:
    owners = {
        record.id if type(record) is FlowRun else record.flow_run_id  # type: ignore[union-attr]
        for record in batch.records
        if type(record) not in _OF_NO_RUN
    }
    for owner in owners - {batch.flow_run_id}:
        raise errors.StoreError(
            f"Batch {batch.seq} of flow run {batch.flow_run_id!r} holds a record of flow run "
            f"{owner!r}. This is a bug in raflow: please report it with this message."
        )
