"""What is inside a flow run: task runs with all about them, counts and the graph."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from fastapi import Query
from pydantic import Field

from raflow import errors, model
from raflow.model import Permission, StateType, TaskRunKey
from raflow.server._router import Routes, Verbs
from raflow.server.schemas import (
    AttemptOut,
    CountsOut,
    GraphColumns,
    In,
    Limit,
    NodeCounts,
    Page,
    ResultOut,
    StateChangeOut,
    TaskRunOut,
    plain,
    show_key,
)

routes = Routes("task runs")
_KEY: Final = re.compile(r"(\d{1,9})(?::(\d{1,9}))?", re.ASCII)
_INT32: Final = 2**31 - 1


class TaskRunsQuery(In):
    """Which task runs."""

    state: list[StateType] = Field([], max_length=20)
    node: Annotated[int, Field(ge=0, le=_INT32)] | None = None
    after: str | None = None
    """The key of the last one of the page before."""
    limit: Limit = 50


@routes.get("/runs/{run_id}/task-runs", Permission.READ)
def list_task_runs(
    run_id: str, query: Annotated[TaskRunsQuery, Query()], verbs: Verbs
) -> Page[TaskRunOut]:
    """List task runs in the order of their keys. `next_cursor` is the `after` of the next page."""
    found = verbs.runs.task_runs(
        run_id,
        state_types=query.state or None,
        node=query.node,
        after=None if query.after is None else _cursor(query.after),
        limit=query.limit + 1,
    )
    page = found[: query.limit]
    return Page(
        items=[TaskRunOut.of(run) for run in page],
        next_cursor=show_key(page[-1].key) if len(found) > query.limit else None,
    )


@routes.get("/runs/{run_id}/task-runs/{key}", Permission.READ)
def get_task_run(run_id: str, key: str, verbs: Verbs) -> TaskRunOut:
    """Return a task run: `3` is call number 3, `3:7` item 7 of that map."""
    return TaskRunOut.of(verbs.runs.task_run(run_id, parse_key(key)))


@routes.get("/runs/{run_id}/task-runs/{key}/attempts", Permission.READ)
def list_attempts(run_id: str, key: str, verbs: Verbs) -> Page[AttemptOut]:
    """List the attempts of a task run that have ended, in their order."""
    found = verbs.runs.attempts(run_id, parse_key(key))
    return Page(items=[AttemptOut.of(attempt) for attempt in found])


@routes.get("/runs/{run_id}/task-runs/{key}/states", Permission.READ)
def list_task_run_states(run_id: str, key: str, verbs: Verbs) -> Page[StateChangeOut]:
    """List the states that a task run went through, oldest first."""
    found = verbs.runs.states(run_id, parse_key(key))
    return Page(items=[StateChangeOut.of_change(change) for change in found])


@routes.get("/runs/{run_id}/task-runs/{key}/result", Permission.READ)
def get_task_run_result(run_id: str, key: str, verbs: Verbs) -> ResultOut | None:
    """Return what is known about the value of a task run; null if there is none."""
    return ResultOut.of(verbs.runs.result(run_id, parse_key(key)))


@routes.get("/runs/{run_id}/counts", Permission.READ)
def get_counts(run_id: str, verbs: Verbs) -> CountsOut:
    """Return how many task runs of each node are in a state of which type."""
    found = verbs.runs.counts(run_id)
    return CountsOut(
        nodes=[NodeCounts(node=node, counts=counts) for node, counts in sorted(found.items())]
    )


class GraphQuery(In):
    """In which form."""

    form: Literal["full", "columns"] = "full"


@routes.get("/runs/{run_id}/graph", Permission.READ, response_model=dict[str, Any])
def get_graph(run_id: str, query: Annotated[GraphQuery, Query()], verbs: Verbs) -> dict[str, Any]:
    """Return the graph that a run recorded so far: in full, or as columns with counts of states."""
    graph = verbs.runs.graph(run_id)
    if query.form == "full":
        full: dict[str, Any] = plain(graph.to_dict())
        return full
    return _columns(graph, verbs.runs.counts(run_id)).model_dump(mode="json")


def _columns(graph: model.FlowGraph, counts: dict[int, dict[StateType, int]]) -> GraphColumns:
    return GraphColumns(
        flow=graph.flow,
        ids=[node.id for node in graph.nodes],
        keys=[node.key for node in graph.nodes],
        names=[node.name for node in graph.nodes],
        kinds=[node.kind.value for node in graph.nodes],
        lengths=[node.length for node in graph.nodes],
        states=[counts.get(node.id, {}) for node in graph.nodes],
        edges=sorted({(edge.source, edge.target) for edge in graph.edges}),
    )


def parse_key(text: str) -> TaskRunKey:
    """Read the key of a task run.

    Raises:
        NotFoundError: The text is none.
    """
    found = _KEY.fullmatch(text)
    if found is None:
        raise errors.NotFoundError(
            f"No task run {text!r}: 3 is call number 3 of a run, 3:7 item 7 of that map."
        )
    return TaskRunKey(int(found[1]), -1 if found[2] is None else int(found[2]))


def _cursor(text: str) -> TaskRunKey:
    try:
        return parse_key(text)
    except errors.NotFoundError as error:
        raise errors.CursorError(
            f"{text!r} is not the key of a task run. Take `next_cursor` of a page."
        ) from error
