"""What a resumed flow run reads of its own past, without a record for each task run in a block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from raflow import model
from raflow.store._reading import _graphs, _queries
from raflow.store._rows import _rows, _tables

if TYPE_CHECKING:
    from raflow.store._database._engine import Database

_runs = _tables.flow_runs
_BLOCKS: Final = 16
_ROWS: Final = 1000
_BEFORE_ALL: Final = model.TaskRunKey(-1, -1)


class Recall:
    """The past of a flow run, in the form in which a new process of the run needs it.

    Everything comes in pages, each read in a moment: nothing stays open between them. That is safe
    once `Leases.begin_incarnation` has shut out whoever wrote before.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def numbers(self, flow_run_id: str) -> model.RunNumbers:
        """Return where the record of a flow run goes on counting; zeros if it has none."""
        return self._database.read(lambda c: read_numbers(c, flow_run_id))

    def blocks(self, flow_run_id: str) -> Iterator[model.TaskRunBlock]:
        """Yield the blocks of task runs that completed at once, in the order of their numbers.

        Where `rows` has the same task run, the row counts.
        """
        for _, content in self.contents(flow_run_id):
            yield model.decode_block(content)

    def contents(self, flow_run_id: str, *, after: int = -1) -> Iterator[tuple[int, bytes]]:
        """Yield number and bytes of the blocks behind the one with a number, as they are kept."""
        table = _tables.task_run_blocks
        query = sa.select(table.c.number, table.c.content).order_by(table.c.number).limit(_BLOCKS)
        query = query.where(_queries.of(table, flow_run_id))
        last = after
        while page := self._read(query.where(table.c.number > last)):
            for row in page:
                yield row.number, row.content
            last = page[-1].number

    def rows(
        self, flow_run_id: str, *, after: model.TaskRunKey = _BEFORE_ALL
    ) -> Iterator[model.TaskRun]:
        """Yield the task runs behind a key that have a row of their own, in the order of keys."""
        table = _tables.task_runs
        key = (table.c.node, table.c.map_index)
        query = sa.select(table).where(_queries.of(table, flow_run_id)).order_by(*key).limit(_ROWS)
        last = after
        while page := self._read(query.where(sa.tuple_(*key) > tuple(last))):
            for row in page:
                run = _rows.read_task_run(flow_run_id, row)
                last = run.key
                yield run

    def nodes(self, flow_run_id: str) -> list[model.GraphNode]:
        """Return the calls that the body of a flow run made, in the order of ids."""
        return self._database.read(lambda c: _graphs.own_nodes(c, flow_run_id))

    def edges(self, flow_run_id: str) -> list[model.Edge]:
        """Return what the calls of a flow run depend on, sorted by target and source."""
        return self._database.read(lambda c: _graphs.own_edges(c, flow_run_id))

    def _read(self, query: sa.Select[Any]) -> list[sa.Row[Any]]:
        return self._database.read(lambda c: list(c.execute(query)))


def read_numbers(connection: sa.Connection, flow_run_id: str) -> model.RunNumbers:
    """Return where the record of a flow run goes on counting; zeros if it has none."""
    found = read_all_numbers(connection, _runs.c.id == flow_run_id)
    return found.get(flow_run_id, model.RunNumbers())


def read_all_numbers(
    connection: sa.Connection, which: sa.ColumnElement[bool]
) -> dict[str, model.RunNumbers]:
    """Return where the records of flow runs go on counting, by their ids."""
    batches, blocks = _tables.applied_batches, _tables.task_run_blocks
    states, segments = _tables.states, _tables.log_segments
    query = sa.select(
        _runs.c.id,
        _next(batches.c.seq, batches.c.flow_run_id == _runs.c.id),
        _next(states.c.number, states.c.flow_run == _runs.c.number),
        _next(blocks.c.number, blocks.c.flow_run == _runs.c.number),
        _next(segments.c.number, segments.c.flow_run == _runs.c.number),
    )
    return {
        run: model.RunNumbers(batch=batch, change=change, block=block, segment=segment)
        for run, batch, change, block, segment in connection.execute(query.where(which))
    }


def _next(number: sa.Column[int], of_run: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
    following = sa.func.coalesce(sa.func.max(number) + 1, 0)
    return sa.select(following).where(of_run).correlate(_runs).scalar_subquery()
