"""The JSON forms that `--json` prints; docs/cli.md describes them, and they only ever grow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from raflow.cli import _format
from raflow.cli._task_rows import TaskRow
from raflow.model import ErrorInfo, FlowRun, LogLine, ResultInfo, Serializer, State, TaskRun
from raflow.store import FlowSummary


def flow_run(run: FlowRun) -> dict[str, Any]:
    """Return a flow run."""
    return {
        "id": run.id,
        "name": run.name,
        "flow": run.flow,
        "state": state(run.state),
        "parameters": dict(run.parameters),
        "trigger": run.trigger.value,
        "backend": run.backend,
        "parent_id": run.parent_id,
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
        "attempts": row.attempts,
        "started_at": _format.iso(row.started_at),
        "ended_at": _format.iso(row.ended_at),
        "duration_seconds": _rounded(row.duration),
        "cpu_seconds": _rounded(row.cpu_seconds),
        "peak_memory_bytes": row.peak_memory,
        "child_flow_run_id": row.child_flow_run_id,
    }


def failure(run: TaskRun) -> dict[str, Any]:
    """Return a task run that failed."""
    return {
        "label": run.label,
        "task": run.task,
        "node": run.key.node,
        "map_index": None if run.key.map_index < 0 else run.key.map_index,
        "state": state(run.state),
        "attempts": run.attempts,
        "error": error(run.error),
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


def flow(summary: FlowSummary) -> dict[str, Any]:
    """Return a flow and how its runs went."""
    counts: Mapping[Any, int] = summary.counts
    return {
        "name": summary.name,
        "versions": summary.versions,
        "runs": sum(counts.values()),
        "states": {kind.value: number for kind, number in counts.items()},
        "last_run": None if summary.last_run is None else flow_run(summary.last_run),
    }


def _seconds(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else _rounded(end - begin)


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 6)
