"""The JSON forms that `--json` prints; docs/cli.md describes them, and they only ever grow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from raflow.cli import _format
from raflow.cli._task_rows import MemoryUse, TaskRow
from raflow.model import (
    CacheEntry,
    Cause,
    Deployment,
    DeploymentVersion,
    ErrorInfo,
    FlowRun,
    InputRequest,
    LimitState,
    LogLine,
    PoolState,
    ResultInfo,
    RunOrigin,
    Serializer,
    SlotLease,
    State,
    StateName,
    TaskRun,
    Wait,
    Why,
    WorkerInfo,
)
from raflow.runtime import Sighting
from raflow.store import FlowSummary


def flow_run(run: FlowRun, *, lost: Sighting | None = None) -> dict[str, Any]:
    """Return a flow run.

    Args:
        run: The flow run.
        lost: What is known of its process, if it is under way, but has none any more.
    """
    return {
        "id": run.id,
        "name": run.name,
        "flow": run.flow,
        "state": state(run.state),
        "parameters": dict(run.parameters),
        "trigger": run.trigger.value,
        "backend": run.backend,
        "parent_id": run.parent_id,
        "rerun_of": run.rerun_of,
        "created_at": _format.iso(run.created_at),
        "started_at": _format.iso(run.started_at),
        "ended_at": _format.iso(run.ended_at),
        "duration_seconds": _seconds(run.started_at, run.ended_at),
        "fingerprint": run.fingerprint,
        "versions": dict(run.versions),
        "tags": list(run.tags),
        "host": run.host,
        "pid": run.pid,
        "error": error(run.error),
        "result": result(run.result),
        "abandoned": lost is not None,
        "last_process": None if lost is None else sighting(lost),
        "origin": None if run.origin is None else _origin(run.origin),
    }


def _origin(of: RunOrigin) -> dict[str, Any]:
    return {
        "deployment": of.deployment,
        "version": of.version,
        "pool": of.pool,
        "priority": of.priority,
        "begins_at": _format.iso(of.begins_at),
        "slot": _format.iso(of.slot),
        "actor": of.actor,
    }


def pool(of: PoolState) -> dict[str, Any]:
    """Return a work pool and what goes on in it."""
    return {
        "name": of.pool.name,
        "concurrency": of.pool.concurrency,
        "paused": of.pool.paused,
        "description": of.pool.description,
        "workers": of.workers,
        "runs": {stage.value: number for stage, number in of.counts.items()},
        "waiting_since": _format.iso(of.waiting_since),
    }


def worker(of: WorkerInfo) -> dict[str, Any]:
    """Return a worker."""
    return {
        "id": of.id,
        "name": of.name,
        "pool": of.pool,
        "host": of.host,
        "pid": of.pid,
        "versions": dict(of.versions),
        "ray_address": of.ray_address or None,
        "started_at": _format.iso(of.started_at),
        "seen_at": _format.iso(of.seen_at),
        "draining": of.draining,
        "runners": of.runners,
        "busy": of.busy,
    }


def wait(of: Wait) -> dict[str, Any]:
    """Return why a run of a deployment does not begin."""
    commands = [change.command for change in of.changes if change.command]
    return {"code": of.code, "text": of.text, "commands": commands}


def why(of: Why) -> dict[str, Any]:
    """Return why a flow run, or a part of it, does not go on."""
    return {
        "flow_run": flow_run(of.flow_run),
        "summary": of.summary,
        "waits": [
            {
                **wait(one),
                "changes": [{"text": to.text, "command": to.command} for to in one.changes],
                "since": _format.iso(one.since),
                "holders": list(one.holders),
                "calls": list(one.calls),
                "count": one.count,
            }
            for one in of.waits
        ],
        "running": [
            {
                "label": call.label,
                "started_at": _format.iso(call.started_at),
                "child_flow_run_id": call.child_flow_run_id,
            }
            for call in of.running
        ],
        "notes": [
            {
                "state": one.state.value,
                "text": one.text,
                "calls": list(one.calls),
                "count": one.count,
            }
            for one in of.notes
        ],
    }


def sighting(seen: Sighting) -> dict[str, Any]:
    """Return what is known of the process that drives a flow run, or did last."""
    return {
        "host": seen.host or None,
        "pid": seen.pid or None,
        "fate": seen.fate.name.lower(),
        "seen_at": _format.iso(seen.at),
    }


def task_row(row: TaskRow) -> dict[str, Any]:
    """Return a task call, a map or a subflow of a flow run."""
    return {
        "key": row.node.key,
        "label": row.label,
        "kind": row.node.kind.value,
        "task": row.node.name,
        "length": row.node.length,
        "state": None if row.state is None else row.state.value,
        "states": {kind.value: number for kind, number in row.counts.items()},
        "recovered": row.special.get(StateName.RECOVERED, 0),
        "attempts": row.attempts,
        "started_at": _format.iso(row.started_at),
        "ended_at": _format.iso(row.ended_at),
        "duration_seconds": _rounded(row.duration),
        "cpu_seconds": _rounded(row.cpu_seconds),
        "peak_memory_bytes": row.peak_memory,
        "memory_bytes": row.asked_memory or None,
        "memory": None if row.memory is None else [_memory_use(use) for use in row.memory],
        "child_flow_run_id": row.child_flow_run_id,
        "message": row.message or None,
        "reason": row.reason or None,
    }


def _memory_use(use: MemoryUse) -> dict[str, Any]:
    return {
        "attempt": use.attempt,
        "memory_bytes": use.asked or None,
        "peak_memory_bytes": use.peak or None,
    }


def failure(run: TaskRun, cause: Cause | None, memory: Iterable[MemoryUse] = ()) -> dict[str, Any]:
    """Return a task run that failed.

    Args:
        run: The task run.
        cause: Why its last attempt ended, if that was not the code's own doing.
        memory: What its attempts asked for, and used.
    """
    return {
        "label": run.label,
        "task": run.task,
        "node": run.key.node,
        "map_index": None if run.key.map_index < 0 else run.key.map_index,
        "state": state(run.state),
        "attempts": run.attempts,
        "error": error(run.error),
        "cause": None if cause is None else _cause(cause),
        "memory": [_memory_use(use) for use in memory],
    }


def _cause(cause: Cause) -> dict[str, Any]:
    return {
        "kind": cause.kind,
        "signal": cause.signal,
        "exit_code": cause.exit_code,
        "host": cause.host or None,
        "pid": cause.pid or None,
        "node_id": cause.node_id or None,
        "peak_memory_bytes": cause.peak_memory or None,
        "facts": dict(cause.facts),
    }


def state(state: State) -> dict[str, Any]:
    """Return a state."""
    return {
        "type": state.type.value,
        "name": state.name.value,
        "message": state.message,
        "reason": state.reason,
        "at": _format.iso(state.at),
    }


def error(error: ErrorInfo | None) -> dict[str, Any] | None:
    """Return what is known of an exception."""
    if error is None:
        return None
    return {"type": error.type, "message": error.message, "traceback": error.traceback}


def result(result: ResultInfo | None) -> dict[str, Any] | None:
    """Return what is known of a value, and the value itself if it was kept as JSON, inline."""
    if result is None:
        return None
    known: dict[str, Any] = {
        "type": result.type,
        "size_bytes": result.size,
        "preview": result.preview,
        "length": result.length,
        "serializer": result.serializer or None,
        "url": result.url or None,
        "digest": result.digest or None,
    }
    if _is_json(result):
        known["value"] = value(result)
    return known


def value(result: ResultInfo) -> Any:
    """Return the value itself if it was kept as JSON, inline; else None."""
    return json.loads(result.inline or b"null") if _is_json(result) else None


def _is_json(result: ResultInfo) -> bool:
    return result.inline is not None and result.serializer == Serializer.JSON.value


def log_line(line: LogLine, label: str, attempt: int) -> dict[str, Any]:
    """Return a log line."""
    return {
        "at": _format.iso(line.at),
        "level": line.level,
        "source": line.source,
        "task_run": label or None,
        "attempt": attempt or None,
        "text": line.text,
    }


def flow(summary: FlowSummary, *, lost: Sighting | None = None) -> dict[str, Any]:
    """Return a flow and how its runs went.

    Args:
        summary: The flow.
        lost: What is known of the process of its last run; see `flow_run`.
    """
    last = summary.last_run
    counts: Mapping[Any, int] = summary.counts
    return {
        "name": summary.name,
        "versions": summary.versions,
        "runs": sum(counts.values()),
        "states": {kind.value: number for kind, number in counts.items()},
        "last_run": None if last is None else flow_run(last, lost=lost),
    }


def deployment(found: Deployment) -> dict[str, Any]:
    """Return a deployment."""
    return {
        "name": found.name,
        "flow": found.flow,
        "version": found.version,
        "revision": found.revision,
        "paused": found.paused,
        "entrypoint": found.spec.entrypoint,
        "pool": found.spec.pool,
        "priority": found.spec.priority,
        "concurrency": found.spec.concurrency,
        "parameters": dict(found.spec.parameters),
        "tags": list(found.spec.tags),
        "created_at": _format.iso(found.created_at),
        "updated_at": _format.iso(found.updated_at),
    }


def deployment_version(found: DeploymentVersion) -> dict[str, Any]:
    """Return a version of a deployment."""
    return {
        "number": found.number,
        "digest": found.digest,
        "bundle": found.bundle,
        "fingerprint": found.fingerprint,
        "parameter_schema": dict(found.parameter_schema),
        "python": found.python,
        "packages": dict(found.packages),
        "actor": found.actor,
        "created_at": _format.iso(found.created_at),
        "note": found.note,
    }


def limit(found: LimitState) -> dict[str, Any]:
    """Return a limit, who holds its slots, and who waits."""
    return {
        "name": found.limit.name,
        "slots": found.limit.slots,
        "per_seconds": found.limit.per_seconds or None,
        "taken": sum(lease.amount for lease in found.holders),
        "holders": [_slots(lease) for lease in found.holders],
        "waiters": [_slots(lease) for lease in found.waiters],
    }


def _slots(lease: SlotLease) -> dict[str, Any]:
    return {
        "holder": lease.holder or None,
        "label": lease.label,
        "flow_run_id": lease.flow_run_id,
        "amount": lease.amount,
        "priority": lease.priority,
        "since": _format.iso(lease.since),
        "expires_at": _format.iso(lease.expires_at),
    }


def cache_entry(entry: CacheEntry) -> dict[str, Any]:
    """Return a cached value."""
    return {
        "key": entry.key,
        "task": entry.task,
        "flow_run_id": entry.flow_run_id,
        "node": entry.run.node,
        "map_index": None if entry.run.map_index < 0 else entry.run.map_index,
        "created_at": _format.iso(entry.created_at),
        "expires_at": _format.iso(entry.expires_at),
        "result": result(entry.result),
    }


def question(request: InputRequest) -> dict[str, Any]:
    """Return what a flow run asks of people, and the answer if there is one."""
    return {
        "flow_run_id": request.flow_run_id,
        "number": request.number,
        "title": request.title,
        "form": dict(request.form),
        "assignees": list(request.assignees),
        "asked_at": _format.iso(request.asked_at),
        "expires_at": _format.iso(request.expires_at),
        "default": _loaded(request.default),
        "answer": _loaded(request.answer),
        "answered_by": request.answered_by or None,
        "answered_at": _format.iso(request.answered_at),
    }


def _loaded(text: bytes | None) -> Any:
    return None if text is None else json.loads(text)


def _seconds(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else _rounded(end - begin)


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 6)
