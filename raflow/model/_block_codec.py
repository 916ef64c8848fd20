"""The bytes of a block: what the database keeps, and anybody may read without running user code.

A compressed frame: the length of the head in four bytes, the head as JSON, the three columns of
times, the JSON of plain values, and the bytes of results that are inline. A column is written as
its numbers' first bytes, then their second bytes, and so on: those of neighbouring times are alike.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import orjson
import zstandard

from raflow.model._compressed import MOST, decompress
from raflow.model._json import to_json
from raflow.model._records import TaskRunBlock
from raflow.model._report import Place, ResultInfo
from raflow.model._spans import Span, chunks_of, spans_of

_LEVEL: Final = 1
_VERSION: Final = 1
_HEAD_LENGTH: Final = 4
_DOUBLE: Final = 8


def encode_block(block: TaskRunBlock, *, spans: Sequence[Span] | None = None) -> bytes:
    """Return the bytes of a block; times and results come back exactly as they are.

    Args:
        block: What is written. That its calls are first attempts is not.
        spans: What `spans_of` returns of its chunks, if that is known.
    """
    inline = [info.inline for info in block.results.values() if info.inline is not None]
    head = {
        "version": _VERSION,
        "flow_run_id": block.flow_run_id,
        "number": block.number,
        "spans": list(chain.from_iterable(spans_of(block.chunks) if spans is None else spans)),
        "size": block.size,
        "submitted_at": block.submitted_at,
        "place": list(block.place),
        "peak_memory": block.peak_memory,
        "plain": len(block.plain),
        "results": [_result_to_json(n, info) for n, info in block.results.items()],
        "labels": list(block.labels.items()),
        "origin": block.origin,
    }
    head_bytes = to_json(head)
    columns = (block.started_at, block.ended_at, block.cpu_seconds)
    parts = [
        len(head_bytes).to_bytes(_HEAD_LENGTH, "little"),
        head_bytes,
        *chain.from_iterable(map(_planes, columns)),
        block.plain,
        *inline,
    ]
    return zstandard.ZstdCompressor(level=_LEVEL).compress(b"".join(parts))


def decode_block(data: bytes) -> TaskRunBlock:
    """Return the block that `encode_block` wrote.

    Raises:
        BatchError: It is damaged, or too large to be one.
    """
    raw = memoryview(decompress(data, "a block of task runs"))
    begin = _HEAD_LENGTH + int.from_bytes(raw[:_HEAD_LENGTH], "little")
    head = orjson.loads(raw[_HEAD_LENGTH:begin])
    width = head["size"] * _DOUBLE
    columns = [_column(raw[at : at + width]) for at in range(begin, begin + 3 * width, width or 1)]
    started_at, ended_at, cpu_seconds = columns or (array("d"), array("d"), array("d"))
    plain_at = begin + 3 * width
    inline_at = plain_at + head["plain"]
    return TaskRunBlock(
        flow_run_id=head["flow_run_id"],
        number=head["number"],
        chunks=tuple(chunks_of(spans_from(head["spans"]))),
        submitted_at=head["submitted_at"],
        started_at=started_at,
        ended_at=ended_at,
        cpu_seconds=cpu_seconds,
        place=Place(*head["place"]),
        peak_memory=head["peak_memory"],
        plain=bytes(raw[plain_at:inline_at]),
        results=_results_from_json(head["results"], raw[inline_at:]),
        labels=dict(head["labels"]),
        origin=head.get("origin", ""),
    )


def encode_spans(spans: Sequence[Span]) -> bytes:
    """Return the bytes of spans."""
    return zstandard.ZstdCompressor(level=_LEVEL).compress(
        orjson.dumps(list(chain.from_iterable(spans)))
    )


def decode_spans(data: bytes, *, most: int = MOST) -> list[Span]:
    """Return what `encode_spans` wrote.

    Args:
        data: The bytes.
        most: How many bytes their content may have. Default: 1 GiB.

    Raises:
        BatchError: They are damaged, or have more.
    """
    return list(spans_from(orjson.loads(decompress(data, "the spans of a block", most=most))))


def spans_from(numbers: Sequence[int]) -> Iterator[Span]:
    """Yield the spans whose fields stand one after the other."""
    fields = iter(numbers)
    return map(Span._make, zip(*[fields] * len(Span._fields), strict=True))


def _planes(column: array[float]) -> Iterator[bytes]:
    raw = _little_endian(column).tobytes()
    return (raw[n::_DOUBLE] for n in range(_DOUBLE))


def _column(planes: memoryview) -> array[float]:
    count = len(planes) // _DOUBLE
    raw = bytearray(len(planes))
    for n in range(_DOUBLE):
        raw[n::_DOUBLE] = planes[n * count : (n + 1) * count]
    column = array("d")
    column.frombytes(raw)
    return _little_endian(column)


def _little_endian(column: array[float]) -> array[float]:
    if sys.byteorder == "little":
        return column
    swapped = column[:]
    swapped.byteswap()
    return swapped


def _result_to_json(position: int, info: ResultInfo) -> list[object]:
    inline = None if info.inline is None else len(info.inline)
    about = [info.type, info.size, info.preview, info.length, info.truth]
    return [position, inline, *about, info.serializer, info.url, info.digest]


def _results_from_json(rows: Sequence[Sequence[Any]], tail: memoryview) -> Mapping[int, ResultInfo]:
    results, at = {}, 0
    for position, inline, kind, size, preview, length, truth, serializer, url, digest in rows:
        end = at + (inline or 0)
        results[position] = ResultInfo(
            type=kind,
            size=size,
            preview=preview,
            length=length,
            truth=truth,
            serializer=serializer,
            inline=None if inline is None else bytes(tail[at:end]),
            url=url,
            digest=digest,
        )
        at = end
    return results
