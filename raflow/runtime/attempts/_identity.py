"""What identifies a new flow run: the version of its flow, its id, name and parameters."""

from __future__ import annotations

import dataclasses
import os
import platform
import socket
from collections.abc import Mapping
from typing import Any, Final

import pydantic_core

from raflow._util import new_id, version_of
from raflow.define import Flow
from raflow.model import FlowRun, FlowVersion, State, StateName

_PREVIEW: Final = 200
_PARAMETER_LIMIT: Final = 64 * 1024


def version_record(flow: Flow[..., Any], entrypoint: str, now: float) -> FlowVersion:
    """Return the record of a flow as it is declared at present."""
    return FlowVersion(
        flow=flow.name,
        fingerprint=flow.fingerprint(),
        version=flow.version,
        description=flow.description,
        entrypoint=entrypoint,
        source=flow.source,
        parameter_schema=flow.parameter_schema(),
        created_at=now,
    )


def new_flow_run(
    flow: Flow[..., Any],
    version: FlowVersion,
    parameters: Mapping[str, Any],
    *,
    name: str | None,
    now: float,
) -> FlowRun:
    """Return the record of a run that has just been created.

    Args:
        flow: The flow.
        version: Its present version.
        parameters: Valid parameters, by name.
        name: Name of the run. Default: what the flow says, else made from its id.
        now: The time.
    """
    run_id = new_id()
    return FlowRun(
        id=run_id,
        flow=flow.name,
        fingerprint=version.fingerprint,
        name=name or _given_name(flow, parameters) or f"{flow.name}-{run_id[-6:]}",
        state=State(name=StateName.PENDING, at=now),
        parameters={key: to_json(value) for key, value in parameters.items()},
        created_at=now,
        tags=flow.options.tags,
        host=socket.gethostname(),
        pid=os.getpid(),
        versions={
            "python": platform.python_version(),
            "raflow": version_of("raflow"),
            "ray": version_of("ray"),
        },
    )


def claimed_flow_run(begun: FlowRun, ordered: FlowRun, incarnation: int) -> FlowRun:
    """Return the record of a run of a deployment that begins in this process.

    Args:
        begun: What this process would record of a new run.
        ordered: What was recorded when the run was ordered.
        incarnation: The number of this process among those of the run.
    """
    return dataclasses.replace(
        begun,
        id=ordered.id,
        name=ordered.name,
        state=ordered.state,
        trigger=ordered.trigger,
        parent_id=ordered.parent_id,
        parent_node=ordered.parent_node,
        created_at=ordered.created_at,
        tags=tuple(dict.fromkeys((*ordered.tags, *begun.tags))),
        incarnation=incarnation,
        rerun_of=ordered.rerun_of,
        origin=ordered.origin,
    )


def _given_name(flow: Flow[..., Any], parameters: Mapping[str, Any]) -> str:
    return flow.run_name(parameters) if flow.run_name else ""


def to_json(value: object) -> object:
    """Return the JSON form of a parameter; what is huge, or beyond JSON, as a preview."""
    try:
        found: object = pydantic_core.to_jsonable_python(value, fallback=_preview)
        if len(pydantic_core.to_json(found)) <= _PARAMETER_LIMIT:
            return found
    except (ValueError, RecursionError):
        pass  # circular, or otherwise beyond JSON
    return _preview(value)


def _preview(value: object) -> str:
    try:
        shown = repr(value)
    except Exception:
        shown = f"<{type(value).__qualname__}>"
    return shown if len(shown) <= _PREVIEW else f"{shown[:_PREVIEW]}…"
