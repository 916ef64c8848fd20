"""Reading what a task run went through: attempts, states and result, from its rows and blocks."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

import sqlalchemy as sa

from raflow import model
from raflow.store._reading import _blocks, _graphs, _queries
from raflow.store._record import _writes
from raflow.store._rows import _rows, _tables, _values


def attempts(
    connection: sa.Connection, flow_run_id: str, key: model.TaskRunKey | None
) -> list[model.Attempt]:
    """Return attempts, of one task run if `key` is given, in the order of calls and numbers."""
    run = _writes.flow_run_number(connection, flow_run_id)
    if run is None:
        return []
    table = _tables.attempts
    query = sa.select(table).where(table.c.flow_run == run)
    if key is not None:
        query = query.where(_queries.at(table, key))
    rows = connection.execute(query.order_by(table.c.node, table.c.map_index, table.c.number))
    recorded = [_rows.read_attempt(flow_run_id, row) for row in rows]
    blocks = _blocks.Blocks(connection, run)
    completed = _all_completed(blocks) if key is None else _completed(blocks, key)
    known = {attempt.key for attempt in recorded if attempt.number == 1}
    recorded += [attempt for attempt in completed if attempt.key not in known]
    return sorted(recorded, key=lambda attempt: (attempt.key, attempt.number))


def _completed(blocks: _blocks.Blocks, key: model.TaskRunKey) -> Iterator[model.Attempt]:
    found = blocks.find(key)
    if found is not None and not found[0].block.origin:
        reader, position = found
        yield reader.attempt(position, key)


def _all_completed(blocks: _blocks.Blocks) -> Iterator[model.Attempt]:
    for reader in blocks.readers():
        for position, key in enumerate(() if reader.block.origin else reader.keys):
            yield reader.attempt(position, key)


def states(
    connection: sa.Connection, flow_run_id: str, key: model.TaskRunKey | None
) -> list[model.StateChange]:
    """Return the states that a task run, or the flow run itself, went through, oldest first."""
    run = _writes.flow_run_number(connection, flow_run_id)
    if run is None:
        return []
    table = _tables.states
    query = sa.select(table).where(table.c.flow_run == run, _queries.at(table, key))
    rows = connection.execute(query.order_by(table.c.number))
    recorded = [_rows.read_state_change(flow_run_id, row) for row in rows]
    if key is None:
        return recorded
    known = {change.state.name for change in recorded}
    implied = [state for state in _implied(connection, run, key) if state.name not in known]
    changes = [
        model.StateChange(flow_run_id=flow_run_id, number=number, key=key, state=state)
        for number, state in enumerate(implied, start=-len(implied))
    ]
    # Merged, not sorted: clocks of nodes may differ, and both lists are in order.
    return list(heapq.merge(changes, recorded, key=lambda change: change.state.at))


def _implied(connection: sa.Connection, run: int, key: model.TaskRunKey) -> Iterable[model.State]:
    """Yield the states that are known without being recorded one by one."""
    node = _graphs.node(connection, run, key.node)
    found = _blocks.Blocks(connection, run).find(key)
    # Graphs of earlier versions do not tell when a call was made.
    if (
        node is not None
        and node.created_at
        and key.map_index in model.items_of(node.kind, node.length)
    ):
        yield model.State(name=model.StateName.PENDING, at=node.created_at)
    if found is not None:
        reader, position = found
        yield from reader.states(position)


def result(
    connection: sa.Connection, flow_run_id: str, key: model.TaskRunKey | None
) -> model.ResultInfo | None:
    """Return what is known about the value of a task run, or of the flow run itself."""
    if key is None:
        table, condition = _tables.flow_runs, _tables.flow_runs.c.id == flow_run_id
    else:
        table = _tables.task_runs
        condition = sa.and_(_queries.of(table, flow_run_id), _queries.at(table, key))
    columns = [column for column in table.columns if column.name.startswith("result_")]
    row = connection.execute(sa.select(*columns).where(condition)).first()
    if row is not None:
        return _values.read_result(row)
    run = _writes.flow_run_number(connection, flow_run_id)
    if key is None or run is None:
        return None
    found = _blocks.Blocks(connection, run).find(key)
    return None if found is None else found[0].result(found[1])
