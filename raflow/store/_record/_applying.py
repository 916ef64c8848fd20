"""Writing many batches of records at once: as one transaction, unless one of them is no good."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

import sqlalchemy as sa

from raflow import errors, model
from raflow._util import crash_point
from raflow.store._record import _logs, _writes
from raflow.store._rows import _tables

if TYPE_CHECKING:
    from raflow.store._database._engine import Database

_LOG: Final = logging.getLogger("raflow.store")

Outcome: TypeAlias = bool | errors.RaflowError
"""What became of a batch: whether it was written now, or why it was not."""


def apply_many(
    database: Database, logs: _logs.LogFiles, batches: Sequence[model.BatchParts]
) -> list[Outcome]:
    """Write batches; see `Store.apply_many`."""
    if not batches:
        return []
    try:
        return list(_apply(database, logs, batches))
    except errors.RaflowError as error:
        if _is_of_the_database(error):
            return [error] * len(batches)
        found: errors.RaflowError = error
    except Exception as error:
        _LOG.exception("A bug in raflow: a batch of records cannot be written")
        found = errors.BatchError(
            f"A batch of records cannot be written ({type(error).__name__}: {error}). This is a "
            "bug in raflow: please report it with this message."
        )
    if len(batches) == 1:
        return [_as_batch_error(found, batches[0])]
    # One of them is no good, and its transaction was that of the others, too.
    return [outcome for one in batches for outcome in apply_many(database, logs, [one])]


def _apply(
    database: Database, logs: _logs.LogFiles, batches: Sequence[model.BatchParts]
) -> Sequence[bool]:
    known = _known(database, [batch for batch in batches if batch.logs])
    placed = [_placed(logs, batch, known) for batch in batches]
    logs.sync(r for batch in placed for r in batch.records if isinstance(r, model.LogSegment))
    prepared = [_writes.prepare(batch) for batch in placed]

    def write(connection: sa.Connection) -> list[bool]:
        applied = [_writes.apply(connection, batch) for batch in prepared]
        crash_point("store.before_commit")
        return applied

    applied = database.write(write)
    crash_point("store.after_commit")
    return applied


def _known(database: Database, batches: Sequence[model.BatchParts]) -> set[tuple[str, int]]:
    """Return which of these batches are on record: their log lines are not kept once more."""
    if not batches:
        return set()
    table = _tables.applied_batches
    key = sa.tuple_(table.c.flow_run_id, table.c.seq)
    wanted = [(batch.flow_run_id, batch.seq) for batch in batches]
    query = sa.select(table.c.flow_run_id, table.c.seq).where(key.in_(wanted))
    return database.read(lambda c: {(run, seq) for run, seq in c.execute(query)})


def _placed(
    logs: _logs.LogFiles, batch: model.BatchParts, known: set[tuple[str, int]]
) -> model.BatchParts:
    if not batch.logs or (batch.flow_run_id, batch.seq) in known:
        return batch
    return batch.with_logs_at([logs.append(batch.flow_run_id, blob) for blob in batch.logs])


def _is_of_the_database(error: errors.RaflowError) -> bool:
    """Whether the database, or a disk, is to blame, not what was to be written."""
    if not isinstance(error, errors.StoreError) or error.__cause__ is None:
        return False
    return not isinstance(error.__cause__, sa.exc.DataError | sa.exc.IntegrityError)


def _as_batch_error(error: errors.RaflowError, batch: model.BatchParts) -> errors.RaflowError:
    if not isinstance(error, errors.StoreError):
        return error
    refused = errors.BatchError(
        f"Batch {batch.seq} of flow run {batch.flow_run_id!r} cannot be written: {error}"
    )
    refused.__cause__ = error
    return refused
