"""What is written comes back equal, from both databases."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raflow import model
from raflow.store import Store
from tests.store import records

_seqs = itertools.count()

# The examples of one test share a database: they use other keys, or replace each other's rows.
many = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)


def apply(store: Store, *parts: model.Record) -> None:
    seq = next(_seqs)
    assert store.apply(records.batch(records.flow_run(), *parts, seq=seq))


@many
@given(version=records.flow_versions)
def test_flow_versions(store: Store, version: model.FlowVersion) -> None:
    apply(store, version)
    flow = str(records.written(version.flow))
    fingerprint = str(records.written(version.fingerprint))
    assert store.flow_version(fingerprint, flow=flow) == expected(version, "parameter_schema")


@many
@given(run=records.flow_runs)
def test_flow_runs(store: Store, run: model.FlowRun) -> None:
    seq = next(_seqs)
    # Of its own: an id that was drawn before may have been taken over since.
    run = dataclasses.replace(run, id=f"{seq}-{run.id}")
    batch = records.batch(run, flow_run_id=run.id, seq=seq, incarnation=run.incarnation)
    assert store.apply(batch)
    tags = tuple(run.tags)
    assert store.find_flow_run(run.id) == expected(run, "parameters", "versions", tags=tags)
    assert store.result(run.id) == records.written(run.result)


@many
@given(node=records.graph_nodes)
def test_nodes(store: Store, node: model.GraphNode) -> None:
    apply(store, model.GraphRecord(flow_run_id=records.RUN, nodes=(node,)))
    assert node in store.graph(records.RUN).nodes


@many
@given(edge=records.edges)
def test_edges(store: Store, edge: model.Edge) -> None:
    apply(store, model.GraphRecord(flow_run_id=records.RUN, edges=(edge,)))
    assert edge in store.graph(records.RUN).edges


@many
@given(run=records.task_runs)
def test_task_runs(store: Store, run: model.TaskRun) -> None:
    apply(store, run)
    assert records.written(run) in store.task_runs(records.RUN, node=run.key.node)
    assert store.result(records.RUN, run.key) == records.written(run.result)


@many
@given(attempt=records.attempts)
def test_attempts(store: Store, attempt: model.Attempt) -> None:
    apply(store, attempt)
    assert records.written(attempt) in store.attempts(records.RUN, attempt.key)


@many
@given(change=records.state_changes)
def test_state_changes(store: Store, change: model.StateChange) -> None:
    apply(store, change)
    assert records.written(change) in store.states(records.RUN, key=change.key)


@many
@given(segment=records.log_segments)
def test_log_segments(store: Store, segment: model.LogSegment) -> None:
    apply(store, segment)
    assert records.written(segment) in store.log_segments(records.RUN)


@given(st.data())
@many
def test_many_records_of_all_kinds_at_once(store: Store, data: st.DataObject) -> None:
    runs = data.draw(st.lists(records.task_runs, unique_by=lambda run: run.key))
    attempts = data.draw(st.lists(records.attempts, unique_by=lambda a: (a.key, a.number)))
    run_id = f"run-{next(_seqs)}"
    parts: list[model.TaskRun | model.Attempt] = [
        *(dataclasses.replace(run, flow_run_id=run_id) for run in runs),
        *(dataclasses.replace(attempt, flow_run_id=run_id) for attempt in attempts),
    ]
    run = records.flow_run(run_id)
    assert store.apply(records.batch(run, *parts, flow_run_id=run_id))
    found = [*store.task_runs(run_id), *store.attempts(run_id)]
    assert sorted(map(repr, found)) == sorted(repr(records.written(part)) for part in parts)


def test_numbers_that_are_none_are_left_out(store: Store) -> None:
    odd = dataclasses.replace(records.task_run(), created_at=math.nan, ended_at=math.nan)
    attempt = model.Attempt(
        flow_run_id=records.RUN,
        key=odd.key,
        number=1,
        outcome=model.Outcome.COMPLETED,
        submitted_at=1,
        started_at=math.inf,
        ended_at=2,
        cpu_seconds=math.nan,
    )
    apply(store, odd, attempt)
    (run,), (tried,) = store.task_runs(records.RUN), store.attempts(records.RUN)
    assert (run.created_at, run.ended_at) == (0.0, None)
    assert (tried.started_at, tried.cpu_seconds) == (None, 0.0)


def test_text_that_is_no_unicode_is_written_out(store: Store) -> None:
    apply(store, dataclasses.replace(records.task_run(), label="file-\udcff\0"))
    (run,) = store.task_runs(records.RUN)
    assert run.label == "file-\\udcff\\x00"


def test_parameters_that_only_python_can_hold(store: Store) -> None:
    odd: dict[Any, object] = {"big": 2**70, "text": "\udcff", "missing": math.nan, 1: "one"}
    run = dataclasses.replace(records.flow_run(), parameters=odd)
    store.apply(records.batch(run))
    kept = store.find_flow_run(records.RUN).parameters
    assert (kept["big"], kept["text"], kept["1"]) == (2**70, "\udcff", "one")


def test_a_scheduling_strategy_that_is_an_object_becomes_its_text(store: Store) -> None:
    class Strategy:
        def __str__(self) -> str:
            return "node affinity"

    resources = model.Resources(scheduling_strategy=Strategy())
    node = records.node(0).nodes[0]._replace(resources=resources)
    apply(store, model.GraphRecord(flow_run_id=records.RUN, nodes=(node,)))
    (kept,) = store.graph(records.RUN).nodes
    assert kept.resources == model.Resources(scheduling_strategy="node affinity")


def expected(value: object, *json_fields: str, **changes: object) -> object:
    """Return a record as it comes back; its JSON fields keep every text as it was."""
    kept = {name: getattr(value, name) for name in json_fields}
    written = records.written(value)
    assert dataclasses.is_dataclass(written)
    assert not isinstance(written, type)
    return dataclasses.replace(written, **kept, **changes)
