"""A resumed flow run reads its own past in pages, and goes on counting where it stopped."""

from __future__ import annotations

import dataclasses

from raflow import model
from raflow.model import Chunk, Edge, RunNumbers, StateName, TaskRunKey
from raflow.store import Store
from tests.store import records

RUN = records.RUN


def test_a_run_that_nobody_recorded_has_no_past(store: Store) -> None:
    assert store.recall.numbers(RUN) == RunNumbers()
    assert list(store.recall.blocks(RUN)) == []
    assert list(store.recall.rows(RUN)) == []
    assert store.recall.nodes(RUN) == []
    assert store.recall.edges(RUN) == []


def test_where_a_run_goes_on_counting(store: Store) -> None:
    segment = model.LogSegment(
        flow_run_id=RUN,
        number=5,
        key=TaskRunKey(0),
        attempt=1,
        file="not-written.log",
        offset=0,
        length=1,
        lines=1,
        first_at=1.0,
        last_at=1.0,
        level=20,
    )
    changes = [
        records.state_change(7, None, StateName.PENDING),
        records.state_change(9, TaskRunKey(0), StateName.PENDING),
        records.state_change(8, TaskRunKey(5), StateName.PENDING),
    ]
    store.apply(records.batch(records.flow_run(), records.node(0)))
    assert store.recall.numbers(RUN) == RunNumbers(batch=1)
    store.apply(records.batch(*changes, segment, records.block(3, Chunk(0)), seq=4))
    store.apply(records.batch(records.flow_run("other"), seq=70, flow_run_id="other"))
    assert store.recall.numbers(RUN) == RunNumbers(batch=5, change=10, block=4, segment=6)


def test_blocks_and_rows_come_in_pages(store: Store) -> None:
    items = [records.task_run(1, item, state_name=StateName.FAILED) for item in range(2_500)]
    blocks = [records.block(number, Chunk(0, number, number + 1)) for number in range(40)]
    store.apply(records.batch(records.flow_run(), *reversed(items), *reversed(blocks)))
    other = records.flow_run("other")
    store.apply(records.batch(other, records.task_run(flow_run_id="other"), flow_run_id="other"))
    assert list(store.recall.rows(RUN)) == items
    assert list(store.recall.blocks(RUN)) == blocks


def test_nothing_stays_open_between_pages(store: Store) -> None:
    items = [records.task_run(0, item) for item in range(1_500)]
    store.apply(records.batch(records.flow_run(), *items))
    half_read = [store.recall.rows(RUN) for _ in range(12)]
    assert [next(rows) for rows in half_read] == [items[0]] * 12
    assert store.apply(records.batch(records.task_run(9), seq=1))
    assert [list(rows) for rows in half_read] == [[*items[1:], records.task_run(9)]] * 12


def test_the_graph_of_the_run_itself(store: Store) -> None:
    edge = model.Edge(source=0, target=1, kind=model.EdgeKind.DATA, parameter="x")
    parts = (records.node(0), records.mapped(1, None), records.mapped(1, 3))
    first, mapped, longer = (part.nodes[0] for part in parts)
    for seq, nodes in enumerate(((first, mapped), (longer,))):
        part = model.GraphRecord(flow_run_id=RUN, nodes=nodes, edges=(edge,))
        store.apply(records.batch(records.flow_run(), part, seq=seq))
    child = dataclasses.replace(records.flow_run("child"), parent_id=RUN, parent_node=0)
    store.apply(records.batch(child, records.node(0, flow_run_id="child"), flow_run_id="child"))
    assert store.recall.nodes(RUN) == [first, longer]
    assert store.recall.edges(RUN) == [edge]
    assert store.graph(RUN).nodes == tuple(store.recall.nodes(RUN))


def test_of_calls_that_are_dropped_nothing_is_left(store: Store) -> None:
    edges = [Edge(source=0, target=1), Edge(source=0, target=2), Edge(source=1, target=3)]
    old = model.GraphRecord(RUN, [_node(n, f"old-{n}") for n in range(4)], edges)
    store.apply(records.batch(records.flow_run(), old))
    mixed = records.block(0, Chunk(0), Chunk(1), Chunk(2, 0, 3), labels={0: "zero", 1: "one"})
    alone = records.block(1, Chunk(1), Chunk(3))
    rows = [records.task_run(2, 5), records.task_run(0, 7)]
    changes = [records.state_change(n, TaskRunKey(n), StateName.RUNNING) for n in range(4)]
    store.apply(records.batch(mixed, alone, *rows, *changes, seq=1))
    new = model.GraphRecord(
        RUN, [_node(1, "new-1"), _node(3, "new-3")], [Edge(source=2, target=3)], [1, 3]
    )
    stale, fresh = records.task_run(1, 9), records.task_run(3)
    store.apply(records.batch(stale, new, fresh, seq=2))
    assert [n.key for n in store.recall.nodes(RUN)] == ["old-0", "new-1", "old-2", "new-3"]
    assert store.recall.edges(RUN) == [edges[1], Edge(source=2, target=3)]
    (left,) = store.recall.blocks(RUN)
    assert left.chunks == (Chunk(0), Chunk(2, 0, 3))
    assert (left.plain, left.labels) == (b"[0,2,3,4]", {0: "zero"})
    assert list(left.ended_at) == [mixed.ended_at[n] for n in (0, 2, 3, 4)]
    assert list(store.recall.rows(RUN)) == [rows[1], rows[0], fresh]
    assert [len(store.states(RUN, key=TaskRunKey(n))) > 0 for n in range(4)] == [
        True,
        False,
        True,
        False,
    ]
    store.apply(records.batch(model.GraphRecord(RUN, dropped=[2, 3]), seq=3))
    assert [n.key for n in store.recall.nodes(RUN)] == ["old-0", "new-1"]
    assert list(store.recall.rows(RUN)) == [rows[1]]


def _node(node: int, key: str) -> model.GraphNode:
    return model.GraphNode(id=node, key=key, kind=model.NodeKind.TASK, name="task")
