"""Reading: what can be asked of the record. Every list is newest first unless it says otherwise."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from raflow import errors, model
from raflow.store._rows import _rows, _tables, _values

_NAMES_OF_TYPE: Final = {
    kind: [name.value for name in model.StateName if name.type is kind] for kind in model.StateType
}
_DEEPEST: Final = 100
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


def flow_versions(connection: sa.Connection, flow: str) -> list[model.FlowVersion]:
    """Return the versions of a flow, newest first."""
    table = _tables.flow_versions
    query = sa.select(table).where(table.c.flow == flow)
    query = query.order_by(table.c.created_at.desc(), table.c.fingerprint)
    return [_rows.read_flow_version(row) for row in connection.execute(query)]


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
        query = query.where(table.c.state.in_(state_names(state_types)))
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


def line_of(connection: sa.Connection, flow_run_id: str) -> list[str]:
    """Return a flow run and those above it; see `Store.line_of`."""
    table = _tables.flow_runs
    depth = sa.literal(0).label("depth")
    first = sa.select(table.c.id, table.c.parent_id, depth).where(table.c.id == flow_run_id)
    above = first.cte("above", recursive=True)
    above = above.union_all(
        sa.select(table.c.id, table.c.parent_id, above.c.depth + 1).where(
            table.c.id == above.c.parent_id, above.c.depth < _DEEPEST
        )
    )
    found = connection.execute(sa.select(above.c.id).order_by(above.c.depth)).scalars().all()
    if not found:
        raise errors.NotFoundError.of("flow run", flow_run_id, ())
    return list(found)


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


def state_names(types: Collection[model.StateType]) -> list[str]:
    """Return the names of states of these types, as rows hold them."""
    return [name for kind in types for name in _NAMES_OF_TYPE[kind]]


def task_paces(connection: sa.Connection, flow: str, fingerprint: str) -> dict[str, model.TaskPace]:
    """Return what was learned about the tasks of a flow version, by name of the task."""
    table = _tables.task_paces
    query = sa.select(table).where(table.c.flow == flow, table.c.fingerprint == fingerprint)
    paces = [_rows.read_task_pace(row) for row in connection.execute(query)]
    return {pace.task: pace for pace in paces}


# --- Inside a flow run ----------------------------------------------------------------------------


def of(table: sa.Table, flow_run_id: str) -> sa.ColumnElement[bool]:
    """Return the condition that a row belongs to a flow run."""
    runs = _tables.flow_runs
    number = sa.select(runs.c.number).where(runs.c.id == flow_run_id).scalar_subquery()
    return table.c.flow_run == number


def at(table: sa.Table, key: model.TaskRunKey | None) -> sa.ColumnElement[bool]:
    """Return the condition that a row belongs to a task run, or to the flow run itself."""
    node, map_index = _values.key(key)
    return sa.and_(table.c.node == node, table.c.map_index == map_index)


def log_segments(
    connection: sa.Connection,
    flow_run_id: str,
    *,
    key: model.TaskRunKey | None,
    attempt: int | None,
) -> list[model.LogSegment]:
    """Return where log lines are, oldest first; see `Store.log_segments`."""
    table = _tables.log_segments
    query = sa.select(table).where(of(table, flow_run_id))
    if key is not None:
        query = query.where(at(table, key))
    if attempt is not None:
        query = query.where(table.c.attempt == attempt)
    rows = connection.execute(query.order_by(table.c.number))
    return [_rows.read_log_segment(flow_run_id, row) for row in rows]
