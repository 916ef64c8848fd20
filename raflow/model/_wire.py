"""A batch of records as bytes: what a run sends to a service.

`RFB1`, the length of the header in four bytes, a byte of flags, the header, the blob. The header is
JSON: records by kind, each as a list of its fields. What is bytes already stands in the blob, one
after the other, in the order in which the header gives the lengths: values and exceptions, blocks,
the graph, log lines. All belong to the flow run that the header names: records do not say it again.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import orjson
import zstandard

from raflow import errors
from raflow.model import _wire_fields as fields
from raflow.model._block_codec import decode_spans
from raflow.model._compressed import content_size, decompress
from raflow.model._parts import BatchParts, BlockPart, GraphPart, block_part
from raflow.model._records import LogSegment, Record

T = TypeVar("T")

_MAGIC: Final = b"RFB1"
_START: Final = struct.Struct("<4sIB")
_COMPRESSED: Final = 1
_PATIENT: Final = 2
"""Flag: the header holds what only Python's own JSON can read: large integers, halves of pairs."""
_LEVEL: Final = 1
_WORTH_IT: Final = 512
"""Bytes: a shorter header is not compressed."""

_MOST_HEADER: Final = 64 << 20
_MOST_CONTENT: Final = 64 << 20
_MOST_SPANS: Final = 1 << 20
_MOST_ROWS: Final = 100_000


def encode_batch(parts: BatchParts) -> bytes:
    """Return the bytes of a batch.

    Args:
        parts: With the lines of all its log segments.
    """
    blobs: list[bytes] = []
    rows: dict[str, list[object]] = {kind.name: [] for kind in fields.KINDS}
    for record in parts.records:
        kind = fields.KIND_OF[type(record)]
        rows[kind.name].append(kind.dump(record, blobs))
    graph = parts.graph
    header: dict[str, object] = {
        "run": parts.flow_run_id,
        "seq": parts.seq,
        "incarnation": parts.incarnation,
        **{name: its_rows for name, its_rows in rows.items() if its_rows},
        "bytes": [len(blob) for blob in blobs],
        "blocks": [[block.number, len(block.spans), len(block.content)] for block in parts.blocks],
        "graph": graph and [graph.first_node, graph.last_node, len(graph.content)],
        "logs": [len(blob) for blob in parts.logs],
        "dropped": sorted(parts.dropped),
    }
    for block in parts.blocks:
        blobs += block.spans, block.content
    if graph is not None:
        blobs.append(graph.content)
    blobs += parts.logs
    raw, flags = _dump(header)
    if len(raw) >= _WORTH_IT:
        raw, flags = zstandard.ZstdCompressor(level=_LEVEL).compress(raw), flags | _COMPRESSED
    return b"".join([_START.pack(_MAGIC, len(raw), flags), raw, *blobs])


def decode_batch(data: bytes) -> BatchParts:
    """Return the batch that `encode_batch` wrote; blocks, graph and log lines stay bytes.

    Raises:
        BatchError: It is no batch, or one that no run has recorded.
    """
    try:
        return _decode(data)
    except errors.BatchError:
        raise
    # Whatever a stranger sends in place of what is expected: it is no fault of the reader.
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
        struct.error,
    ) as error:
        raise errors.BatchError(
            f"These bytes are no batch of records ({type(error).__name__}: {error}). They were "
            "damaged on their way, or written by another version of raflow."
        ) from error


def _decode(data: bytes) -> BatchParts:
    magic, length, flags = _START.unpack_from(data)
    if magic != _MAGIC or flags & ~(_COMPRESSED | _PATIENT):
        raise errors.BatchError(
            "These bytes are no batch of records, or one of another version of raflow: they do not "
            f"begin with {_MAGIC.decode()} and flags that are known."
        )
    header_end = _START.size + length
    header = _load(data[_START.size : header_end], flags)
    taken = _Taken(data, header_end)
    blobs = [taken.next(size) for size in _rows(header, "bytes")]
    blocks = tuple([_block(taken, *row) for row in _rows(header, "blocks")])
    graph = None if header["graph"] is None else _graph(taken, *header["graph"])
    logs = tuple([taken.content(size, "a log segment") for size in _rows(header, "logs")])
    taken.check_end()
    run = fields.text(header["run"])
    records = tuple(_records(header, run, blobs))
    _check_logs(records, logs)
    return BatchParts(
        flow_run_id=run,
        seq=fields.natural(header["seq"]),
        incarnation=fields.natural(header["incarnation"]),
        records=records,
        graph=graph,
        blocks=blocks,
        dropped=frozenset(map(fields.natural, _rows(header, "dropped"))),
        logs=logs,
    )


def _dump(header: Mapping[str, object]) -> tuple[bytes, int]:
    try:
        return orjson.dumps(header), 0
    except TypeError:
        return json.dumps(header, default=str).encode(), _PATIENT


def _load(raw: bytes, flags: int) -> Mapping[str, Any]:
    if flags & _COMPRESSED:
        raw = decompress(raw, "the header of a batch", most=_MOST_HEADER)
    header: Mapping[str, Any] = json.loads(raw) if flags & _PATIENT else orjson.loads(raw)
    return header


def _rows(header: Mapping[str, Any], name: str) -> Sequence[Any]:
    rows = header.get(name, ())
    if len(rows) > _MOST_ROWS:
        raise errors.BatchError(
            f"A batch of records has {len(rows)} entries of the kind {name!r}, and may have no "
            f"more than {_MOST_ROWS}."
        )
    return rows  # type: ignore[no-any-return]  # of JSON; the fields of each are checked


def _records(header: Mapping[str, Any], run: str, blobs: Sequence[bytes]) -> Iterator[Record]:
    for kind in fields.KINDS:
        for row in _rows(header, kind.name):
            yield kind.load(run, row, blobs)


def _block(taken: _Taken, number: int, spans_size: int, size: int) -> BlockPart:
    encoded = taken.next(spans_size)
    spans = decode_spans(encoded, most=_MOST_SPANS)
    if not fields.are_spans(spans, most=_MOST_ROWS):
        raise errors.BatchError(f"Block {number} of a batch holds no task runs that could be.")
    content = taken.content(size, "a block of task runs")
    return block_part(fields.natural(number), spans, encoded, content)


def _graph(taken: _Taken, first: int, last: int, size: int) -> GraphPart:
    content = taken.content(size, "a part of a graph")
    return GraphPart(fields.integer(first), fields.integer(last), content)


def _check_logs(records: Sequence[Record], logs: Sequence[bytes]) -> None:
    lengths = [record.length for record in records if isinstance(record, LogSegment)]
    if lengths != [len(blob) for blob in logs]:
        raise errors.BatchError(
            f"A batch of records names log segments of {lengths} bytes and brings "
            f"{[len(blob) for blob in logs]}."
        )


class _Taken:
    """The blob, taken from the front."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at

    def next(self, size: int) -> bytes:
        """Return so many bytes."""
        end = self._at + fields.natural(size)
        if end > len(self._data):
            raise errors.BatchError(
                f"A batch of records ends after {len(self._data)} bytes, and says it has {end} or "
                "more."
            )
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def content(self, size: int, what: str) -> bytes:
        """Return so many bytes, which say that reading them is safe."""
        taken = self.next(size)
        found = content_size(taken, what)
        if found > _MOST_CONTENT:
            raise errors.BatchError(
                f"A batch of records brings {what} of {found} bytes, and may bring no more than "
                f"{_MOST_CONTENT} at once."
            )
        return taken

    def check_end(self) -> None:
        """Raise an error if there is more."""
        if self._at != len(self._data):
            raise errors.BatchError(
                f"A batch of records has {len(self._data) - self._at} bytes more than it says."
            )
