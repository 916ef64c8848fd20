"""What can be asked of the record."""

from __future__ import annotations

import dataclasses
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from raflow import errors, model
from raflow.model import FlowGraph, StateName, StateType, TaskRunKey
from raflow.store import FlowSummary, Store
from tests.store import records


def add(store: Store, *runs: model.FlowRun) -> None:
    for run in runs:
        assert store.apply(records.batch(run, flow_run_id=run.id))


# --- Flows ----------------------------------------------------------------------------------------


def test_flows_tell_how_their_runs_went(store: Store) -> None:
    done = StateName.COMPLETED
    add(
        store,
        records.flow_run("a", created_at=1, state_name=done),
        records.flow_run("b", created_at=3, state_name=StateName.RECOVERED),
        records.flow_run("c", created_at=2, state_name=StateName.TIMED_OUT),
        last := records.flow_run("d", created_at=4, flow="report"),
    )
    versions = [records.flow_version(fingerprint=f) for f in ("f1", "f2")]
    store.apply(records.batch(*versions, records.flow_version("never-ran"), flow_run_id="x"))
    assert store.flows() == [
        FlowSummary(name="report", versions=0, last_run=last, counts={StateType.RUNNING: 1}),
        FlowSummary(
            name="etl",
            versions=2,
            last_run=store.find_flow_run("b"),
            counts={StateType.COMPLETED: 2, StateType.FAILED: 1},
        ),
        FlowSummary(name="never-ran", versions=1, last_run=None, counts={}),
    ]


def test_a_version_shared_by_two_flows(store: Store) -> None:
    older, newer = records.flow_version("a", created_at=1), records.flow_version("b", created_at=2)
    store.apply(records.batch(older, newer))
    assert store.flow_version("f1") == newer
    assert store.flow_version("f1", flow="a") == older


def test_an_unknown_version_names_the_closest(store: Store) -> None:
    store.apply(records.batch(records.flow_version(fingerprint="abcdef")))
    with pytest.raises(errors.NotFoundError, match="'abcdef'"):
        store.flow_version("abcdeg")


# --- Flow runs ------------------------------------------------------------------------------------


def test_flow_runs_are_listed_newest_first_in_pages(store: Store) -> None:
    runs = [records.flow_run(f"run-{i}", created_at=i // 2) for i in range(7)]
    add(store, *runs)
    first = store.flow_runs(limit=3)
    rest = store.flow_runs(limit=None, before=(first[-1].created_at, first[-1].id))
    assert [*first, *rest] == runs[::-1]
    assert len(first) == 3


def test_flow_runs_can_be_filtered(store: Store) -> None:
    failed = records.flow_run("b", created_at=2, state_name=StateName.UPSTREAM_FAILED)
    child = records.flow_run("c", created_at=3, parent_id="b", flow="part")
    add(store, records.flow_run("a"), failed, child)
    assert store.flow_runs(state_types={StateType.FAILED}) == [failed]
    assert store.flow_runs(state_types=[]) == []
    assert store.flow_runs(flow="part") == [child]
    assert store.flow_runs(parent="b") == [child]
    assert [run.id for run in store.flow_runs(roots=True)] == ["b", "a"]
    assert store.flow_runs(flow="part", roots=True) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0198-aaaa-01", "0198-aaaa-01"),
        ("0198-b", "0198-bbbb-02"),
        ("02", "0198-bbbb-02"),
        ("calm-otter", "0198-aaaa-01"),
        ("0198-aaaa", "0198-aaaa"),
        ("latest", "0198-bbbb-02"),
    ],
    ids=["id", "beginning", "end", "name", "id before beginning", "latest"],
)
def test_a_flow_run_is_found_by(store: Store, text: str, found: str) -> None:
    add(
        store,
        records.flow_run("0198-aaaa-01", name="calm-otter", created_at=1),
        records.flow_run("0198-bbbb-02", name="quick-fox", created_at=3),
        records.flow_run("0198-aaaa", created_at=2),
        records.flow_run("child-of-b", created_at=4, parent_id="0198-bbbb-02"),
    )
    assert store.find_flow_run(text).id == found


def test_what_fits_several_flow_runs_is_refused(store: Store) -> None:
    add(store, *(records.flow_run(f"0198-{i}", name="nightly", created_at=i) for i in range(7)))
    with pytest.raises(errors.NotFoundError, match="'0198' fits 7 flow runs") as caught:
        store.find_flow_run("0198")
    assert caught.value.closest == [f"0198-{i}" for i in (6, 5, 4, 3, 2)]
    with pytest.raises(errors.NotFoundError, match="'nightly' fits 7 flow runs"):
        store.find_flow_run("nightly")
    with pytest.raises(errors.NotFoundError, match="fits 7 flow runs"):
        store.find_flow_run("")


def test_case_counts_in_ids(store: Store) -> None:
    add(store, records.flow_run("abc"), records.flow_run("ABCD"))
    assert store.find_flow_run("AB").id == "ABCD"
    with pytest.raises(errors.NotFoundError):
        store.find_flow_run("aB")


def test_signs_that_mean_something_to_like_mean_nothing(store: Store) -> None:
    add(store, records.flow_run("abc"))
    for text in ("a%", "_bc", "%"):
        with pytest.raises(errors.NotFoundError):
            store.find_flow_run(text)


def test_an_unknown_flow_run_names_the_closest(store: Store) -> None:
    add(store, records.flow_run("0198", name="calm-otter"))
    with pytest.raises(errors.NotFoundError, match="Did you mean 'calm-otter'") as caught:
        store.find_flow_run("calm-oter")
    assert caught.value.closest == ["calm-otter"]


def test_latest_of_nothing_says_how_to_make_one(store: Store) -> None:
    with pytest.raises(errors.NotFoundError, match="raflow run"):
        store.find_flow_run("latest")


# --- Inside a flow run ----------------------------------------------------------------------------


@pytest.fixture
def mapped(store: Store) -> Store:
    """A store with a run of a map of ten items, the last three failed, and one more task."""
    names = [StateName.COMPLETED] * 6 + [StateName.RECOVERED] + [StateName.FAILED] * 3
    items = [records.task_run(0, i, state_name=name) for i, name in enumerate(names)]
    other = records.task_run(1, state_name=StateName.UPSTREAM_FAILED)
    assert store.apply(records.batch(records.flow_run(), *items, other))
    assert store.apply(
        records.batch(records.flow_run("2"), records.task_run(flow_run_id="2"), flow_run_id="2")
    )
    return store


def test_task_runs_by_state_and_node(mapped: Store) -> None:
    failed = mapped.task_runs(records.RUN, state_types={StateType.FAILED})
    assert [run.key for run in failed] == [(0, 7), (0, 8), (0, 9), (1, -1)]
    failed_items = mapped.task_runs(records.RUN, state_types={StateType.FAILED}, node=0)
    assert [run.key.map_index for run in failed_items] == [7, 8, 9]
    assert mapped.task_runs("unknown") == []


def test_the_failed_of_many_are_found_by_index(sqlite_url: str, tmp_path: Path) -> None:
    with Store.open(sqlite_url, log_dir=tmp_path) as store:
        statements: list[tuple[str, Any]] = []
        engine = store._database.reader

        @sa.event.listens_for(engine, "before_cursor_execute")
        def _keep(
            _connection: object, _cursor: object, sql: str, parameters: Any, *_: object
        ) -> None:
            statements.append((sql, parameters))

        store.task_runs(records.RUN, state_types={StateType.FAILED}, node=0, limit=50)
        (sql, parameters) = statements[-1]
        with closing(sqlite3.connect(tmp_path / "home" / "raflow.db")) as connection:
            plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters).fetchall()
    assert any("(flow_run=? AND state=? AND node=?)" in step[3] for step in plan), plan


def test_task_runs_come_in_pages(mapped: Store) -> None:
    page = mapped.task_runs(records.RUN, limit=9)
    rest = mapped.task_runs(records.RUN, after=page[-1].key)
    assert [run.key for run in (*page, *rest)] == [*((0, i) for i in range(10)), (1, -1)]
    assert len(page) == 9


def test_counts_by_node_and_state(mapped: Store) -> None:
    assert mapped.task_run_counts(records.RUN) == {
        0: {StateType.COMPLETED: 7, StateType.FAILED: 3},
        1: {StateType.FAILED: 1},
    }
    assert mapped.task_run_counts("unknown") == {}


def test_those_that_recovered_are_counted(mapped: Store) -> None:
    assert mapped.recovered_counts("unknown") == {}
    before = mapped.recovered_counts(records.RUN)
    again = [
        records.task_run(node, item, state_name=StateName.RECOVERED)
        for node, item in [(0, 1), (0, 3), (1, 0)]
    ]
    assert mapped.apply(records.batch(*again, seq=77))
    after = mapped.recovered_counts(records.RUN)
    assert after == {0: before.get(0, 0) + 2, 1: before.get(1, 0) + 1}


def attempt(key: TaskRunKey, number: int) -> model.Attempt:
    return model.Attempt(
        flow_run_id=records.RUN,
        key=key,
        number=number,
        outcome=model.Outcome.FAILED,
        submitted_at=1,
        started_at=2,
        ended_at=3,
    )


def test_attempts_in_order(store: Store) -> None:
    one, two = TaskRunKey(0), TaskRunKey(1, 5)
    tried = [attempt(one, 1), attempt(one, 2), attempt(two, 1)]
    store.apply(records.batch(records.flow_run(), *tried[::-1]))
    assert store.attempts(records.RUN) == tried
    assert store.attempts(records.RUN, one) == tried[:2]
    assert store.attempts(records.RUN, TaskRunKey(1)) == []


def test_states_of_a_task_run_and_of_the_flow_run(store: Store) -> None:
    key = TaskRunKey(0)
    own = [
        records.state_change(0, None, StateName.PENDING),
        records.state_change(4, None, StateName.COMPLETED),
    ]
    of_task = [
        records.state_change(2, key, StateName.SUBMITTED),
        records.state_change(10, key, StateName.COMPLETED),
    ]
    store.apply(records.batch(records.flow_run(), *of_task[::-1], *own[::-1]))
    assert store.states(records.RUN) == own
    assert store.states(records.RUN, key=key) == of_task


def test_results(store: Store) -> None:
    result = model.ResultInfo(type="builtins.int", size=28, preview="7", inline=b"7")
    flow_run = dataclasses.replace(records.flow_run(), result=result)
    store.apply(records.batch(flow_run, records.task_run(0, result=result), records.task_run(1)))
    assert store.result(records.RUN) == result
    assert store.result(records.RUN, TaskRunKey(0)) == result
    assert store.result(records.RUN, TaskRunKey(1)) is None
    assert store.result(records.RUN, TaskRunKey(2)) is None
    assert store.result("unknown") is None


# --- The graph ------------------------------------------------------------------------------------


def edge(source: int, target: int, **more: object) -> model.Edge:
    return model.Edge(source=source, target=target, **more)  # type: ignore[arg-type]


def test_the_graph_comes_back(store: Store) -> None:
    graph = FlowGraph.of(
        "etl",
        [records.node(i, kind=kind).nodes[0] for i, kind in enumerate(model.NodeKind)],
        [
            edge(0, 1, kind=model.EdgeKind.ITEM, parameter="day"),
            edge(0, 2, parameter="left"),
            edge(0, 2, parameter="right", allow_failure=True),
            edge(1, 2, kind=model.EdgeKind.ORDER),
            edge(1, 2, parameter="rest", source_item=3),
            edge(1, 2, parameter="rest", source_item=4),
        ],
    )
    nodes = [model.GraphRecord(flow_run_id=records.RUN, nodes=(n,)) for n in graph.nodes]
    edges = [model.GraphRecord(flow_run_id=records.RUN, edges=(e,)) for e in graph.edges]
    store.apply(records.batch(records.flow_run(), *nodes[::-1], *edges[::-1]))
    kept = store.graph(records.RUN)
    assert set(kept.edges) == set(graph.edges)
    assert dataclasses.replace(kept, edges=graph.edges) == graph


def test_the_graphs_of_subflows_are_inside(store: Store) -> None:
    parents = {"child": records.RUN, "grandchild": "child", "retried": records.RUN}
    add(store, records.flow_run(records.RUN))
    for at, (run_id, parent) in enumerate(parents.items()):
        run = records.flow_run(
            run_id, flow=run_id, parent_id=parent, parent_node=1, created_at=float(at)
        )
        node = records.node(at, flow_run_id=run_id)
        store.apply(records.batch(run, node, flow_run_id=run_id))
    add(store, records.flow_run("by-hand", parent_id=records.RUN))
    graph = store.graph(records.RUN)
    assert {node: sub.flow for node, sub in graph.subgraphs.items()} == {1: "retried"}
    below = store.graph("child").subgraphs[1]
    assert (below.flow, [node.key for node in below.nodes]) == ("grandchild", ["extract-1"])


def test_no_graph_without_a_run(store: Store) -> None:
    with pytest.raises(errors.NotFoundError, match="No flow run 'unknown'"):
        store.graph("unknown")
