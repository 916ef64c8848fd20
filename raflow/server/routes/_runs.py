"""Flow runs: lists, one of them, its log, and what can be asked of it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from pydantic import AwareDatetime, Field
from starlette.responses import StreamingResponse

from raflow import model
from raflow.model import Permission, RequestKind, TaskRunKey
from raflow.server._router import Routes, Verbs
from raflow.server.routes._task_runs import parse_key
from raflow.server.schemas import (
    CountOut,
    In,
    Limit,
    LogLineOut,
    LogsOut,
    Page,
    RequestIn,
    RequestOut,
    ResultOut,
    RunOut,
    RunsPage,
    RunSummaryOut,
    StateChangeOut,
    WhyOut,
    moment,
    show_key,
)
from raflow.service import LogFilter, PlacedLine, parse_position

routes = Routes("runs")
_BODY = TaskRunKey(-1)


class RunsQuery(In):
    """Which runs, in which order."""

    flow: str | None = None
    deployment: str | None = None
    state: list[model.StateName] = Field([], max_length=30)
    tag: list[str] = Field([], max_length=10)
    """With all of these tags."""
    name: str = ""
    """Whose name begins like this."""
    since: AwareDatetime | None = None
    """Made then or later."""
    until: AwareDatetime | None = None
    """Made before then."""
    parent: str | None = None
    """Started by the body of this run."""
    roots: bool = False
    """Started by no other run."""
    trigger: list[model.Trigger] = Field([], max_length=10)
    sort: model.Sort = model.Sort.NEWEST
    cursor: str = Field("", max_length=1000)
    """`next_cursor` of the page before, with the same filter."""
    limit: Limit = 50
    count: bool = False
    """Whether to count all that fit, too."""

    def which(self) -> model.RunFilter:
        """Return the filter."""
        return model.RunFilter(
            flow=self.flow,
            deployment=self.deployment,
            states=frozenset(self.state),
            tags=frozenset(self.tag),
            name=self.name,
            since=None if self.since is None else self.since.timestamp(),
            until=None if self.until is None else self.until.timestamp(),
            parent=self.parent,
            roots=self.roots,
            triggers=frozenset(self.trigger),
        )


@routes.get("/runs", Permission.READ)
def list_runs(query: Annotated[RunsQuery, Query()], verbs: Verbs) -> RunsPage:
    """List flow runs, a page at a time."""
    which = query.which()
    page = verbs.runs.page(which, sort=query.sort, cursor=query.cursor, limit=query.limit)
    return RunsPage(
        items=[RunSummaryOut.of(run) for run in page.items],
        next_cursor=page.next_cursor or None,
        count=CountOut.of(verbs.runs.count(which)) if query.count else None,
    )


@routes.get("/runs/{run_id}", Permission.READ)
def get_run(run_id: str, verbs: Verbs) -> RunOut:
    """Return a flow run with everything about it."""
    return RunOut.of(verbs.runs.get(run_id), verbs.runs.lease(run_id))


@routes.get("/runs/{run_id}/states", Permission.READ)
def list_run_states(run_id: str, verbs: Verbs) -> Page[StateChangeOut]:
    """List the states that a run went through, oldest first."""
    found = verbs.runs.states(run_id)
    return Page(items=[StateChangeOut.of_change(change) for change in found])


@routes.get("/runs/{run_id}/result", Permission.READ)
def get_result(run_id: str, verbs: Verbs) -> ResultOut | None:
    """Return what is known about the value of a run; null if there is none."""
    return ResultOut.of(verbs.runs.result(run_id))


@routes.get("/runs/{run_id}/why", Permission.READ)
def get_why(run_id: str, verbs: Verbs) -> WhyOut:
    """Return why a run, or a part of it, does not go on, and what would change that."""
    return WhyOut.of(verbs.runs.why(run_id))


# --- Logs -----------------------------------------------------------------------------------------


class LogsQuery(In):
    """Which lines."""

    key: str | None = None
    """Of this task run; `body` for the flow's body."""
    attempt: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    level: Annotated[int, Field(ge=0, le=100)] = 0
    """The lowest level, as `logging` numbers them."""
    q: str = Field("", max_length=200)
    """What the line must contain; case does not matter."""
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    after: str | None = None
    """The lines behind this position."""
    before: str | None = None
    """The last lines before this position; only without `after`."""
    limit: Annotated[int, Field(ge=1, le=5000)] = 1000

    def which(self) -> LogFilter:
        """Return the filter."""
        key = None
        if self.key is not None:
            key = _BODY if self.key == "body" else parse_key(self.key)
        return LogFilter(
            key=key,
            attempt=self.attempt,
            level=self.level,
            text=self.q,
            since=None if self.since is None else self.since.timestamp(),
            until=None if self.until is None else self.until.timestamp(),
        )


@routes.get("/runs/{run_id}/logs", Permission.READ)
def get_logs(run_id: str, query: Annotated[LogsQuery, Query()], verbs: Verbs) -> LogsOut:
    """Return a page of a run's log. To follow it, ask again `after` its `next`."""
    page = verbs.runs.logs(
        run_id,
        query.which(),
        after=None if query.after is None else parse_position(query.after),
        before=None if query.before is None else parse_position(query.before),
        limit=query.limit,
    )
    return LogsOut(
        lines=[_line(placed) for placed in page.lines],
        next=None if page.next is None else str(page.next),
        prev=None if page.prev is None else str(page.prev),
        at_end=page.at_end,
        total_lines=page.total_lines,
        partial=page.partial,
    )


def _line(placed: PlacedLine) -> LogLineOut:
    return LogLineOut(
        at=moment(placed.line.at),
        level=placed.line.level,
        source=placed.line.source,
        text=placed.line.text,
        key=None if placed.key is None else show_key(placed.key),
        attempt=placed.attempt,
        position=str(placed.position),
    )


@routes.get("/runs/{run_id}/logs/raw", Permission.READ, response_class=StreamingResponse)
def get_raw_log(run_id: str, verbs: Verbs) -> StreamingResponse:
    """Return the whole log of a run as text."""
    disposition = {"Content-Disposition": 'attachment; filename="run.log"'}
    return StreamingResponse(
        verbs.runs.raw_log(run_id), media_type="text/plain; charset=utf-8", headers=disposition
    )


# --- Steering -------------------------------------------------------------------------------------


@routes.post("/runs/{run_id}/cancel", Permission.OPERATE, status_code=202)
def cancel_run(run_id: str, verbs: Verbs, why: RequestIn | None = None) -> RequestOut:
    """Cancel a run: nothing new starts, and what runs is asked to stop, then killed."""
    return _ask(verbs, run_id, RequestKind.CANCEL, why)


@routes.post("/runs/{run_id}/pause", Permission.OPERATE, status_code=202)
def pause_run(run_id: str, verbs: Verbs, why: RequestIn | None = None) -> RequestOut:
    """Pause a run: no task starts any more, until it is unpaused. Its process stays."""
    return _ask(verbs, run_id, RequestKind.PAUSE, why)


@routes.post("/runs/{run_id}/unpause", Permission.OPERATE, status_code=202)
def unpause_run(run_id: str, verbs: Verbs, why: RequestIn | None = None) -> RequestOut:
    """Let a run go on that is paused."""
    return _ask(verbs, run_id, RequestKind.UNPAUSE, why)


@routes.post("/runs/{run_id}/suspend", Permission.OPERATE, status_code=202)
def suspend_run(run_id: str, verbs: Verbs, why: RequestIn | None = None) -> RequestOut:
    """Suspend a run: once what runs has ended, its process does, until it is resumed."""
    return _ask(verbs, run_id, RequestKind.SUSPEND, why)


@routes.post("/runs/{run_id}/resume", Permission.OPERATE, status_code=202)
def resume_run(run_id: str, verbs: Verbs) -> RunOut:
    """Have a worker go on with a run of a deployment that did not complete."""
    run = verbs.runs.resume(run_id)
    return RunOut.of(run, verbs.runs.lease(run_id))


def _ask(verbs: Verbs, run_id: str, kind: RequestKind, why: RequestIn | None) -> RequestOut:
    asked = verbs.runs.ask(run_id, kind, message="" if why is None else why.message)
    return RequestOut(request_id=asked.id, applied=bool(asked.outcome))
