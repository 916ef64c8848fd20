"""Flow runs and what is inside them, as the wire has them."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final, Self

from pydantic import Field

from raflow import model
from raflow.model import Serializer, StateName, StateType, TaskRunKey
from raflow.server.schemas._base import In, Out, Page, maybe_moment, moment, plain, text

_VALUE_LIMIT: Final = 1 << 20


class StateOut(Out):
    """The state of a run."""

    type: StateType
    name: StateName
    message: str
    reason: str
    at: datetime

    @classmethod
    def of(cls, state: model.State) -> Self:
        """Return it as the wire has it."""
        return cls(
            type=state.type,
            name=state.name,
            message=state.message,
            reason=state.reason,
            at=moment(state.at),
        )


class StateChangeOut(StateOut):
    """A state that a run entered."""

    number: int

    @classmethod
    def of_change(cls, change: model.StateChange) -> Self:
        """Return it as the wire has it."""
        return cls(number=change.number, **StateOut.of(change.state).model_dump())


class ErrorOut(Out):
    """An exception."""

    type: str
    message: str
    traceback: str

    @classmethod
    def of(cls, error: model.ErrorInfo | None) -> Self | None:
        """Return it as the wire has it."""
        if error is None:
            return None
        return cls(type=error.type, message=error.message, traceback=error.traceback)


class ResultOut(Out):
    """What is known about a value."""

    type: str
    size: int
    preview: str
    length: int | None
    serializer: str
    """How it is kept; empty if it is not."""
    url: str
    """Where it is kept; empty if in the database."""
    digest: str
    has_value: bool
    """Whether `value` is the value."""
    value: Any = None
    """The value, if it was kept as JSON in the database."""

    @classmethod
    def of(cls, result: model.ResultInfo | None) -> Self | None:
        """Return it as the wire has it."""
        if result is None:
            return None
        inline = result.inline if result.serializer == Serializer.JSON.value else None
        told = inline is not None and len(inline) <= _VALUE_LIMIT
        return cls(
            type=result.type,
            size=result.size,
            preview=result.preview,
            length=result.length,
            serializer=result.serializer,
            url=result.url,
            digest=result.digest,
            has_value=told,
            value=plain(json.loads(inline)) if told and inline is not None else None,
        )


class LeaseOut(Out):
    """Which process drives a run."""

    host: str
    pid: int
    incarnation: int
    renewed_at: datetime
    expires_at: datetime

    @classmethod
    def of(cls, lease: model.RunLease | None) -> Self | None:
        """Return it as the wire has it."""
        if lease is None:
            return None
        return cls(
            host=lease.host,
            pid=lease.pid,
            incarnation=lease.incarnation,
            renewed_at=moment(lease.renewed_at),
            expires_at=moment(lease.expires_at),
        )


class OriginOut(Out):
    """Where a run of a deployment comes from."""

    deployment: str
    version: int
    bundle: str
    """Digest of its code: the run keeps it, whatever the deployment becomes."""
    pool: str
    priority: int
    schedule_id: str | None
    slot: datetime | None
    """The instant of the schedule, or of the backfill, that it stands for."""
    backfill_id: str | None
    begins_at: datetime | None
    """When it is to begin."""
    actor: str
    """Who ordered it."""

    @classmethod
    def of(cls, origin: model.RunOrigin | None) -> Self | None:
        """Return it as the wire has it."""
        if origin is None:
            return None
        return cls(
            deployment=origin.deployment,
            version=origin.version,
            bundle=origin.bundle,
            pool=text(origin.pool),
            priority=origin.priority,
            schedule_id=origin.schedule_id,
            slot=maybe_moment(origin.slot),
            backfill_id=origin.backfill_id,
            begins_at=maybe_moment(origin.begins_at),
            actor=text(origin.actor),
        )


class RunOut(Out):
    """A flow run with everything about it."""

    id: str
    name: str
    flow: str
    fingerprint: str
    state: StateOut
    parameters: dict[str, Any]
    trigger: model.Trigger
    backend: str
    parent_id: str | None
    parent_node: int | None
    rerun_of: str | None
    tags: list[str]
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    host: str
    pid: int
    incarnation: int
    versions: dict[str, str]
    error: ErrorOut | None
    result: ResultOut | None
    lease: LeaseOut | None
    origin: OriginOut | None
    """Null: it is none of a deployment."""

    @classmethod
    def of(cls, run: model.FlowRun, lease: model.RunLease | None) -> Self:
        """Return it as the wire has it."""
        return cls(
            id=run.id,
            name=run.name,
            flow=run.flow,
            fingerprint=run.fingerprint,
            state=StateOut.of(run.state),
            parameters=plain(run.parameters),
            trigger=run.trigger,
            backend=run.backend,
            parent_id=run.parent_id,
            parent_node=run.parent_node,
            rerun_of=run.rerun_of,
            tags=list(run.tags),
            created_at=moment(run.created_at),
            started_at=maybe_moment(run.started_at),
            ended_at=maybe_moment(run.ended_at),
            host=run.host,
            pid=run.pid,
            incarnation=run.incarnation,
            versions=dict(run.versions),
            error=ErrorOut.of(run.error),
            result=ResultOut.of(run.result),
            lease=LeaseOut.of(lease),
            origin=OriginOut.of(run.origin),
        )


class RunSummaryOut(Out):
    """What lists show of a flow run."""

    id: str
    name: str
    flow: str
    state: StateOut
    trigger: model.Trigger
    tags: list[str]
    parent_id: str | None
    deployment: str | None
    version: int | None
    """Of the deployment."""
    pool: str | None
    begins_at: datetime | None
    """When it is to begin."""
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    error_type: str | None
    error_message: str | None

    @classmethod
    def of(cls, run: model.RunSummary) -> Self:
        """Return it as the wire has it."""
        return cls(
            id=run.id,
            name=run.name,
            flow=run.flow,
            state=StateOut.of(run.state),
            trigger=run.trigger,
            tags=list(run.tags),
            parent_id=run.parent_id,
            deployment=run.deployment,
            version=run.version,
            pool=run.pool,
            begins_at=maybe_moment(run.begins_at),
            created_at=moment(run.created_at),
            started_at=maybe_moment(run.started_at),
            ended_at=maybe_moment(run.ended_at),
            error_type=run.error_type,
            error_message=run.error_message,
        )


class CountOut(Out):
    """How many there are."""

    n: int
    exact: bool
    """False: there are more than `n`."""

    @classmethod
    def of(cls, count: model.Count) -> Self:
        """Return it as the wire has it."""
        return cls(n=count.n, exact=count.exact)


class RunsPage(Page[RunSummaryOut]):
    """A part of a list of runs."""

    count: CountOut | None = None
    """How many fit in all, if that was asked."""


class TaskRunOut(Out):
    """A call of a task, or an item of a map."""

    key: str
    """`node`, or `node:item` of a map."""
    node: int
    map_index: int | None
    task: str
    label: str
    state: StateOut
    attempts: int
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    child_flow_run_id: str | None
    error: ErrorOut | None
    result: ResultOut | None

    @classmethod
    def of(cls, run: model.TaskRun) -> Self:
        """Return it as the wire has it."""
        return cls(
            key=show_key(run.key),
            node=run.key.node,
            map_index=None if run.key.map_index < 0 else run.key.map_index,
            task=run.task,
            label=run.label,
            state=StateOut.of(run.state),
            attempts=run.attempts,
            created_at=moment(run.created_at),
            started_at=maybe_moment(run.started_at),
            ended_at=maybe_moment(run.ended_at),
            child_flow_run_id=run.child_flow_run_id,
            error=ErrorOut.of(run.error),
            result=ResultOut.of(run.result),
        )


def show_key(key: TaskRunKey) -> str:
    """Return the key of a task run as the wire has it."""
    return str(key.node) if key.map_index < 0 else f"{key.node}:{key.map_index}"


class CauseOut(Out):
    """Why an attempt ended, where that was not the code's own doing."""

    kind: str
    signal: int | None
    exit_code: int | None
    host: str
    pid: int
    node_id: str
    peak_memory: int
    facts: dict[str, str]

    @classmethod
    def of(cls, cause: model.Cause | None) -> Self | None:
        """Return it as the wire has it."""
        if cause is None:
            return None
        return cls(
            kind=cause.kind,
            signal=cause.signal,
            exit_code=cause.exit_code,
            host=cause.host,
            pid=cause.pid,
            node_id=cause.node_id,
            peak_memory=cause.peak_memory,
            facts=dict(cause.facts),
        )


class AttemptOut(Out):
    """One try of a task run that has ended."""

    number: int
    outcome: model.Outcome
    submitted_at: datetime
    started_at: datetime | None
    ended_at: datetime
    cpu_seconds: float
    peak_memory: int
    memory: int
    host: str
    pid: int
    node_id: str
    message: str
    error: ErrorOut | None
    cause: CauseOut | None

    @classmethod
    def of(cls, attempt: model.Attempt) -> Self:
        """Return it as the wire has it."""
        return cls(
            number=attempt.number,
            outcome=attempt.outcome,
            submitted_at=moment(attempt.submitted_at),
            started_at=maybe_moment(attempt.started_at),
            ended_at=moment(attempt.ended_at),
            cpu_seconds=attempt.cpu_seconds,
            peak_memory=attempt.peak_memory,
            memory=attempt.memory,
            host=attempt.host,
            pid=attempt.pid,
            node_id=attempt.node_id,
            message=attempt.message,
            error=ErrorOut.of(attempt.error),
            cause=CauseOut.of(attempt.cause),
        )


class NodeCounts(Out):
    """How many task runs of a node are in a state of which type."""

    node: int
    counts: dict[StateType, int]


class CountsOut(Out):
    """How many task runs there are, by node."""

    nodes: list[NodeCounts]


class LogLineOut(Out):
    """A line of a log."""

    at: datetime
    level: int
    """As `logging` numbers them."""
    source: str
    text: str
    key: str | None
    """The task run that wrote it; null: the flow's body."""
    attempt: int
    position: str


class LogsOut(Out):
    """A part of a log, in the order in which it was recorded."""

    lines: list[LogLineOut]
    next: str | None
    """Go on `after` this, also to follow a run that is under way."""
    prev: str | None
    """Go back `before` this."""
    at_end: bool
    total_lines: int
    partial: bool
    """The search took too long and has ended early: go on from `next`, or back from `prev`."""


class RequestIn(In):
    """Why something is asked of a run."""

    message: str = Field("", max_length=2000)


class RequestOut(Out):
    """Something that was asked of a run, and is on record."""

    request_id: int
    applied: bool
    """Whether it has been done already; otherwise the run does it when it sees the request."""


class GraphColumns(Out):
    """A graph by columns: what a program draws."""

    flow: str
    ids: list[int]
    keys: list[str]
    names: list[str]
    kinds: list[str]
    lengths: list[int | None]
    states: list[dict[StateType, int]]
    edges: list[tuple[int, int]]
