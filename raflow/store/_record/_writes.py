"""Writing: one batch of records in one transaction, as few statements with many rows each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import sqlalchemy as sa

from raflow import errors, model
from raflow.store import _feed
from raflow.store._record import _driving, _dropping, _moves, _tallies
from raflow.store._rows import _rows, _tables, _upserts, _values

T = TypeVar("T")

_Groups: TypeAlias = Mapping[type, Sequence[Any]]


class Prepared(NamedTuple):
    """A batch of records, sorted by where they go."""

    flow_run_id: str
    seq: int
    incarnation: int
    groups: _Groups
    """The records by type, in order."""
    graph: model.GraphPart | None
    blocks: Sequence[model.BlockPart]
    dropped: frozenset[int]
    """Nodes of which all that was recorded before is dropped."""


def prepare(batch: model.RecordBatch | model.BatchParts) -> Prepared:
    """Do what needs no database, so that a transaction is short.

    Raises:
        StoreError: A record belongs to another flow run.
    """
    parts = batch if isinstance(batch, model.BatchParts) else model.parts_of(batch)
    groups: dict[type, list[Any]] = defaultdict(list)
    for record in parts.records:
        groups[type(record)].append(record)
    return Prepared(
        parts.flow_run_id,
        parts.seq,
        parts.incarnation,
        groups,
        parts.graph,
        parts.blocks,
        parts.dropped,
    )


def apply(connection: sa.Connection, batch: Prepared) -> bool:
    """Write the batch; return False, having written nothing, if it was written before.

    Raises:
        FencedError: Another process drives the flow run by now.
        StoreError: The flow run was never recorded.
    """
    standing = _driving.lock(connection, batch.flow_run_id)
    if standing is not None:
        _driving.check(batch.flow_run_id, batch.incarnation, standing)
    if not _claim(connection, batch):
        return False
    _write_flows(connection, batch)
    runs = _of(batch.groups, model.FlowRun)
    if standing is not None:
        number: int | None = standing.number
        _driving.advance(connection, standing, batch.incarnation)
    else:
        number = flow_run_number(connection, batch.flow_run_id)
    if _has_parts(batch):
        if number is None:
            raise errors.StoreError(
                f"Batch {batch.seq} of flow run {batch.flow_run_id!r} came before the flow run "
                "itself. This is a bug in raflow: please report it with this message."
            )
        if batch.dropped:
            _dropping.drop_calls(connection, number, batch.dropped)
        _write_parts(connection, batch, number)
    _tell(connection, batch, standing)
    if runs and number is not None:
        _follow(connection, batch, standing, number, runs[-1])
    return True


def _follow(
    connection: sa.Connection,
    batch: Prepared,
    standing: _driving.Standing | None,
    number: int,
    run: model.FlowRun,
) -> None:
    """Do what the new state of a flow run asks for."""
    now = run.state.name
    counted = _tallies.Counted(_values.seconds(run.created_at), _values.text(run.flow), "", now)
    if standing is None:
        _driving.begin_first(connection, number, run, batch.incarnation)
        _tag(connection, number, run)
        _tallies.move(connection, number, None, counted)
        return
    if run.state.is_final:
        _driving.end(connection, number, run.id, now)
    if batch.seq < standing.seq:
        # The row is that of a later batch.
        return
    counted = counted._replace(deployment=standing.deployment)
    _tallies.move(connection, number, standing.counted, counted)
    if standing.pool and now is not standing.state:
        _moves.follow(connection, number, run.state)
        if standing.state is model.StateName.SUBMITTED:
            _tag(connection, number, run)


def _tell(connection: sa.Connection, batch: Prepared, standing: _driving.Standing | None) -> None:
    """Tell whoever listens which states the flow run has entered."""
    changes = _of(batch.groups, model.StateChange)
    entered = [change.state for change in changes if change.key is None]
    if not entered:
        return
    flow = standing.flow if standing else _of(batch.groups, model.FlowRun)[-1].flow
    deployment = (standing.deployment if standing else "") or None
    told = [_feed.of_state(batch.flow_run_id, flow, deployment, state) for state in entered]
    _feed.append(connection, told)


def _tag(connection: sa.Connection, number: int, run: model.FlowRun) -> None:
    """List the tags of a flow run, which do not change once it has begun."""
    if run.tags:
        from raflow.store._rows import _service_tables  # noqa: PLC0415  # most flow runs have none

        created_at = _values.seconds(run.created_at)
        rows: list[_values.Row] = [
            (tag, created_at, number) for tag in sorted({_values.text(tag) for tag in run.tags})
        ]
        _upserts.upsert(connection, _service_tables.run_tags, rows)


def _has_parts(batch: Prepared) -> bool:
    """Whether there is what belongs to a flow run: it has to be on record before."""
    others = batch.groups.keys() - _NOT_PARTS
    return bool(others or batch.graph or batch.blocks or batch.dropped)


_NOT_PARTS: Final = frozenset({model.FlowVersion, model.FlowRun, model.TaskPace})


def flow_run_number(connection: sa.Connection, flow_run_id: str) -> int | None:
    """Return the number that stands for a flow run in the rows that belong to it."""
    runs = _tables.flow_runs
    return connection.execute(sa.select(runs.c.number).where(runs.c.id == flow_run_id)).scalar()


def _of(groups: _Groups, kind: type[T]) -> Sequence[T]:
    return groups.get(kind, ())


def _claim(connection: sa.Connection, batch: Prepared) -> bool:
    """Note that the batch is applied; False if another transaction did."""
    table = _tables.applied_batches
    values = {"flow_run_id": batch.flow_run_id, "seq": batch.seq}
    insert = _upserts.insert_into(table, connection.dialect.name).values(values)
    claimed = insert.on_conflict_do_nothing().returning(table.c.seq)
    return connection.execute(claimed).scalar() is not None


def _write_flows(connection: sa.Connection, batch: Prepared) -> None:
    versions = {(r.flow, r.fingerprint): r for r in _of(batch.groups, model.FlowVersion)}
    runs = {r.id: r for r in _of(batch.groups, model.FlowRun)}
    paces = {(r.flow, r.fingerprint, r.task): r for r in _of(batch.groups, model.TaskPace)}
    names = {r.flow for group in (versions, runs, paces) for r in group.values()}
    # Sorted, so that two transactions never wait for each other's rows.
    _upserts.upsert(connection, _tables.flows, [(_values.text(name),) for name in sorted(names)])
    _upserts.upsert(
        connection,
        _tables.flow_versions,
        [_rows.flow_version(versions[key]) for key in sorted(versions)],
    )
    rows = [_rows.task_pace(paces[key]) for key in sorted(paces)]
    _upserts.upsert(connection, _tables.task_paces, rows)
    _upserts.upsert(
        connection,
        _tables.flow_runs,
        [_rows.flow_run(r, batch.seq, batch.incarnation) for r in runs.values()],
    )


def _write_parts(connection: sa.Connection, batch: Prepared, run: int) -> None:
    groups, seq = batch.groups, batch.seq
    # Many batches hold several records of a task run, and only the last one counts.
    task_runs = {record.key: record for record in _of(groups, model.TaskRun)}
    rows: dict[sa.Table, list[_values.Row]] = {
        _tables.states: [_rows.state_change(r, run) for r in _of(groups, model.StateChange)],
        _tables.attempts: [_rows.attempt(r, run) for r in _of(groups, model.Attempt)],
        _tables.log_segments: [_rows.log_segment(r, run) for r in _of(groups, model.LogSegment)],
        _tables.graph_blocks: [] if batch.graph is None else [(run, seq, *batch.graph)],
        _tables.task_run_blocks: [(run, *row) for row in batch.blocks],
        _tables.task_runs: [_rows.task_run(r, run, seq) for r in task_runs.values()],
    }
    for table, its_rows in rows.items():
        _upserts.upsert(connection, table, its_rows)
