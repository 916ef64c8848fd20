"""Writing: one batch of records in one transaction, as few statements with many rows each."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from raflow import errors, model
from raflow.store import _rows, _tables, _values

_INSERT: Final[Mapping[str, Callable[[sa.Table], sqlite.Insert | postgresql.Insert]]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}
_DIALECT: Final[Mapping[str, sa.Dialect]] = {
    "sqlite": sa.make_url("sqlite://").get_dialect()(),
    "postgresql": sa.make_url("postgresql+psycopg://").get_dialect()(),
}


def apply(connection: sa.Connection, batch: model.RecordBatch) -> bool:
    """Write the batch; return False, having written nothing, if it was written before.

    Raises:
        StoreError: A record belongs to another flow run, or the flow run was never recorded.
    """
    _check_owner(batch)
    if not _claim(connection, batch):
        return False
    _write_flows(connection, batch)
    rest = [r for r in batch.records if not isinstance(r, model.FlowVersion | model.FlowRun)]
    if rest:
        number = flow_run_number(connection, batch.flow_run_id)
        if number is None:
            raise errors.StoreError(
                f"Batch {batch.seq} of flow run {batch.flow_run_id!r} came before the flow run "
                "itself. This is a bug in raflow: please report it with this message."
            )
        _write_parts(connection, rest, number, batch.seq)
    return True


def flow_run_number(connection: sa.Connection, flow_run_id: str) -> int | None:
    """Return the number that stands for a flow run in the rows that belong to it."""
    runs = _tables.flow_runs
    return connection.execute(sa.select(runs.c.number).where(runs.c.id == flow_run_id)).scalar()


def _check_owner(batch: model.RecordBatch) -> None:
    for record in batch.records:
        if isinstance(record, model.FlowVersion):
            continue
        owner = record.id if isinstance(record, model.FlowRun) else record.flow_run_id
        if owner != batch.flow_run_id:
            raise errors.StoreError(
                f"Batch {batch.seq} of flow run {batch.flow_run_id!r} holds a "
                f"{type(record).__name__} of flow run {owner!r}. This is a bug in raflow: please "
                "report it with this message."
            )


def _claim(connection: sa.Connection, batch: model.RecordBatch) -> bool:
    """Note that the batch is applied; False if another transaction did."""
    table = _tables.applied_batches
    values = {"flow_run_id": batch.flow_run_id, "seq": batch.seq}
    insert = _INSERT[connection.dialect.name](table).values(values)
    claimed = insert.on_conflict_do_nothing().returning(table.c.seq)
    return connection.execute(claimed).scalar() is not None


def _write_flows(connection: sa.Connection, batch: model.RecordBatch) -> None:
    versions = {
        (r.flow, r.fingerprint): r for r in batch.records if isinstance(r, model.FlowVersion)
    }
    runs = {r.id: r for r in batch.records if isinstance(r, model.FlowRun)}
    names = {r.flow for r in versions.values()} | {r.flow for r in runs.values()}
    # Sorted, so that two transactions never wait for each other's rows.
    _upsert(connection, _tables.flows, [(_values.text(name),) for name in sorted(names)])
    _upsert(
        connection,
        _tables.flow_versions,
        [_rows.flow_version(versions[key]) for key in sorted(versions)],
    )
    _upsert(connection, _tables.flow_runs, [_rows.flow_run(r, batch.seq) for r in runs.values()])


def _write_parts(
    connection: sa.Connection, records: Iterable[model.Record], run: int, seq: int
) -> None:
    task_runs: dict[model.TaskRunKey, model.TaskRun] = {}
    rows: dict[sa.Table, list[_values.Row]] = defaultdict(list)
    for record in records:
        match record:
            case model.TaskRun():
                # Most batches hold several records of a task run, and only the last one counts.
                task_runs[record.key] = record
            case model.StateChange():
                rows[_tables.states].append(_rows.state_change(record, run))
            case model.Attempt():
                rows[_tables.attempts].append(_rows.attempt(record, run))
            case model.LogSegment():
                rows[_tables.log_segments].append(_rows.log_segment(record, run))
            case model.EdgeRecord():
                rows[_tables.edges].append(_rows.edge(record, run))
            case model.NodeRecord():
                rows[_tables.nodes].append(_rows.node(record, run, seq))
    rows[_tables.task_runs] = [_rows.task_run(r, run, seq) for r in task_runs.values()]
    for table, its_rows in rows.items():
        _upsert(connection, table, its_rows)


def _upsert(connection: sa.Connection, table: sa.Table, rows: Sequence[_values.Row]) -> None:
    """Insert rows or replace those with the same key; of equal keys the last row counts."""
    if not rows:
        return
    sql = _upsert_sql(table, connection.dialect.name)
    width = len(_conflict_key(table))
    newest = {row[:width]: row for row in rows}.values()
    # The driver gets the rows as they are: SQLAlchemy's own handling would cost more than writing.
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(sql, list(newest))
    else:
        names = [column.name for column in _columns(table)]
        arrays = zip(names, map(list, zip(*newest, strict=True)), strict=True)
        connection.exec_driver_sql(sql, dict(arrays))


@functools.cache
def _upsert_sql(table: sa.Table, dialect_name: str) -> str:
    names = [column.name for column in _columns(table)]
    insert = _INSERT[dialect_name](table)
    if dialect_name == "postgresql":
        # One array per column is several times as fast as one statement per row.
        arrays = [sa.bindparam(c.name, type_=postgresql.ARRAY(c.type)) for c in _columns(table)]
        rows = sa.func.unnest(*arrays).table_valued(*names, name="rows").render_derived()
        insert = insert.from_select(names, sa.select(rows))
    key = _conflict_key(table)
    changed = {name: insert.excluded[name] for name in names if name not in key}
    if changed:
        newer = insert.excluded["seq"] >= table.c.seq if "seq" in table.c else None
        insert = insert.on_conflict_do_update(index_elements=key, set_=changed, where=newer)
    else:
        insert = insert.on_conflict_do_nothing()
    sql = str(insert.compile(dialect=_DIALECT[dialect_name], column_keys=names))
    # %b sends arrays in PostgreSQL's binary form, which takes the driver a third of the time.
    return sql.replace(")s::", ")b::") if dialect_name == "postgresql" else sql


def _columns(table: sa.Table) -> list[sa.Column[object]]:
    """Return the columns that are written: all but a number that the database gives."""
    return [column for column in table.columns if column.autoincrement is not True]


def _conflict_key(table: sa.Table) -> list[str]:
    """Return the columns, always the first ones of a row, that make two rows the same."""
    if table is _tables.flow_runs:
        return ["id"]
    return [column.name for column in table.primary_key]
