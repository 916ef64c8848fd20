"""Blocks: made from what a batch reported, written as bytes, read as the records they stand for."""

from __future__ import annotations

import dataclasses
import json
from array import array
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raflow import model
from raflow.model import (
    Attempt,
    BatchReport,
    BlockReader,
    CallReport,
    Chunk,
    GraphNode,
    NodeKind,
    Outcome,
    Place,
    ResultInfo,
    State,
    StateName,
    TaskRun,
    TaskRunBlock,
    TaskRunKey,
)

PLACE = Place(7, "host-a", "node-a")


def report(size: int, **changes: object) -> BatchReport:
    whole = BatchReport(
        batch=1,
        place=PLACE,
        started_at=array("d", [100 + n for n in range(size)]),
        ended_at=array("d", [100.5 + n for n in range(size)]),
        cpu_seconds=array("d", [n / 8 for n in range(size)]),
        peak_memory=1 << 20,
        plain=json.dumps(list(range(size))).encode(),
    )
    return dataclasses.replace(whole, **changes)  # type: ignore[arg-type]


def completed(told: BatchReport, *chunks: tuple[Chunk, int]) -> TaskRunBlock:
    return model.completed_block(told, chunks, flow_run_id="r", number=3, submitted_at=99.5)


def values(block: TaskRunBlock) -> list[str]:
    reader = BlockReader(block)
    results = [reader.result(position) for position in range(block.size)]
    return ["" if info is None else info.preview for info in results]


def call(position: int, **changes: object) -> CallReport:
    simple = CallReport(
        run=TaskRunKey(position),
        attempt=1,
        outcome=Outcome.COMPLETED,
        started_at=100.0 + position,
        ended_at=100.5 + position,
    )
    return dataclasses.replace(simple, **changes)  # type: ignore[arg-type]


# --- Making blocks --------------------------------------------------------------------------------


def test_a_batch_that_completed_is_a_block_without_copies() -> None:
    told = report(5)
    block = completed(told, (Chunk(0), 0), (Chunk(1, 10, 13), 1), (Chunk(2), 4))
    assert block.started_at is told.started_at
    assert block.ended_at is told.ended_at
    assert block.cpu_seconds is told.cpu_seconds
    assert block.plain is told.plain
    assert block.chunks == (Chunk(0), Chunk(1, 10, 13), Chunk(2))
    assert (block.size, block.place, block.peak_memory) == (5, PLACE, 1 << 20)
    assert (block.flow_run_id, block.number, block.submitted_at) == ("r", 3, 99.5)


@pytest.mark.parametrize(
    ("chunks", "positions"),
    [
        ([(Chunk(0, 0, 3), 0)], [0, 1, 2]),
        ([(Chunk(0, 3, 6), 3)], [3, 4, 5]),
        ([(Chunk(0, 0, 2), 0), (Chunk(0, 3, 4), 3), (Chunk(0, 4, 6), 4)], [0, 1, 3, 4, 5]),
        ([(Chunk(9), 5), (Chunk(0), 0)], [5, 0]),
        ([], []),
    ],
    ids=["beginning", "end", "gap", "other order", "nothing"],
)
def test_a_block_of_some_calls_of_a_batch(
    chunks: Sequence[tuple[Chunk, int]], positions: Sequence[int]
) -> None:
    kinds = {n: ResultInfo(type="T", size=1, preview=f"object {n}") for n in (1, 4)}
    told = report(6, results=kinds, told={5: call(5, label="five")})
    block = completed(told, *chunks)
    assert list(block.started_at) == [100 + n for n in positions]
    assert list(block.ended_at) == [100.5 + n for n in positions]
    assert list(block.cpu_seconds) == [n / 8 for n in positions]
    assert values(block) == [f"object {n}" if n in kinds else str(n) for n in positions]
    assert list(block.labels) == [at for at, n in enumerate(positions) if n == 5]


def test_calls_that_logged_or_were_named_are_in_the_block() -> None:
    info = ResultInfo(type="T", size=1, preview="a list")
    told = {
        1: call(1, label="named", result=info),
        2: call(2, outcome=Outcome.FAILED, label="failed", result=info),
    }
    block = completed(report(4, told=told), (Chunk(0), 0), (Chunk(1), 1), (Chunk(3), 3))
    assert values(block) == ["0", "a list", "3"]
    assert block.labels == {1: "named"}


def test_a_block_without_values() -> None:
    block = completed(report(2, plain=b""), (Chunk(0, 0, 2), 0))
    assert values(block) == ["", ""]


def test_what_happened_to_one_call_of_a_batch() -> None:
    failed = call(1, outcome=Outcome.FAILED)
    info = ResultInfo(type="T", size=1, preview="a list")
    told = report(4, told={1: failed}, results={2: info}, unstarted=[3])
    key = TaskRunKey(5, 8)
    first = model.call_report(told, 0, run=key, attempt=2)
    assert first == CallReport(
        run=key,
        attempt=2,
        outcome=Outcome.COMPLETED,
        started_at=100,
        ended_at=100.5,
        peak_memory=1 << 20,
        pid=7,
        host="host-a",
        node_id="node-a",
        result=model.describe_plain(0),
    )
    assert model.call_report(told, 1, run=key, attempt=2) is failed
    third = model.call_report(told, 2, run=key, attempt=2)
    assert third is not None
    assert third.result is info
    assert model.call_report(told, 3, run=key, attempt=2) is None
    nothing = model.call_report(report(1, plain=b""), 0, run=key, attempt=1)
    assert nothing is not None
    assert nothing.result is None


# --- Bytes ----------------------------------------------------------------------------------------

doubles = st.floats(allow_nan=False)
counts = st.integers(0, 2**53)
texts = st.text(max_size=5)
result_infos = st.builds(
    ResultInfo,
    type=texts,
    size=counts,
    preview=texts,
    length=st.none() | counts,
    truth=st.none() | st.booleans(),
    serializer=st.sampled_from(["", "json", "pickle"]),
    inline=st.none() | st.binary(max_size=9),
    url=texts,
    digest=texts,
)
singles = st.integers(0, 300).map(Chunk)
items = st.tuples(st.integers(0, 300), st.integers(0, 2**31), st.integers(1, 5)).map(
    lambda drawn: Chunk(drawn[0], drawn[1], drawn[1] + drawn[2])
)
chunk_lists = st.lists(singles | items, max_size=12).map(tuple)


@st.composite
def blocks(draw: st.DrawFn) -> TaskRunBlock:
    chunks = draw(chunk_lists)
    size = sum(chunk.size for chunk in chunks)
    columns = st.lists(doubles, min_size=size, max_size=size).map(lambda n: array("d", n))
    positions = st.integers(0, max(size - 1, 0))
    return TaskRunBlock(
        flow_run_id=draw(texts),
        number=draw(counts),
        chunks=chunks,
        submitted_at=draw(st.floats(allow_nan=False, allow_infinity=False)),
        started_at=draw(columns),
        ended_at=draw(columns),
        cpu_seconds=draw(columns),
        place=Place(draw(counts), draw(texts), draw(texts)),
        peak_memory=draw(counts),
        plain=draw(st.binary(max_size=20)),
        results=draw(st.dictionaries(positions, result_infos, max_size=3)),
        labels=draw(st.dictionaries(positions, texts, max_size=3)),
    )


@given(block=blocks())
def test_a_block_comes_back_equal(block: TaskRunBlock) -> None:
    assert model.decode_block(model.encode_block(block)) == block
    spans = model.spans_of(block.chunks)
    assert model.encode_block(block, spans=spans) == model.encode_block(block)
    assert model.decode_spans(model.encode_spans(spans)) == spans
    assert sum(span.size for span in spans) == block.size


def test_text_that_is_no_unicode_is_written_out() -> None:
    block = completed(report(1), (Chunk(0), 0))
    odd = ResultInfo(type="T", size=1, preview="\udcff", inline=b"\xff")
    block = dataclasses.replace(block, labels={0: "file-\udcff"}, results={0: odd})
    back = model.decode_block(model.encode_block(block))
    assert back.labels == {0: "file-\\udcff"}
    assert back.results == {0: dataclasses.replace(odd, preview="\\udcff")}


@pytest.mark.parametrize(
    ("nodes", "spans"),
    [
        (range(1000), 1),
        (range(0, 1000, 2), 1),
        ([*range(0, 100, 2), *range(1, 100, 2)], 2),
        ([5, 4, 3], 3),
        ([0, 1000, 2000], 3),
    ],
    ids=["neighbours", "every second", "two loops", "backwards", "far apart"],
)
def test_many_calls_take_few_spans(nodes: Sequence[int], spans: int) -> None:
    found = model.spans_of(map(Chunk, nodes))
    assert len(found) == spans
    assert [node for span in found for node in span.node_ids] == list(nodes)


def test_a_block_is_small() -> None:
    size = 5000
    ends = [1.8e9 + n * 5.3e-6 for n in range(size + 1)]
    columns = {"started_at": array("d", ends[:-1]), "ended_at": array("d", ends[1:])}
    plain = json.dumps([None] * size).encode()
    told = report(size, plain=plain, cpu_seconds=array("d", [4e-6] * size), **columns)
    block = completed(told, *((Chunk(n), n) for n in range(size)))
    assert len(model.encode_block(block)) < 8 * size


# --- Reading --------------------------------------------------------------------------------------


def test_the_records_that_a_block_stands_for() -> None:
    block = completed(report(3), (Chunk(0, 4, 6), 0), (Chunk(1), 2))
    block = dataclasses.replace(block, labels={1: "named"})
    reader = BlockReader(block)
    node = GraphNode(0, "load-0", NodeKind.MAP, "load", length=9, created_at=98.0)
    keys = [TaskRunKey(0, 4), TaskRunKey(0, 5), TaskRunKey(1)]
    assert reader.keys == keys
    assert [reader.position(key) for key in (*keys, TaskRunKey(0, 6))] == [0, 1, 2, None]
    assert reader.task_run(0, keys[0], node) == TaskRun(
        flow_run_id="r",
        key=keys[0],
        task="load",
        label="load-0[4]",
        state=State(name=StateName.COMPLETED, at=100.5),
        attempts=1,
        created_at=98.0,
        started_at=100.0,
        ended_at=100.5,
        result=model.describe_plain(0),
    )
    assert reader.task_run(1, keys[1], node).label == "named"
    assert reader.attempt(2, keys[2]) == Attempt(
        flow_run_id="r",
        key=keys[2],
        number=1,
        outcome=Outcome.COMPLETED,
        submitted_at=99.5,
        started_at=102.0,
        ended_at=102.5,
        cpu_seconds=0.25,
        peak_memory=1 << 20,
        pid=7,
        host="host-a",
        node_id="node-a",
    )
    assert [(state.name, state.at) for state in reader.states(2)] == [
        (StateName.SUBMITTED, 99.5),
        (StateName.RUNNING, 102.0),
        (StateName.COMPLETED, 102.5),
    ]


@pytest.mark.parametrize(
    ("node", "item", "label"),
    [
        (GraphNode(0, "load-0", NodeKind.TASK, "load"), -1, "load-0"),
        (GraphNode(0, "load-0", NodeKind.TASK, "load", "mine"), -1, "mine"),
        (GraphNode(0, "load-0", NodeKind.MAP, "load", "load-0"), 3, "load-0[3]"),
    ],
)
def test_labels(node: GraphNode, item: int, label: str) -> None:
    pending = model.pending_run("r", node._replace(created_at=4.0), item)
    assert (pending.label, pending.task, pending.key) == (label, "load", (0, item))
    assert pending.state == State(name=StateName.PENDING, at=4.0)
