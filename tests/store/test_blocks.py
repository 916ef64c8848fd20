"""Task runs in rows, in blocks and in neither are read as if each had a row."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raflow import model
from raflow.model import (
    Attempt,
    BlockReader,
    Chunk,
    GraphNode,
    GraphRecord,
    NodeKind,
    Outcome,
    StateName,
    StateType,
    TaskPace,
    TaskRun,
    TaskRunBlock,
    TaskRunKey,
)
from raflow.store import Store
from tests.store import records

RUN = records.RUN
_numbers = itertools.count()


# --- What a run recorded, and what must be read from it -------------------------------------------


@dataclasses.dataclass(frozen=True)
class World:
    """A flow run's nodes, blocks and rows."""

    run_id: str
    nodes: Sequence[GraphNode]
    blocks: Sequence[TaskRunBlock]
    rows: Sequence[TaskRun]

    def expected(self) -> list[TaskRun]:
        """Return the task runs in the order of keys, in the plainest way."""
        found: dict[TaskRunKey, TaskRun] = {}
        by_id = {node.id: node for node in self.nodes}
        for node in self.nodes:
            for item in range(node.length) if node.length is not None else (-1,):
                found[TaskRunKey(node.id, item)] = model.pending_run(self.run_id, node, item)
        unknown = {n.id for n in self.nodes if n.kind is NodeKind.MAP and n.length is None}
        recorded = {run.key.node for run in self.rows}
        for block in self.blocks:
            reader = BlockReader(block)
            for position, key in enumerate(reader.keys):
                found[key] = reader.task_run(position, key, by_id[key.node])
                recorded.add(key.node)
        for node_id in unknown & recorded:
            del found[TaskRunKey(node_id)]
        found.update((run.key, run) for run in self.rows)
        return [found[key] for key in sorted(found)]

    def write(self, store: Store) -> None:
        """Write it in batches, as a run that goes on would."""
        nodes: list[model.Record] = [
            GraphRecord(flow_run_id=self.run_id, nodes=(node,)) for node in self.nodes
        ]
        parts: list[list[model.Record]] = [[records.flow_run(self.run_id)]]
        parts += [nodes[: len(nodes) // 2], nodes[len(nodes) // 2 :]]
        parts += [[block] for block in self.blocks]
        parts.append(list(self.rows))
        for seq, part in enumerate(parts):
            assert store.apply(records.batch(*part, seq=seq, flow_run_id=self.run_id))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    run_id = f"run-{next(_numbers)}"
    shapes = draw(st.lists(st.sampled_from([None, -1, 0, 1, 5, 12]), min_size=1, max_size=8))
    nodes = [_node(node_id, shape) for node_id, shape in enumerate(shapes)]
    keys = [
        TaskRunKey(node.id, item)
        for node, shape in zip(nodes, shapes, strict=True)
        for item in (range(-1, 0) if shape is None else range(7 if shape < 0 else shape))
    ]
    places = draw(st.lists(st.sampled_from("brbnbbnr"), min_size=len(keys), max_size=len(keys)))
    in_blocks = [key for key, place in zip(keys, places, strict=True) if place == "b"]
    in_rows = {key for key, place in zip(keys, places, strict=True) if place == "r"}
    in_rows |= set(draw(st.lists(st.sampled_from(in_blocks), max_size=3))) if in_blocks else set()
    chunks = draw(st.permutations(list(_chunks(in_blocks))))
    cut = draw(st.integers(0, len(chunks)))
    labels = draw(st.dictionaries(st.integers(0, 3), st.text(min_size=1, max_size=3), max_size=2))
    blocks = [
        records.block(number, *part, flow_run_id=run_id, at=number * 10.0, labels=labels)
        for number, part in enumerate((chunks[:cut], chunks[cut:]))
        if part
    ]
    names = st.sampled_from([StateName.FAILED, StateName.RECOVERED, StateName.RUNNING])
    rows = [records.task_run(*key, state_name=draw(names), flow_run_id=run_id) for key in in_rows]
    return World(run_id, nodes, blocks, rows)


def _node(node_id: int, shape: int | None) -> GraphNode:
    kind = NodeKind.TASK if shape is None else NodeKind.MAP
    length = None if shape is None or shape < 0 else shape
    key = f"extract-{node_id}"
    return GraphNode(node_id, key, kind, "extract", key, length=length, created_at=float(node_id))


def _chunks(keys: Sequence[TaskRunKey]) -> Iterator[Chunk]:
    """Yield chunks of neighbours among keys in order."""
    chunk: Chunk | None = None
    for node, item in keys:
        if chunk is not None and (chunk.node, chunk.stop) == (node, item):
            chunk = chunk._replace(stop=item + 1)
            continue
        if chunk is not None:
            yield chunk
        chunk = Chunk(node, item, item + 1)
    if chunk is not None:
        yield chunk


many = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)


@many
@given(world=worlds(), types=st.sets(st.sampled_from([*StateType][:6]), min_size=1))
def test_rows_blocks_and_nodes_are_read_as_one(
    store: Store, world: World, types: set[StateType]
) -> None:
    world.write(store)
    expected = world.expected()
    assert store.task_runs(world.run_id) == expected
    of_types = [run for run in expected if run.state.type in types]
    assert store.task_runs(world.run_id, state_types=types) == of_types
    for node in world.nodes:
        of_node = [run for run in expected if run.key.node == node.id]
        assert store.task_runs(world.run_id, node=node.id) == of_node
    counts: dict[int, Counter[StateType]] = defaultdict(Counter)
    for run in expected:
        counts[run.key.node][run.state.type] += 1
    found = store.task_run_counts(world.run_id)
    assert {node: by_type for node, by_type in found.items() if by_type} == counts


@many
@given(world=worlds(), size=st.integers(1, 4), data=st.data())
def test_pages_lose_nothing(store: Store, world: World, size: int, data: st.DataObject) -> None:
    world.write(store)
    kinds = [
        None,
        {StateType.PENDING},
        {StateType.COMPLETED},
        {StateType.FAILED},
        {StateType.PENDING, StateType.RUNNING},
    ]
    types = data.draw(st.sampled_from(kinds))
    node = data.draw(st.none() | st.sampled_from([n.id for n in world.nodes]))
    pages: list[TaskRun] = []
    while page := store.task_runs(
        world.run_id,
        state_types=types,
        node=node,
        limit=size,
        after=pages[-1].key if pages else None,
    ):
        assert len(page) <= size
        pages += page
    assert pages == store.task_runs(world.run_id, state_types=types, node=node)


@many
@given(world=worlds())
def test_results_states_and_attempts_of_blocks(store: Store, world: World) -> None:
    world.write(store)
    rows = {run.key for run in world.rows}
    attempts: list[Attempt] = []
    for block in world.blocks:
        reader = BlockReader(block)
        for position, key in enumerate(reader.keys):
            assert store.attempts(world.run_id, key) == [reader.attempt(position, key)]
            attempts.append(reader.attempt(position, key))
            result = None if key in rows else reader.result(position)
            assert store.result(world.run_id, key) == result
            names = [change.state.name for change in store.states(world.run_id, key=key)]
            assert names[-3:] == [StateName.SUBMITTED, StateName.RUNNING, StateName.COMPLETED]
    assert store.attempts(world.run_id) == sorted(attempts, key=lambda attempt: attempt.key)


# --- One by one -----------------------------------------------------------------------------------


def write(store: Store, *parts: model.Record, seq: int = 0) -> None:
    assert store.apply(records.batch(records.flow_run(), *parts, seq=seq))


def test_what_a_task_run_in_a_block_went_through(store: Store) -> None:
    write(store, records.mapped(0, 2), records.block(0, Chunk(0, 0, 1)))
    changes = store.states(RUN, key=TaskRunKey(0, 0))
    assert [(change.state.name, change.state.at) for change in changes] == [
        (StateName.PENDING, 50.0),
        (StateName.SUBMITTED, 100.0),
        (StateName.RUNNING, 101.0),
        (StateName.COMPLETED, 101.5),
    ]
    assert all(change.number < 0 for change in changes)
    (pending,) = store.states(RUN, key=TaskRunKey(0, 1))
    assert pending.state == model.State(name=StateName.PENDING, at=50.0)
    assert store.states(RUN, key=TaskRunKey(0, 2)) == []
    assert store.states(RUN, key=TaskRunKey(1)) == []


def test_states_that_were_recorded_count_before_those_of_a_block(store: Store) -> None:
    key = TaskRunKey(0, 0)
    told = records.state_change(3, key, StateName.RUNNING)
    told = dataclasses.replace(told, state=model.State(name=StateName.RUNNING, at=100.75))
    write(store, records.mapped(0, 1), records.block(0, Chunk(0, 0, 1)), told)
    changes = store.states(RUN, key=key)
    assert changes[2] == told
    assert [change.state.name for change in changes] == [
        StateName.PENDING,
        StateName.SUBMITTED,
        StateName.RUNNING,
        StateName.COMPLETED,
    ]


def test_an_attempt_after_the_one_in_the_block(store: Store) -> None:
    # A value was lost and made again.
    again = Attempt(
        flow_run_id=RUN,
        key=TaskRunKey(0, 1),
        number=2,
        outcome=Outcome.COMPLETED,
        submitted_at=200,
        started_at=201,
        ended_at=202,
    )
    write(store, records.mapped(0, 3), records.block(0, Chunk(0, 0, 3)), again)
    assert [attempt.number for attempt in store.attempts(RUN, again.key)] == [1, 2]
    assert [(a.key.map_index, a.number) for a in store.attempts(RUN)] == [
        (0, 1),
        (1, 1),
        (1, 2),
        (2, 1),
    ]


def test_a_map_whose_length_becomes_known(store: Store) -> None:
    write(store, records.mapped(0, None), records.node(1))
    assert [run.key for run in store.task_runs(RUN)] == [(0, -1), (1, -1)]
    write(store, records.block(0, Chunk(0, 0, 2)), seq=1)
    assert [run.key for run in store.task_runs(RUN)] == [(0, 0), (0, 1), (1, -1)]
    assert store.task_run_counts(RUN)[0] == {StateType.COMPLETED: 2}
    write(store, records.mapped(0, 3), records.node(2), seq=2)
    assert [run.key for run in store.task_runs(RUN)] == [
        *((0, item) for item in range(3)),
        (1, -1),
        (2, -1),
    ]
    assert store.task_run_counts(RUN)[0] == {StateType.COMPLETED: 2, StateType.PENDING: 1}


def test_a_late_batch_does_not_change_a_node_back(store: Store) -> None:
    write(store, records.mapped(0, 3), records.node(1), seq=5)
    write(store, records.mapped(0, None), seq=4)
    assert store.graph(RUN).nodes[0].length == 3
    assert len(store.task_runs(RUN, node=0)) == 3
    assert store.task_run_counts(RUN)[0] == {StateType.PENDING: 3}
    (first, *_) = store.states(RUN, key=TaskRunKey(0, 2))
    assert first.state.name is StateName.PENDING


def test_a_batch_with_blocks_is_applied_once(store: Store) -> None:
    batch = records.batch(
        records.flow_run(), records.mapped(0, 4), records.block(0, Chunk(0, 0, 3))
    )
    assert store.apply(batch) is True
    before = store.task_runs(RUN)
    assert store.apply(batch) is False
    other = records.batch(records.mapped(0, 9), records.block(0, Chunk(0, 0, 9)))
    assert store.apply(other) is False
    assert store.task_runs(RUN) == before
    assert store.task_run_counts(RUN) == {0: {StateType.COMPLETED: 3, StateType.PENDING: 1}}


def test_text_that_databases_do_not_hold(store: Store) -> None:
    node = records.node(0).nodes[0]._replace(line="file-\udcff", name="a\0b")
    block = records.block(0, Chunk(0), labels={0: "file-\udcff"})
    write(store, GraphRecord(flow_run_id=RUN, nodes=(node,)), block)
    assert store.graph(RUN).nodes[0].line == "file-\\udcff"
    assert store.task_runs(RUN)[0].label == "file-\\udcff"


def test_of_what_was_learned_the_newest_counts(store: Store) -> None:
    def pace(task: str, seconds: float, fingerprint: str = "f1") -> TaskPace:
        return TaskPace(flow="etl", fingerprint=fingerprint, task=task, seconds=seconds, bytes=9.5)

    write(store, pace("a", 1.0), pace("b", 2.0), pace("a", 1.5), pace("a", 7.0, "f2"))
    other = records.flow_run("other")
    assert store.apply(records.batch(other, pace("b", 0.5), flow_run_id="other"))
    assert store.paces("etl", "f1") == {"a": pace("a", 1.5), "b": pace("b", 0.5)}
    assert store.paces("etl", "f2") == {"a": pace("a", 7.0, "f2")}
    assert store.paces("etl", "f3") == {}
    assert store.apply(records.batch(pace("c", 1.0), flow_run_id="no-run-yet"))


# --- Scale ----------------------------------------------------------------------------------------

LENGTH = 100_000
FAILED = range(17, LENGTH, 999)


@pytest.fixture
def large(store: Store) -> Store:
    """A store with a run of one call, and a map whose items are in a hundred blocks, a few not."""
    write(store, records.node(0), records.mapped(1, LENGTH + 10), records.block(1000, Chunk(0)))
    for number, start in enumerate(range(0, LENGTH, 1000)):
        inside = [item for item in FAILED if start <= item < start + 1000]
        edges = [start, *(n for item in inside for n in (item, item + 1)), start + 1000]
        chunks = [Chunk(1, edges[n], edges[n + 1]) for n in range(0, len(edges), 2)]
        failed = [records.task_run(1, item, state_name=StateName.FAILED) for item in inside]
        write(store, records.block(number, *chunks), *failed, seq=number + 1)
    return store


@contextmanager
def statements(store: Store) -> Iterator[list[str]]:
    """Collect what the database is asked."""
    asked: list[str] = []

    def keep(_connection: object, _cursor: object, sql: str, *_: object) -> None:
        asked.append(sql)

    sa.event.listen(store._database.reader, "before_cursor_execute", keep)
    try:
        yield asked
    finally:
        sa.event.remove(store._database.reader, "before_cursor_execute", keep)


def _contents_read(asked: Sequence[str]) -> int:
    return sum("task_run_blocks.content" in sql for sql in asked)


def test_pages_of_a_large_map(large: Store) -> None:
    keys: list[TaskRunKey] = []
    while page := large.task_runs(RUN, limit=9_000, after=keys[-1] if keys else None):
        keys += [run.key for run in page]
    assert keys == [(0, -1), *((1, item) for item in range(LENGTH + 10))]


def test_a_page_reads_only_the_blocks_it_shows(large: Store) -> None:
    with statements(large) as asked:
        page = large.task_runs(RUN, limit=50, after=TaskRunKey(1, 54_980), node=1)
    assert [run.key.map_index for run in page] == [*range(54_981, 55_031)]
    assert _contents_read(asked) == 2
    with statements(large) as asked:
        pending = large.task_runs(RUN, state_types={StateType.PENDING})
    assert [run.key.map_index for run in pending] == [*range(LENGTH, LENGTH + 10)]
    assert _contents_read(asked) == 0


def test_what_is_not_completed_is_found_without_blocks(large: Store) -> None:
    with statements(large) as asked:
        failed = large.task_runs(RUN, state_types={StateType.FAILED, StateType.RUNNING}, node=1)
    assert [run.key.map_index for run in failed] == [*FAILED]
    assert not [sql for sql in asked if "task_run_blocks" in sql]


def test_counting_decodes_no_block(large: Store) -> None:
    with statements(large) as asked:
        counts = large.task_run_counts(RUN)
    assert counts == {
        0: {StateType.COMPLETED: 1},
        1: {
            StateType.COMPLETED: LENGTH - len(FAILED),
            StateType.FAILED: len(FAILED),
            StateType.PENDING: 10,
        },
    }
    assert _contents_read(asked) == 0


def test_one_of_many_is_found_in_its_block(large: Store) -> None:
    with statements(large) as asked:
        result = large.result(RUN, TaskRunKey(1, 77_002))
    assert result is not None
    assert result.preview == str(77 + 2)
    assert _contents_read(asked) == 1
    assert large.result(RUN, TaskRunKey(1, 17)) is None
    assert large.result(RUN, TaskRunKey(1, LENGTH)) is None


def test_many_single_calls_that_are_pending(store: Store) -> None:
    for seq in range(4):
        ids = range(seq * 100, seq * 100 + 100)
        done = [Chunk(node) for node in ids if node not in {150, 151}]
        write(store, *map(records.node, ids), records.block(seq, *done), seq=seq)
    with statements(store) as asked:
        pending = store.task_runs(RUN, state_types={StateType.PENDING})
    assert [run.key.node for run in pending] == [150, 151]
    assert sum("graph_blocks.content" in sql for sql in asked) == 1


# --- A crash in between ---------------------------------------------------------------------------

_WRITE_FOREVER = """
import itertools, sys
from pathlib import Path
from raflow.model import Chunk
from raflow.store import Store
from tests.store import records

store = Store.open(sys.argv[1], log_dir=Path(sys.argv[2]))
store.apply(records.batch(records.flow_run(), *map(records.node, range(100))))
for seq in itertools.count(1):
    nodes = map(records.node, range(seq * 100, seq * 100 + 100))
    block = records.block(seq - 1, *(Chunk(seq * 100 - 100 + n) for n in range(100)))
    assert store.apply(records.batch(*nodes, block, seq=seq))
    print(seq, flush=True)
"""


def test_what_a_killed_driver_leaves_is_whole(database_url: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WRITE_FOREVER, database_url, str(tmp_path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        for _ in range(20):
            process.stdout.readline()
        process.kill()
        acknowledged = 20 + len(process.stdout.readlines())
    with Store.open(database_url, log_dir=tmp_path) as store:
        nodes = len(store.graph(RUN).nodes)
        # The last commit may have been under way.
        assert nodes - 100 in {acknowledged * 100, acknowledged * 100 + 100}
        states = [run.state.type for run in store.task_runs(RUN)]
        # What was made last is still pending, for the block that would say more was not written.
        completed = [StateType.COMPLETED] * (nodes - 100)
        assert states == completed + [StateType.PENDING] * 100
        assert store.task_runs(RUN, state_types={StateType.PENDING})[0].key == (nodes - 100, -1)
