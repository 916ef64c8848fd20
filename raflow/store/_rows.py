"""Records as rows of their table, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raflow import model
from raflow.store import _values

# --- Flows and flow runs --------------------------------------------------------------------------


def flow_version(version: model.FlowVersion) -> _values.Row:
    """Return the row of a flow version."""
    return (
        _values.text(version.flow),
        _values.text(version.fingerprint),
        _values.text(version.version),
        _values.text(version.description),
        _values.text(version.entrypoint),
        _values.text(version.source),
        _values.to_json(version.parameter_schema),
        _values.seconds(version.created_at),
    )


def read_flow_version(row: Sequence[Any]) -> model.FlowVersion:
    """Return the flow version of a row."""
    flow, fingerprint, version, description, entrypoint, source, schema, created_at = row
    return model.FlowVersion(
        flow=flow,
        fingerprint=fingerprint,
        version=version,
        description=description,
        entrypoint=entrypoint,
        source=source,
        parameter_schema=_values.from_json(schema),
        created_at=created_at,
    )


def flow_run(run: model.FlowRun, seq: int) -> _values.Row:
    """Return the row of a flow run, without the number that the database gives it."""
    return (
        run.id,
        seq,
        _values.text(run.flow),
        _values.text(run.fingerprint),
        _values.text(run.name),
        *_values.state(run.state),
        _values.to_json(run.parameters),
        run.trigger.value,
        _values.text(run.backend),
        run.parent_id,
        run.parent_node,
        _values.seconds(run.created_at),
        _values.maybe_seconds(run.started_at),
        _values.maybe_seconds(run.ended_at),
        _values.to_json(run.tags),
        _values.text(run.host),
        run.pid,
        _values.to_json(run.versions),
        *_values.error(run.error),
        *_values.result(run.result),
    )


def read_flow_run(row: Sequence[Any]) -> model.FlowRun:
    """Return the flow run of a row."""
    _, run_id, _, flow, fingerprint, name, *state = row[:10]
    parameters, trigger, backend, parent_id, parent_node, created_at = row[10:16]
    started_at, ended_at, tags, host, pid, versions = row[16:22]
    return model.FlowRun(
        id=run_id,
        flow=flow,
        fingerprint=fingerprint,
        name=name,
        state=_values.read_state(*state),
        parameters=_values.from_json(parameters),
        trigger=model.Trigger(trigger),
        backend=backend,
        parent_id=parent_id,
        parent_node=parent_node,
        created_at=created_at,
        started_at=started_at,
        ended_at=ended_at,
        tags=tuple(_values.from_json(tags)),
        host=host,
        pid=pid,
        versions=_values.from_json(versions),
        error=_values.read_error(row[22:26]),
        result=_values.read_result(row[26:35]),
    )


# --- The graph ------------------------------------------------------------------------------------


def node(record: model.NodeRecord, run: int, seq: int) -> _values.Row:
    """Return the row of a node in the flow run with this number."""
    node = record.node
    return (
        run,
        node.id,
        seq,
        _values.text(node.key),
        node.kind.value,
        _values.text(node.name),
        _values.text(node.label),
        _values.text(node.line),
        node.length,
        node.trigger_rule.value,
        None
        if node.resources is None
        else _values.text(_values.to_json(_resources(node.resources))),
    )


def read_node(row: Sequence[Any]) -> model.GraphNode:
    """Return the node of a row."""
    _, node_id, _, key, kind, name, label, line, length, trigger_rule, resources = row
    return model.GraphNode(
        id=node_id,
        key=key,
        kind=model.NodeKind(kind),
        name=name,
        label=label,
        line=line,
        length=length,
        trigger_rule=model.TriggerRule(trigger_rule),
        resources=None if resources is None else _read_resources(_values.from_json(resources)),
    )


def _resources(resources: model.Resources) -> dict[str, object]:
    strategy = resources.scheduling_strategy
    return {
        "num_cpus": resources.num_cpus,
        "num_gpus": resources.num_gpus,
        "memory": resources.memory,
        "custom": dict(resources.custom),
        "accelerator_type": resources.accelerator_type,
        "label_selector": dict(resources.label_selector),
        "scheduling_strategy": None if strategy is None else str(strategy),
        "runtime_env": resources.runtime_env,
    }


def _read_resources(data: Mapping[str, Any]) -> model.Resources:
    return model.Resources(
        **{
            **data,
            "custom": tuple(data["custom"].items()),
            "label_selector": tuple(data["label_selector"].items()),
        }
    )


def edge(record: model.EdgeRecord, run: int) -> _values.Row:
    """Return the row of an edge in the flow run with this number."""
    edge = record.edge
    return (
        run,
        edge.target,
        edge.source,
        edge.kind.value,
        _values.text(edge.parameter),
        -1 if edge.source_item is None else edge.source_item,
        -1 if edge.target_item is None else edge.target_item,
        edge.allow_failure,
    )


def read_edge(row: Sequence[Any]) -> model.Edge:
    """Return the edge of a row."""
    _, target, source, kind, parameter, source_item, target_item, allow_failure = row
    return model.Edge(
        source=source,
        target=target,
        kind=model.EdgeKind(kind),
        parameter=parameter,
        source_item=None if source_item < 0 else source_item,
        target_item=None if target_item < 0 else target_item,
        allow_failure=allow_failure,
    )


# --- Task runs ------------------------------------------------------------------------------------


def task_run(record: model.TaskRun, run: int, seq: int) -> _values.Row:
    """Return the row of a task run in the flow run with this number."""
    return (
        run,
        *record.key,
        seq,
        _values.text(record.task),
        _values.text(record.label),
        *_values.state(record.state),
        record.attempts,
        _values.seconds(record.created_at),
        _values.maybe_seconds(record.started_at),
        _values.maybe_seconds(record.ended_at),
        record.child_flow_run_id,
        *_values.error(record.error),
        *_values.result(record.result),
    )


def read_task_run(flow_run_id: str, row: Sequence[Any]) -> model.TaskRun:
    """Return the task run of a row."""
    _, node_id, map_index, _, task, label, *state = row[:10]
    attempts, created_at, started_at, ended_at, child = row[10:15]
    return model.TaskRun(
        flow_run_id=flow_run_id,
        key=model.TaskRunKey(node_id, map_index),
        task=task,
        label=label,
        state=_values.read_state(*state),
        attempts=attempts,
        created_at=created_at,
        started_at=started_at,
        ended_at=ended_at,
        child_flow_run_id=child,
        error=_values.read_error(row[15:19]),
        result=_values.read_result(row[19:28]),
    )


def attempt(record: model.Attempt, run: int) -> _values.Row:
    """Return the row of an attempt in the flow run with this number."""
    return (
        run,
        *record.key,
        record.number,
        record.outcome.value,
        _values.seconds(record.submitted_at),
        _values.maybe_seconds(record.started_at),
        _values.seconds(record.ended_at),
        _values.seconds(record.cpu_seconds),
        record.peak_memory,
        record.pid,
        _values.text(record.host),
        _values.text(record.node_id),
        _values.text(record.message),
        *_values.error(record.error),
    )


def read_attempt(flow_run_id: str, row: Sequence[Any]) -> model.Attempt:
    """Return the attempt of a row."""
    _, node_id, map_index, number, outcome, submitted_at, started_at, ended_at = row[:8]
    cpu_seconds, peak_memory, pid, host, cluster_node, message = row[8:14]
    return model.Attempt(
        flow_run_id=flow_run_id,
        key=model.TaskRunKey(node_id, map_index),
        number=number,
        outcome=model.Outcome(outcome),
        submitted_at=submitted_at,
        started_at=started_at,
        ended_at=ended_at,
        cpu_seconds=cpu_seconds,
        peak_memory=peak_memory,
        pid=pid,
        host=host,
        node_id=cluster_node,
        message=message,
        error=_values.read_error(row[14:18]),
    )


# --- History and logs -----------------------------------------------------------------------------


def state_change(record: model.StateChange, run: int) -> _values.Row:
    """Return the row of a state change in the flow run with this number."""
    return run, *_values.key(record.key), record.number, *_values.state(record.state)


def read_state_change(flow_run_id: str, row: Sequence[Any]) -> model.StateChange:
    """Return the state change of a row."""
    _, node_id, map_index, number, *state = row
    return model.StateChange(
        flow_run_id=flow_run_id,
        number=number,
        key=_values.read_key(node_id, map_index),
        state=_values.read_state(*state),
    )


def log_segment(record: model.LogSegment, run: int) -> _values.Row:
    """Return the row of a log segment in the flow run with this number."""
    return (
        run,
        *_values.key(record.key),
        record.number,
        record.attempt,
        _values.text(record.file),
        record.offset,
        record.length,
        record.lines,
        _values.seconds(record.first_at),
        _values.seconds(record.last_at),
        record.level,
    )


def read_log_segment(flow_run_id: str, row: Sequence[Any]) -> model.LogSegment:
    """Return the log segment of a row."""
    _, node_id, map_index, number, attempt_number, file, offset, length = row[:8]
    lines, first_at, last_at, level = row[8:12]
    return model.LogSegment(
        flow_run_id=flow_run_id,
        number=number,
        key=_values.read_key(node_id, map_index),
        attempt=attempt_number,
        file=file,
        offset=offset,
        length=length,
        lines=lines,
        first_at=first_at,
        last_at=last_at,
        level=level,
    )
