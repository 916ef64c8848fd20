"""Records for tests: plain ones, and strategies for all that a record can hold."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import fields, is_dataclass

import orjson
from hypothesis import strategies as st

from raflow.model import (
    Attempt,
    Cause,
    Chunk,
    Edge,
    EdgeKind,
    ErrorInfo,
    FlowRun,
    FlowVersion,
    GraphNode,
    GraphRecord,
    LogSegment,
    NodeKind,
    Outcome,
    Place,
    Record,
    RecordBatch,
    Resources,
    ResultInfo,
    State,
    StateChange,
    StateName,
    TaskRun,
    TaskRunBlock,
    TaskRunKey,
    Trigger,
    TriggerRule,
)

RUN = "0198c1f2-run"


def batch(
    *records: Record, seq: int = 0, flow_run_id: str = RUN, incarnation: int = 1
) -> RecordBatch:
    return RecordBatch(flow_run_id=flow_run_id, seq=seq, records=records, incarnation=incarnation)


def state(name: StateName = StateName.RUNNING, at: float = 1.0) -> State:
    return State(name=name, at=at)


def flow_version(
    flow: str = "etl", fingerprint: str = "f1", created_at: float = 1.0
) -> FlowVersion:
    return FlowVersion(flow=flow, fingerprint=fingerprint, created_at=created_at)


def flow_run(
    run_id: str = RUN,
    *,
    flow: str = "etl",
    name: str = "",
    state_name: StateName = StateName.RUNNING,
    created_at: float = 1.0,
    parent_id: str | None = None,
    parent_node: int | None = None,
    pid: int = 0,
) -> FlowRun:
    return FlowRun(
        id=run_id,
        flow=flow,
        fingerprint="f1",
        name=name or f"name-of-{run_id}",
        state=state(state_name),
        created_at=created_at,
        parent_id=parent_id,
        parent_node=parent_node,
        host="host" if pid else "",
        pid=pid,
    )


def task_run(
    node: int = 0,
    map_index: int = -1,
    *,
    state_name: StateName = StateName.COMPLETED,
    flow_run_id: str = RUN,
    result: ResultInfo | None = None,
) -> TaskRun:
    return TaskRun(
        flow_run_id=flow_run_id,
        key=TaskRunKey(node, map_index),
        task="extract",
        label=f"extract-{node}",
        state=state(state_name),
        result=result,
    )


def node(node_id: int, *, flow_run_id: str = RUN, kind: NodeKind = NodeKind.TASK) -> GraphRecord:
    graph_node = GraphNode(id=node_id, key=f"extract-{node_id}", kind=kind, name="extract")
    return GraphRecord(flow_run_id=flow_run_id, nodes=(graph_node,))


def block(
    number: int,
    *chunks: Chunk,
    flow_run_id: str = RUN,
    at: float = 100.0,
    labels: Mapping[int, str] | None = None,
) -> TaskRunBlock:
    """Return a block whose values count up from its number."""
    size = sum(chunk.size for chunk in chunks)
    return TaskRunBlock(
        flow_run_id=flow_run_id,
        number=number,
        chunks=chunks,
        submitted_at=at,
        started_at=array("d", [at + 1 + n for n in range(size)]),
        ended_at=array("d", [at + 1.5 + n for n in range(size)]),
        cpu_seconds=array("d", [0.25] * size),
        place=Place(7, "host", "node"),
        plain=orjson.dumps([number + n for n in range(size)]),
        labels=labels or {},
    )


def mapped(node_id: int, length: int | None, *, flow_run_id: str = RUN) -> GraphRecord:
    graph_node = GraphNode(
        id=node_id,
        key=f"extract-{node_id}",
        kind=NodeKind.MAP,
        name="extract",
        length=length,
        created_at=50.0,
    )
    return GraphRecord(flow_run_id=flow_run_id, nodes=(graph_node,))


def state_change(number: int, key: TaskRunKey | None, name: StateName) -> StateChange:
    return StateChange(flow_run_id=RUN, number=number, key=key, state=state(name, at=number))


# --- All that a record can hold -------------------------------------------------------------------

times = st.floats(min_value=0, max_value=4e9, allow_nan=False)
counts = st.integers(0, 2**31 - 1)
sizes = st.integers(0, 2**62)
texts = st.text(max_size=20)
states = st.builds(State, name=st.sampled_from(StateName), at=times, message=texts, reason=texts)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
json_objects = st.dictionaries(texts, json_values, max_size=3)
maybe_errors = st.none() | st.builds(
    ErrorInfo,
    type=texts,
    message=texts,
    traceback=texts,
    pickled=st.none() | st.binary(max_size=20),
)
maybe_results = st.none() | st.builds(
    ResultInfo,
    type=texts,
    size=sizes,
    preview=texts,
    length=st.none() | sizes,
    truth=st.none() | st.booleans(),
    serializer=st.sampled_from(["", "json", "pickle"]),
    inline=st.none() | st.binary(max_size=20),
    url=texts,
    digest=st.sampled_from(["", "0" * 64]),
)
maybe_causes = st.none() | st.builds(
    Cause,
    kind=texts,
    signal=st.none() | counts,
    exit_code=st.none() | st.integers(-(2**31), 2**31 - 1),
    host=texts,
    pid=counts,
    node_id=texts,
    peak_memory=sizes,
    facts=st.dictionaries(texts, texts, max_size=2),
)
keys = st.builds(TaskRunKey, counts, st.integers(-1, 2**31 - 1))
names = st.dictionaries(texts, st.floats(0, 100), max_size=2)
resources = st.builds(
    Resources,
    num_cpus=st.floats(0, 100),
    num_gpus=st.floats(0, 8),
    memory=sizes,
    custom=names.map(lambda amounts: tuple(sorted(amounts.items()))),
    accelerator_type=st.none() | texts,
    label_selector=st.dictionaries(texts, texts, max_size=2).map(
        lambda d: tuple(sorted(d.items()))
    ),
    scheduling_strategy=st.none() | st.sampled_from(["SPREAD", "DEFAULT"]),
    runtime_env=st.none() | st.just('{"pip": ["polars"]}'),
)
flow_versions = st.builds(
    FlowVersion,
    flow=texts,
    fingerprint=texts,
    version=texts,
    description=texts,
    entrypoint=texts,
    source=texts,
    parameter_schema=json_objects,
    created_at=times,
)
flow_runs = st.builds(
    FlowRun,
    id=st.uuids().map(str),
    flow=texts,
    fingerprint=texts,
    name=texts,
    state=states,
    parameters=json_objects,
    trigger=st.sampled_from(Trigger),
    backend=st.sampled_from(["", "ray", "local"]),
    parent_id=st.none() | st.uuids().map(str),
    parent_node=st.none() | counts,
    created_at=times,
    started_at=st.none() | times,
    ended_at=st.none() | times,
    tags=st.lists(texts, max_size=3).map(tuple),
    host=texts,
    pid=counts,
    versions=st.dictionaries(texts, texts, max_size=2),
    error=maybe_errors,
    result=maybe_results,
    incarnation=st.integers(1, 2**31 - 1),
    inputs=maybe_results,
    rerun_of=st.none() | st.uuids().map(str),
    rerun_from=st.lists(texts, max_size=2).map(tuple),
)
graph_nodes = st.builds(
    GraphNode,
    id=counts,
    key=texts,
    kind=st.sampled_from(NodeKind),
    name=texts,
    label=texts,
    line=texts,
    length=st.none() | sizes,
    trigger_rule=st.sampled_from(TriggerRule),
    resources=st.none() | resources,
    created_at=times,
    inputs=st.none() | st.integers(0, 2**61),
    code=texts,
)
edges = st.builds(
    Edge,
    source=counts,
    target=counts,
    kind=st.sampled_from(EdgeKind),
    parameter=texts,
    source_item=st.none() | counts,
    target_item=st.none() | counts,
    allow_failure=st.booleans(),
)
task_runs = st.builds(
    TaskRun,
    flow_run_id=st.just(RUN),
    key=keys,
    task=texts,
    label=texts,
    state=states,
    attempts=counts,
    created_at=times,
    started_at=st.none() | times,
    ended_at=st.none() | times,
    child_flow_run_id=st.none() | st.uuids().map(str),
    error=maybe_errors,
    result=maybe_results,
)
attempts = st.builds(
    Attempt,
    flow_run_id=st.just(RUN),
    key=keys,
    number=counts,
    outcome=st.sampled_from(Outcome),
    submitted_at=times,
    started_at=st.none() | times,
    ended_at=times,
    cpu_seconds=times,
    peak_memory=sizes,
    pid=counts,
    host=texts,
    node_id=texts,
    message=texts,
    error=maybe_errors,
    cause=maybe_causes,
)
state_changes = st.builds(
    StateChange, flow_run_id=st.just(RUN), number=counts, key=st.none() | keys, state=states
)
log_segments = st.builds(
    LogSegment,
    flow_run_id=st.just(RUN),
    number=counts,
    key=st.none() | keys,
    attempt=counts,
    file=st.just("not-written.log"),
    offset=sizes,
    length=counts,
    lines=counts,
    first_at=times,
    last_at=times,
    level=counts,
)


def written(value: object) -> object:
    r"""Return a value as the databases hold it: its texts without NUL, which becomes `\x00`."""
    if isinstance(value, str) and type(value) is str:
        return value.replace("\0", "\\x00")
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{f.name: written(getattr(value, f.name)) for f in fields(value)})
    return value
