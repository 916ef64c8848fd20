"""Reading: what can be asked of the record. Every list is newest first unless it says otherwise."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import sqlalchemy as sa

from raflow import errors, model
from raflow.store import _rows, _tables, _values

_NAMES_OF_TYPE: Final = {
    kind: [name.value for name in model.StateName if name.type is kind] for kind in model.StateType
}
_RECENT: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowSummary:
    """A flow and how its runs went."""

    name: str
    versions: int
    """How many versions of its code were recorded."""
    last_run: model.FlowRun | None
    """The newest flow run."""
    counts: Mapping[model.StateType, int]
    """Number of flow runs by the type of their state; types without any are left out."""


# --- Flows ----------------------------------------------------------------------------------------


def flows(connection: sa.Connection) -> list[FlowSummary]:
    """Return every flow, the one that ran last first."""
    runs, versions = _tables.flow_runs, _tables.flow_versions
    counts: dict[str, Counter[model.StateType]] = defaultdict(Counter)
    by_state = sa.select(runs.c.flow, runs.c.state, sa.func.count())
    for flow, state, count in connection.execute(by_state.group_by(runs.c.flow, runs.c.state)):
        counts[flow][model.StateName(state).type] += count
    by_flow = sa.select(versions.c.flow, sa.func.count()).group_by(versions.c.flow)
    version_counts: dict[str, int] = {row[0]: row[1] for row in connection.execute(by_flow)}
    summaries = [
        FlowSummary(
            name=name,
            versions=version_counts.get(name, 0),
            last_run=last_run,
            counts=dict(counts[name]),
        )
        for name, last_run in _last_runs(connection)
    ]
    return sorted(summaries, key=_last_ran_first)


def _last_runs(connection: sa.Connection) -> Iterator[tuple[str, model.FlowRun | None]]:
    flow, runs = _tables.flows, _tables.flow_runs
    older = runs.alias("older")
    last = (
        sa.select(older.c.number)
        .where(older.c.flow == flow.c.name)
        .order_by(older.c.created_at.desc(), older.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    query = sa.select(flow.c.name, runs).outerjoin_from(flow, runs, runs.c.number == last)
    for name, *run in connection.execute(query):
        yield name, None if run[0] is None else _rows.read_flow_run(run)


def _last_ran_first(summary: FlowSummary) -> tuple[float, str]:
    return -(summary.last_run.created_at if summary.last_run else 0.0), summary.name


def flow_version(
    connection: sa.Connection, fingerprint: str, *, flow: str | None
) -> model.FlowVersion:
    """Return the version with this fingerprint, of this flow if two share the code."""
    table = _tables.flow_versions
    query = sa.select(table).where(table.c.fingerprint == fingerprint)
    if flow is not None:
        query = query.where(table.c.flow == flow)
    row = connection.execute(query.order_by(table.c.created_at.desc()).limit(1)).first()
    if row is None:
        known = connection.execute(sa.select(table.c.fingerprint).limit(_RECENT)).scalars()
        raise errors.NotFoundError.of("flow version", fingerprint, known)
    return _rows.read_flow_version(row)


# --- Flow runs ------------------------------------------------------------------------------------


def flow_runs(
    connection: sa.Connection,
    *,
    flow: str | None = None,
    state_types: Collection[model.StateType] | None = None,
    limit: int | None = None,
    before: tuple[float, str] | None = None,
    parent: str | None = None,
    roots: bool = False,
) -> list[model.FlowRun]:
    """Return flow runs; see `Store.flow_runs`."""
    table = _tables.flow_runs
    query = sa.select(table).order_by(table.c.created_at.desc(), table.c.id.desc()).limit(limit)
    if flow is not None:
        query = query.where(table.c.flow == flow)
    if state_types is not None:
        query = query.where(table.c.state.in_(_state_names(state_types)))
    if before is not None:
        query = query.where(sa.tuple_(table.c.created_at, table.c.id) < before)
    if parent is not None:
        query = query.where(table.c.parent_id == parent)
    if roots:
        query = query.where(table.c.parent_id.is_(None))
    return [_rows.read_flow_run(row) for row in connection.execute(query)]


def find_flow_run(connection: sa.Connection, text: str) -> model.FlowRun:
    """Return the flow run that a person means by `text`; see `Store.find_flow_run`."""
    if text == "latest":
        newest = flow_runs(connection, limit=1, roots=True)
        if newest:
            return newest[0]
        raise errors.NotFoundError("No flow run was recorded yet. `raflow run FILE` makes one.")
    table = _tables.flow_runs
    for condition in (table.c.id == text, table.c.name == text, _begins_or_ends(table.c.id, text)):
        query = sa.select(table.c.id).where(condition).order_by(table.c.created_at.desc())
        found = connection.execute(query).scalars().all()
        if len(found) == 1:
            return flow_run(connection, found[0])
        if found:
            raise _ambiguous(text, found)
    recent = sa.select(table.c.id, table.c.name).order_by(table.c.created_at.desc()).limit(_RECENT)
    known = {text for row in connection.execute(recent) for text in row}
    raise errors.NotFoundError.of("flow run", text, known, "See `raflow runs ls`.")


def flow_run(connection: sa.Connection, flow_run_id: str) -> model.FlowRun:
    """Return the flow run with this id."""
    table = _tables.flow_runs
    row = connection.execute(sa.select(table).where(table.c.id == flow_run_id)).first()
    if row is None:
        raise errors.NotFoundError.of("flow run", flow_run_id, ())
    return _rows.read_flow_run(row)


def _begins_or_ends(column: sa.Column[str], text: str) -> sa.ColumnElement[bool]:
    # Not LIKE: SQLite's ignores case and PostgreSQL's does not.
    ends = sa.func.substr(column, sa.func.length(column) - len(text) + 1) == text
    return sa.or_(sa.func.substr(column, 1, len(text)) == text, ends)


def _ambiguous(text: str, ids: Sequence[str]) -> errors.NotFoundError:
    return errors.NotFoundError(
        f"{text!r} fits {len(ids)} flow runs, the newest being {', '.join(ids[:5])}. Give more of "
        "the id.",
        closest=list(ids[:5]),
    )


def _state_names(types: Collection[model.StateType]) -> list[str]:
    return [name for kind in types for name in _NAMES_OF_TYPE[kind]]


# --- Inside a flow run ----------------------------------------------------------------------------


def _of(table: sa.Table, flow_run_id: str) -> sa.ColumnElement[bool]:
    runs = _tables.flow_runs
    number = sa.select(runs.c.number).where(runs.c.id == flow_run_id).scalar_subquery()
    return table.c.flow_run == number


def _at(table: sa.Table, key: model.TaskRunKey | None) -> sa.ColumnElement[bool]:
    node, map_index = _values.key(key)
    return sa.and_(table.c.node == node, table.c.map_index == map_index)


def task_runs(
    connection: sa.Connection,
    flow_run_id: str,
    *,
    state_types: Collection[model.StateType] | None,
    node: int | None,
    limit: int | None,
    after: model.TaskRunKey | None,
) -> list[model.TaskRun]:
    """Return task runs in the order of calls; see `Store.task_runs`."""
    table = _tables.task_runs
    key = (table.c.node, table.c.map_index)
    wanted = sa.select(*key).where(_of(table, flow_run_id))
    order: Iterable[sa.ColumnElement[int]] = key
    if state_types is not None:
        wanted = wanted.where(table.c.state.in_(_state_names(state_types)))
        if model.StateType.COMPLETED not in state_types:
            # A few of very many: the sums keep SQLite from reading every row in the order of the
            # primary key, so that it takes the index on states.
            order = [column + 0 for column in key]
    if node is not None:
        wanted = wanted.where(table.c.node == node)
    if after is not None:
        wanted = wanted.where(sa.tuple_(*key) > tuple(after))
    wanted = wanted.order_by(*order).limit(limit)
    query = sa.select(table).where(_of(table, flow_run_id), sa.tuple_(*key).in_(wanted))
    rows = connection.execute(query.order_by(*key))
    return [_rows.read_task_run(flow_run_id, row) for row in rows]


def task_run_counts(
    connection: sa.Connection, flow_run_id: str
) -> dict[int, dict[model.StateType, int]]:
    """Return how many task runs of each node are in which type of state."""
    table = _tables.task_runs
    query = (
        sa.select(table.c.node, table.c.state, sa.func.count())
        .where(_of(table, flow_run_id))
        .group_by(table.c.node, table.c.state)
        .order_by(table.c.node)
    )
    counts: dict[int, Counter[model.StateType]] = defaultdict(Counter)
    for node, state, count in connection.execute(query):
        counts[node][model.StateName(state).type] += count
    return {node: dict(by_type) for node, by_type in counts.items()}


def attempts(
    connection: sa.Connection, flow_run_id: str, key: model.TaskRunKey | None
) -> list[model.Attempt]:
    """Return attempts, of one task run if `key` is given, in the order of calls and numbers."""
    table = _tables.attempts
    query = sa.select(table).where(_of(table, flow_run_id))
    if key is not None:
        query = query.where(_at(table, key))
    rows = connection.execute(query.order_by(table.c.node, table.c.map_index, table.c.number))
    return [_rows.read_attempt(flow_run_id, row) for row in rows]


def states(
    connection: sa.Connection, flow_run_id: str, key: model.TaskRunKey | None
) -> list[model.StateChange]:
    """Return the states that a task run, or the flow run itself, went through, oldest first."""
    table = _tables.states
    query = sa.select(table).where(_of(table, flow_run_id), _at(table, key))
    rows = connection.execute(query.order_by(table.c.number))
    return [_rows.read_state_change(flow_run_id, row) for row in rows]


def log_segments(
    connection: sa.Connection,
    flow_run_id: str,
    *,
    key: model.TaskRunKey | None,
    attempt: int | None,
) -> list[model.LogSegment]:
    """Return where log lines are, oldest first; see `Store.log_segments`."""
    table = _tables.log_segments
    query = sa.select(table).where(_of(table, flow_run_id))
    if key is not None:
        query = query.where(_at(table, key))
    if attempt is not None:
        query = query.where(table.c.attempt == attempt)
    rows = connection.execute(query.order_by(table.c.number))
    return [_rows.read_log_segment(flow_run_id, row) for row in rows]


def result(
    connection: sa.Connection, flow_run_id: str, key: model.TaskRunKey | None
) -> model.ResultInfo | None:
    """Return what is known about the value of a task run, or of the flow run itself."""
    if key is None:
        table, condition = _tables.flow_runs, _tables.flow_runs.c.id == flow_run_id
    else:
        table = _tables.task_runs
        condition = sa.and_(_of(table, flow_run_id), _at(table, key))
    columns = [column for column in table.columns if column.name.startswith("result_")]
    row = connection.execute(sa.select(*columns).where(condition)).first()
    return None if row is None else _values.read_result(row)


# --- The graph ------------------------------------------------------------------------------------

_Tree: TypeAlias = Mapping[str, Mapping[int, tuple[str, str]]]


def graph(connection: sa.Connection, flow_run_id: str) -> model.FlowGraph:
    """Return the graph that a flow run recorded, with those of its subflows inside."""
    run = flow_run(connection, flow_run_id)
    tree = _descendants(connection, flow_run_id)
    return _graph_of(connection, run.flow, run.id, tree)


def _graph_of(
    connection: sa.Connection, flow: str, flow_run_id: str, tree: _Tree
) -> model.FlowGraph:
    nodes, edges = _tables.nodes, _tables.edges
    node_rows = connection.execute(
        sa.select(nodes).where(_of(nodes, flow_run_id)).order_by(nodes.c.id)
    )
    edge_rows = connection.execute(sa.select(edges).where(_of(edges, flow_run_id)))
    # Not checked again: a run that is under way, or that died, still has its graph so far.
    return model.FlowGraph(
        flow=flow,
        nodes=tuple(_rows.read_node(row) for row in node_rows),
        edges=tuple(sorted(map(_rows.read_edge, edge_rows), key=_edge_order)),
        subgraphs={
            node: _graph_of(connection, child_flow, child_id, tree)
            for node, (child_id, child_flow) in tree.get(flow_run_id, {}).items()
        },
    )


def _descendants(connection: sa.Connection, flow_run_id: str) -> _Tree:
    """Return id and flow of the newest child flow run of each node, by id of the parent."""
    runs = _tables.flow_runs
    columns = (runs.c.id, runs.c.flow, runs.c.parent_id, runs.c.parent_node, runs.c.created_at)
    below = sa.select(*columns).where(runs.c.parent_id == flow_run_id).cte("below", recursive=True)
    below = below.union(sa.select(*columns).where(runs.c.parent_id == below.c.id))
    tree: dict[str, dict[int, tuple[str, str]]] = defaultdict(dict)
    for child in connection.execute(sa.select(below).order_by(below.c.created_at, below.c.id)):
        if child.parent_node is not None:
            tree[child.parent_id][child.parent_node] = (child.id, child.flow)
    return tree


def _edge_order(edge: model.Edge) -> tuple[int, int, str, str, int, int]:
    source_item = -1 if edge.source_item is None else edge.source_item
    target_item = -1 if edge.target_item is None else edge.target_item
    return edge.target, edge.source, edge.kind.value, edge.parameter, source_item, target_item
