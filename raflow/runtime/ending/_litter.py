"""Removes what attempts of a flow run have stored and never told of."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from raflow import errors
from raflow.model import FlowRun
from raflow.results import remove_unrecorded

if TYPE_CHECKING:
    from raflow.runtime._ports import RunStore

_LOG = logging.getLogger("raflow.runtime")


def remove_litter(
    store: RunStore, run: FlowRun, storages: Iterable[str], *, kept: str = "", look_further: bool
) -> None:
    """Remove the stored values of a flow run that its record does not name.

    Whoever calls this has the run, and all that its calls have told is on record. What cannot be
    removed stays, and is told in the log: the end of a run does not depend on that.

    Args:
        store: The record.
        run: The flow run, with the incarnation that has it.
        storages: Where its values may be.
        kept: URL of what is about to be recorded. Default: nothing.
        look_further: Whether processes before this one may have stored something elsewhere.
    """
    try:
        removed = remove_unrecorded(
            run.id,
            run.incarnation,
            storages,
            lambda: {kept, *_recorded(store, run)},
            look_further=look_further,
        )
    except errors.RaflowError as error:
        _LOG.warning("What broken-off attempts of %r have stored stays: %s", run.name, error)
    else:
        if removed:
            _LOG.debug("Removed %d stored values of broken-off attempts", removed)


def _recorded(store: RunStore, run: FlowRun) -> Iterator[str]:
    """Yield the URLs that are on record for a flow run."""
    stored = store.find_flow_run(run.id)
    for info in (stored.inputs, stored.result, run.inputs, run.result):
        if info is not None:
            yield info.url
    for row in store.recall.rows(run.id):
        if row.result is not None:
            yield row.result.url
    for block in store.recall.blocks(run.id):
        for info in block.results.values():
            yield info.url
