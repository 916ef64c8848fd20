"""Inserting rows, or replacing those with the same key: as few statements with many rows each."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from raflow.store._rows import _tables, _values

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql

_URL: Final[Mapping[str, str]] = {"sqlite": "sqlite://", "postgresql": "postgresql+psycopg://"}
"""What names a dialect, with the driver whose way of writing parameters the statements need."""


def upsert(connection: sa.Connection, table: sa.Table, rows: Sequence[_values.Row]) -> None:
    """Insert rows or replace those with the same key; of equal keys the last row counts."""
    _write(connection, table, rows, replace=True)


def insert_new(connection: sa.Connection, table: sa.Table, rows: Sequence[_values.Row]) -> None:
    """Insert rows but those whose key is there already."""
    _write(connection, table, rows, replace=False)


def insert_fresh(
    connection: sa.Connection, table: sa.Table, rows: Sequence[_values.Row], *, found_by: str
) -> list[str]:
    """Insert rows, all columns of them, but those whose key is there already.

    Args:
        connection: One that writes.
        table: Where to.
        rows: Values of `all_columns`.
        found_by: A column with an index whose values nobody else writes.

    Returns:
        That column of those that were inserted.
    """
    if not rows:
        return []
    dialect = connection.dialect.name
    sql = _insert_sql(table, dialect, replace=False, whole=True, returning=found_by)
    names = [column.name for column in all_columns(table)]
    if dialect != "sqlite":
        arrays = zip(names, map(list, zip(*rows, strict=True)), strict=True)
        return list(connection.exec_driver_sql(sql, dict(arrays)).scalars())
    position = names.index(found_by)
    values = orjson.dumps([row[position] for row in rows]).decode()
    column = table.c[found_by]
    given = sa.func.json_each(sa.bindparam("values")).table_valued("value")
    there = sa.select(column).where(column.in_(sa.select(given.c.value)))
    before = set(connection.execute(there, {"values": values}).scalars())
    connection.exec_driver_sql(sql, list(rows))
    after = connection.execute(there, {"values": values}).scalars()
    return [value for value in after if value not in before]


def _write(
    connection: sa.Connection, table: sa.Table, rows: Sequence[_values.Row], *, replace: bool
) -> None:
    if not rows:
        return
    sql = _insert_sql(table, connection.dialect.name, replace=replace)
    width = len(_conflict_key(table))
    newest = {row[:width]: row for row in rows}.values()
    # The driver gets the rows as they are: SQLAlchemy's own handling would cost more than writing.
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(sql, list(newest))
    else:
        names = [column.name for column in columns(table)]
        arrays = zip(names, map(list, zip(*newest, strict=True)), strict=True)
        connection.exec_driver_sql(sql, dict(arrays))


@functools.cache
def _insert_sql(
    table: sa.Table,
    dialect_name: str,
    *,
    replace: bool,
    whole: bool = False,
    returning: str = "",
) -> str:
    written = all_columns(table) if whole else columns(table)
    names = [column.name for column in written]
    insert = insert_into(table, dialect_name)
    if dialect_name == "postgresql":
        # One array per column is several times as fast as one statement per row.
        arrays = [sa.bindparam(c.name, type_=sa.ARRAY(c.type)) for c in written]
        rows = sa.func.unnest(*arrays).table_valued(*names, name="rows").render_derived()
        insert = insert.from_select(names, sa.select(rows))
    key = _conflict_key(table)
    changed = {name: insert.excluded[name] for name in names if name not in key}
    if changed and replace:
        newer = insert.excluded["seq"] >= table.c.seq if "seq" in table.c else None
        insert = insert.on_conflict_do_update(index_elements=key, set_=changed, where=newer)
    else:
        insert = insert.on_conflict_do_nothing()
    dialect = sa.make_url(_URL[dialect_name]).get_dialect()()
    # SQLite returns nothing of many rows at a time.
    returns = returning and dialect_name == "postgresql"
    whole_sql = insert.returning(table.c[returning]) if returns else insert
    sql = str(whole_sql.compile(dialect=dialect, column_keys=names))
    # %b sends arrays in PostgreSQL's binary form, which takes the driver a third of the time.
    return sql.replace(")s::", ")b::") if dialect_name == "postgresql" else sql


def insert_into(table: sa.Table, dialect_name: str) -> sqlite.Insert | postgresql.Insert:
    """Return an `INSERT` that can say what to do about rows with the same key."""
    if dialect_name == "sqlite":
        return sqlite.insert(table)
    # Most records are in SQLite, and this would be a tenth of the time that `import raflow` takes.
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415

    return postgresql.insert(table)


def columns(table: sa.Table) -> list[sa.Column[object]]:
    """Return the columns that are written: not what the database gives, nor what is kept."""
    return [column for column in all_columns(table) if "kept" not in column.info]


def all_columns(table: sa.Table) -> list[sa.Column[object]]:
    """Return the columns but those that the database gives."""
    return [column for column in table.columns if column.autoincrement is not True]


def _conflict_key(table: sa.Table) -> list[str]:
    """Return the columns, always the first ones of a row, that make two rows the same."""
    if table is _tables.flow_runs:
        return ["id"]
    return [column.name for column in table.primary_key]
