"""Writing: one batch of records in one transaction, as few statements with many rows each."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from raflow import errors, model
from raflow.store import _blocks, _graph_codec, _rows, _tables, _values

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

T = TypeVar("T")

_URL: Final[Mapping[str, str]] = {"sqlite": "sqlite://", "postgresql": "postgresql+psycopg://"}
"""What names a dialect, with the driver whose way of writing parameters the statements need."""


_Groups: TypeAlias = Mapping[type, Sequence[Any]]


class Prepared(NamedTuple):
    """A batch of records, with what takes long to encode already encoded."""

    flow_run_id: str
    seq: int
    groups: _Groups
    """The records by type, in order."""
    graph: tuple[int, int, bytes] | None
    """First and last node and content of the graph block, if there is one."""
    blocks: Sequence[_values.Row]
    """Rows of blocks of task runs, without their flow run."""


def prepare(batch: model.RecordBatch) -> Prepared:
    """Do what needs no database, so that a transaction is short.

    Raises:
        StoreError: A record belongs to another flow run.
    """
    groups: dict[type, list[Any]] = defaultdict(list)
    for record in batch.records:
        groups[type(record)].append(record)
    _check_owner(batch, groups)
    return Prepared(
        batch.flow_run_id,
        batch.seq,
        groups,
        _graph_block(groups),
        [_blocks.row(block) for block in _of(groups, model.TaskRunBlock)],
    )


def apply(connection: sa.Connection, batch: Prepared) -> bool:
    """Write the batch; return False, having written nothing, if it was written before.

    Raises:
        StoreError: The flow run was never recorded.
    """
    if not _claim(connection, batch):
        return False
    _write_flows(connection, batch)
    if not batch.groups.keys() <= _NOT_PARTS:
        number = flow_run_number(connection, batch.flow_run_id)
        if number is None:
            raise errors.StoreError(
                f"Batch {batch.seq} of flow run {batch.flow_run_id!r} came before the flow run "
                "itself. This is a bug in raflow: please report it with this message."
            )
        _write_parts(connection, batch, number)
    return True


_NOT_PARTS: Final = frozenset({model.FlowVersion, model.FlowRun, model.TaskPace})


def flow_run_number(connection: sa.Connection, flow_run_id: str) -> int | None:
    """Return the number that stands for a flow run in the rows that belong to it."""
    runs = _tables.flow_runs
    return connection.execute(sa.select(runs.c.number).where(runs.c.id == flow_run_id)).scalar()


def _of(groups: _Groups, kind: type[T]) -> Sequence[T]:
    return groups.get(kind, ())


def _check_owner(batch: model.RecordBatch, groups: _Groups) -> None:
    for kind, records in groups.items():
        if kind in {model.FlowVersion, model.TaskPace}:
            continue
        owners = {r.id if kind is model.FlowRun else r.flow_run_id for r in records}
        for owner in owners - {batch.flow_run_id}:
            raise errors.StoreError(
                f"Batch {batch.seq} of flow run {batch.flow_run_id!r} holds a "
                f"{kind.__name__} of flow run {owner!r}. This is a bug in raflow: please "
                "report it with this message."
            )


def _graph_block(groups: _Groups) -> tuple[int, int, bytes] | None:
    nodes = [record.node for record in _of(groups, model.NodeRecord)]
    edges = [record.edge for record in _of(groups, model.EdgeRecord)]
    if not nodes and not edges:
        return None
    ids = [node.id for node in nodes] or [-1]
    return min(ids), max(ids), _graph_codec.encode_graph(nodes, edges)


def _claim(connection: sa.Connection, batch: Prepared) -> bool:
    """Note that the batch is applied; False if another transaction did."""
    table = _tables.applied_batches
    values = {"flow_run_id": batch.flow_run_id, "seq": batch.seq}
    insert = _insert(table, connection.dialect.name).values(values)
    claimed = insert.on_conflict_do_nothing().returning(table.c.seq)
    return connection.execute(claimed).scalar() is not None


def _write_flows(connection: sa.Connection, batch: Prepared) -> None:
    versions = {(r.flow, r.fingerprint): r for r in _of(batch.groups, model.FlowVersion)}
    runs = {r.id: r for r in _of(batch.groups, model.FlowRun)}
    paces = {(r.flow, r.fingerprint, r.task): r for r in _of(batch.groups, model.TaskPace)}
    names = {r.flow for group in (versions, runs, paces) for r in group.values()}
    # Sorted, so that two transactions never wait for each other's rows.
    _upsert(connection, _tables.flows, [(_values.text(name),) for name in sorted(names)])
    _upsert(
        connection,
        _tables.flow_versions,
        [_rows.flow_version(versions[key]) for key in sorted(versions)],
    )
    _upsert(connection, _tables.task_paces, [_rows.task_pace(paces[key]) for key in sorted(paces)])
    _upsert(connection, _tables.flow_runs, [_rows.flow_run(r, batch.seq) for r in runs.values()])


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
    insert = _insert(table, dialect_name)
    if dialect_name == "postgresql":
        # One array per column is several times as fast as one statement per row.
        arrays = [sa.bindparam(c.name, type_=sa.ARRAY(c.type)) for c in _columns(table)]
        rows = sa.func.unnest(*arrays).table_valued(*names, name="rows").render_derived()
        insert = insert.from_select(names, sa.select(rows))
    key = _conflict_key(table)
    changed = {name: insert.excluded[name] for name in names if name not in key}
    if changed:
        newer = insert.excluded["seq"] >= table.c.seq if "seq" in table.c else None
        insert = insert.on_conflict_do_update(index_elements=key, set_=changed, where=newer)
    else:
        insert = insert.on_conflict_do_nothing()
    dialect = sa.make_url(_URL[dialect_name]).get_dialect()()
    sql = str(insert.compile(dialect=dialect, column_keys=names))
    # %b sends arrays in PostgreSQL's binary form, which takes the driver a third of the time.
    return sql.replace(")s::", ")b::") if dialect_name == "postgresql" else sql


def _insert(table: sa.Table, dialect_name: str) -> sqlite.Insert | postgresql.Insert:
    if dialect_name == "sqlite":
        return sqlite.insert(table)
    # Most records are in SQLite, and this would be a tenth of the time that `import raflow` takes.
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415

    return postgresql.insert(table)


def _columns(table: sa.Table) -> list[sa.Column[object]]:
    """Return the columns that are written: all but a number that the database gives."""
    return [column for column in table.columns if column.autoincrement is not True]


def _conflict_key(table: sa.Table) -> list[str]:
    """Return the columns, always the first ones of a row, that make two rows the same."""
    if table is _tables.flow_runs:
        return ["id"]
    return [column.name for column in table.primary_key]
