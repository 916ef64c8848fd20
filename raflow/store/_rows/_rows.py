"""Records as rows of their table, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raflow import model
from raflow.store._rows import _values

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


def task_pace(pace: model.TaskPace) -> _values.Row:
    """Return the row of what was learned about a task."""
    return (
        _values.text(pace.flow),
        _values.text(pace.fingerprint),
        _values.text(pace.task),
        _values.seconds(pace.seconds),
        _values.seconds(pace.bytes),
    )


def read_task_pace(row: Sequence[Any]) -> model.TaskPace:
    """Return what was learned about a task from its row."""
    flow, fingerprint, task, seconds, size = row
    return model.TaskPace(
        flow=flow, fingerprint=fingerprint, task=task, seconds=seconds, bytes=size
    )


def flow_run(run: model.FlowRun, seq: int, incarnation: int) -> _values.Row:
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
        incarnation,
        *_values.result(run.inputs),
        run.rerun_of,
        _values.to_json(run.rerun_from) if run.rerun_from else None,
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
        incarnation=row[35],
        inputs=_values.read_result(row[36:45]),
        rerun_of=row[45],
        rerun_from=tuple(_values.from_json(row[46])) if row[46] else (),
        origin=None if row[50] is None else _read_origin(row[47:58]),
    )


def _read_origin(row: Sequence[Any]) -> model.RunOrigin:
    deployment, version, bundle, pool, schedule_id, slot, backfill_id, *rest = row
    begins_at, priority, actor, traceparent = rest
    return model.RunOrigin(
        deployment=deployment,
        version=version,
        bundle=bundle,
        pool=pool,
        schedule_id=schedule_id,
        slot=slot,
        backfill_id=backfill_id,
        begins_at=begins_at,
        priority=priority,
        actor=actor,
        traceparent=traceparent,
    )


def origin(of: model.RunOrigin) -> _values.Row:
    """Return the columns of a flow run that its order fills, which are its last ones."""
    return (
        _values.text(of.deployment),
        of.version,
        _values.text(of.bundle),
        _values.text(of.pool),
        of.schedule_id,
        _values.maybe_seconds(of.slot),
        of.backfill_id,
        _values.maybe_seconds(of.begins_at),
        of.priority,
        _values.text(of.actor),
        _values.text(of.traceparent),
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
        *_values.cause(record.cause),
        record.memory or None,
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
        cause=_values.read_cause(row[18:22]),
        memory=row[22] or 0,
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
