"""A batch as bytes: what is sent arrives, and what a stranger sends harms nobody."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import struct

import orjson
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from raflow import errors, model
from tests.store import records

START = struct.Struct("<4sIB")

all_records = st.one_of(
    records.flow_versions,
    records.flow_runs.map(lambda run: dataclasses.replace(run, id=records.RUN)),
    st.builds(
        model.TaskPace,
        flow=records.texts,
        fingerprint=records.texts,
        task=records.texts,
        seconds=records.times,
        bytes=records.times,
    ),
    records.state_changes,
    records.attempts,
    records.task_runs,
)
graphs = st.builds(
    model.GraphRecord,
    flow_run_id=st.just(records.RUN),
    nodes=st.lists(records.graph_nodes, max_size=3).map(tuple),
    edges=st.lists(records.edges, max_size=3).map(tuple),
    dropped=st.lists(records.counts, max_size=2).map(tuple),
)
blocks = st.builds(
    records.block,
    records.counts,
    st.builds(model.Chunk, records.counts, st.just(0), st.integers(1, 5), st.just(1)),
)


def sorted_by_kind(parts: model.BatchParts) -> model.BatchParts:
    """Return a batch as it arrives: by kinds, in each of them in the order of before."""
    order = list(dict.fromkeys([*KINDS, *map(type, parts.records)]))
    found = sorted(parts.records, key=lambda record: order.index(type(record)))
    return dataclasses.replace(parts, records=tuple(found))


KINDS = (
    model.FlowVersion,
    model.FlowRun,
    model.TaskPace,
    model.StateChange,
    model.Attempt,
    model.TaskRun,
    model.LogSegment,
)


def sent(parts: model.BatchParts) -> model.BatchParts:
    return model.decode_batch(model.encode_batch(parts))


@settings(max_examples=150)
@given(parts=st.lists(all_records | graphs | blocks, max_size=6), seq=records.counts)
def test_a_batch_arrives_as_it_was_sent(parts: list[model.Record], seq: int) -> None:
    batch = model.parts_of(records.batch(*parts, seq=seq, incarnation=3))
    assert sent(batch) == sorted_by_kind(batch)


def test_log_lines_travel_with_their_segments() -> None:
    lines = [model.LogLine(1.0, 20, "stdout", "hello")]
    blob = model.encode_log(lines)
    segment = model.LogSegment(
        flow_run_id=records.RUN,
        number=0,
        key=None,
        attempt=0,
        file="somewhere.log",
        offset=7,
        length=len(blob),
        lines=1,
        first_at=1.0,
        last_at=1.0,
        level=20,
    )
    batch = model.parts_of(records.batch(segment))
    arrived = sent(dataclasses.replace(batch, logs=(blob,)))
    # Where the sender has them is nothing to the receiver.
    assert arrived.records == (dataclasses.replace(segment, file="", offset=0),)
    assert [model.decode_log(log) for log in arrived.logs] == [lines]
    kept = arrived.with_logs_at([("here.log", 12)])
    assert kept.records == (dataclasses.replace(segment, file="here.log", offset=12),)
    assert kept.logs == ()
    with pytest.raises(errors.BatchError, match="log segments"):
        sent(batch)


def test_what_json_cannot_hold_arrives_too() -> None:
    run = dataclasses.replace(
        records.flow_run(), parameters={"large": 2**80, "float": 0.1}, name="half \udc80"
    )
    assert sent(model.parts_of(records.batch(run))).records == (run,)
    pace = model.TaskPace(flow="f", fingerprint="f", task="t", seconds=math.nan, bytes=math.inf)
    # As the databases keep them.
    (arrived,) = sent(model.parts_of(records.batch(pace))).records
    assert arrived == dataclasses.replace(pace, seconds=0.0, bytes=0.0)


def test_blocks_travel_as_the_bytes_that_are_kept() -> None:
    block = records.block(4, model.Chunk(2, 0, 3), model.Chunk(5))
    batch = model.parts_of(records.batch(block))
    (part,) = sent(batch).blocks
    assert part == batch.blocks[0]
    assert part[:6] == (4, 2, 5, -1, 2, 4)
    assert model.decode_block(part.content) == block


def test_a_batch_is_of_one_run() -> None:
    with pytest.raises(errors.StoreError, match="holds a record of flow run 'other'"):
        model.parts_of(records.batch(records.task_run(flow_run_id="other")))


# --- What a stranger sends ------------------------------------------------------------------------

HEADER = {
    "run": records.RUN,
    "seq": 0,
    "incarnation": 1,
    "bytes": [],
    "blocks": [],
    "graph": None,
    "logs": [],
    "dropped": [],
}
SPANS = model.encode_spans([model.Span(0, 1, 1, -1, 0)])


def frame(header: object, *blobs: bytes, flags: int = 0, raw: bytes | None = None) -> bytes:
    content = orjson.dumps(header) if raw is None else raw
    return START.pack(b"RFB1", len(content), flags) + content + b"".join(blobs)


def full() -> bytes:
    return model.encode_batch(
        model.parts_of(
            records.batch(
                records.flow_run(),
                records.node(0),
                records.block(0, model.Chunk(0)),
                dataclasses.replace(
                    records.task_run(1),
                    error=model.ErrorInfo(type="E", message="m", pickled=b"pickled"),
                ),
            )
        )
    )


def bomb(size: int) -> bytes:
    return zstandard.ZstdCompressor().compress(bytes(size))


def untold(content: bytes) -> bytes:
    """Compress without telling the size."""
    compressor = zstandard.ZstdCompressor(write_content_size=False)
    return compressor.compress(content)


def test_a_header_without_anything_is_a_batch() -> None:
    assert model.decode_batch(frame(HEADER)).records == ()


def test_every_truncated_batch_is_refused() -> None:
    whole = full()
    assert model.decode_batch(whole).blocks
    for end in range(len(whole)):
        with pytest.raises(errors.BatchError):
            model.decode_batch(whole[:end])
    with pytest.raises(errors.BatchError, match="1 bytes more than it says"):
        model.decode_batch(whole + b"x")


@settings(max_examples=300)
@given(data=st.data())
def test_a_damaged_batch_is_read_or_refused(data: st.DataObject) -> None:
    whole = bytearray(full())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(errors.BatchError):
        model.decode_batch(bytes(whole))


@pytest.mark.parametrize(
    ("header", "blobs"),
    [
        ([], ()),
        ("x", ()),
        ({}, ()),
        ({**HEADER, "run": 5}, ()),
        ({**HEADER, "seq": -1}, ()),
        ({**HEADER, "seq": "1"}, ()),
        ({**HEADER, "seq": True}, ()),
        ({**HEADER, "incarnation": 2**63}, ()),
        ({**HEADER, "bytes": [-1]}, ()),
        ({**HEADER, "bytes": [2**62]}, ()),
        ({**HEADER, "bytes": 5}, ()),
        ({**HEADER, "logs": [0]}, ()),
        ({**HEADER, "dropped": [[0]]}, ()),
        ({**HEADER, "task_runs": [[]]}, ()),
        ({**HEADER, "task_runs": [None]}, ()),
        ({**HEADER, "task_runs": {"a": 1}}, ()),
        ({**HEADER, "paces": [["f", "f", "t", "1", 2]]}, ()),
        ({**HEADER, "paces": [["f", "f", "t", [], 2]]}, ()),
        ({**HEADER, "states": [[0, [0], ["Running", 1, "", ""]]]}, ()),
        ({**HEADER, "states": [[0, [0, -1], ["Walking", 1, "", ""]]]}, ()),
        ({**HEADER, "states": [[0, [-1, -1], ["Running", 1, "", ""]]]}, ()),
        ({**HEADER, "blocks": [[0, len(SPANS)]]}, (SPANS,)),
        ({**HEADER, "blocks": [[0, len(SPANS), 0]]}, (SPANS,)),
        ({**HEADER, "blocks": [[0, 1, 1]]}, (b"ab",)),
        ({**HEADER, "graph": [0, 0]}, ()),
        ({**HEADER, "graph": [0, 0, 3]}, (b"abc",)),
    ],
)
def test_what_is_no_batch_is_refused(header: object, blobs: tuple[bytes, ...]) -> None:
    with pytest.raises(errors.BatchError):
        model.decode_batch(frame(header, *blobs))


@pytest.mark.parametrize("start", [b"", b"RFB1", b"RFB2" + bytes(9), b"RFB1" + bytes(4) + b"\x08"])
def test_what_does_not_begin_like_a_batch_is_refused(start: bytes) -> None:
    with pytest.raises(errors.BatchError):
        model.decode_batch(start)


@pytest.mark.parametrize(
    "span",
    [
        (0, 1, 200_000, -1, 0),
        (0, 1, 1, 0, 2**62),
        (0, 0, 1, -1, 0),
        (0, 1, 0, -1, 0),
        (-1, 1, 1, -1, 0),
        (0, 1, 1, 0, 0),
        (0, 1, 1, -2, 0),
        (0, 2**62, 2, -1, 0),
        (2**63, 1, 1, -1, 0),
        (0.5, 1, 1, -1, 0),
    ],
)
def test_blocks_of_impossible_task_runs_are_refused(span: tuple[int, ...]) -> None:
    spans = zstandard.ZstdCompressor().compress(orjson.dumps(list(span)))
    content = model.encode_log([model.LogLine(1.0, 20, "", "")])
    header = {**HEADER, "blocks": [[0, len(spans), len(content)]]}
    with pytest.raises(errors.BatchError):
        model.decode_batch(frame(header, spans, content))


def test_so_many_entries_are_refused() -> None:
    header = {**HEADER, "dropped": [1] * 100_001}
    with pytest.raises(errors.BatchError, match="no more than 100000"):
        model.decode_batch(frame(header))


def test_what_would_become_large_is_refused_unread() -> None:
    small, large = bomb(2 << 20), bomb(65 << 20)
    with pytest.raises(errors.BatchError, match="spans of a block cannot be read"):
        model.decode_batch(frame({**HEADER, "blocks": [[0, len(small), 0]]}, small))
    header = {**HEADER, "blocks": [[0, len(SPANS), len(large)]]}
    with pytest.raises(errors.BatchError, match="a block of task runs of 68157440 bytes"):
        model.decode_batch(frame(header, SPANS, large))
    with pytest.raises(errors.BatchError, match="a part of a graph of 68157440"):
        model.decode_batch(frame({**HEADER, "graph": [0, 0, len(large)]}, large))
    with pytest.raises(errors.BatchError, match="a log segment of 68157440"):
        model.decode_batch(frame({**HEADER, "logs": [len(large)]}, large))
    with pytest.raises(errors.BatchError, match="header of a batch cannot be read"):
        model.decode_batch(frame(None, flags=1, raw=large))


def test_what_hides_its_size_is_refused() -> None:
    header = orjson.dumps(HEADER)
    with pytest.raises(errors.BatchError, match="do not tell how large"):
        model.decode_batch(frame(None, flags=1, raw=untold(header)))
    hidden = untold(bytes(100))
    with pytest.raises(errors.BatchError, match="do not tell how large"):
        model.decode_batch(frame({**HEADER, "graph": [0, 0, len(hidden)]}, hidden))


def test_headers_that_nest_without_end_are_refused() -> None:
    deep = b"[" * 200_000
    for flags in (0, 2):
        with pytest.raises(errors.BatchError):
            model.decode_batch(frame(None, raw=deep, flags=flags))
    lists = json.dumps({**HEADER, "seq": 2**80}).encode()
    with pytest.raises(errors.BatchError):
        model.decode_batch(frame(None, raw=lists, flags=2))


@pytest.mark.parametrize(
    "decode", [model.decode_block, model.decode_spans, model.decode_graph, model.decode_log]
)
@pytest.mark.parametrize("data", [b"x", b"no frame at all", untold(b"[]"), bomb(9)[:-1]])
def test_what_is_kept_tells_its_size_or_is_damaged(decode: object, data: bytes) -> None:
    assert callable(decode)
    with pytest.raises(errors.BatchError, match="cannot be read"):
        decode(data)
