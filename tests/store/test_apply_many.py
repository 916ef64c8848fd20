"""Batches that are written together: one that is no good does not keep the others out."""

from __future__ import annotations

import dataclasses

from raflow import errors, model
from raflow.store import Store
from tests.store import records


def parts(run_id: str, *rows: model.Record, seq: int = 0, incarnation: int = 1) -> model.BatchParts:
    batch = records.batch(*rows, flow_run_id=run_id, seq=seq, incarnation=incarnation)
    return model.parts_of(batch)


def test_one_bad_batch_does_not_keep_the_others_out(store: Store) -> None:
    taken = parts("old", records.flow_version(), records.flow_run("old"), incarnation=3)
    assert store.apply_many([taken]) == [True]
    outcomes = store.apply_many(
        [
            parts("a", records.flow_version(), records.flow_run("a")),
            parts("nobody", records.task_run(0, flow_run_id="nobody")),
            parts("old", records.flow_run("old"), seq=1),
            parts("b", records.flow_version(), records.flow_run("b")),
            parts("a", records.flow_version(), records.flow_run("a")),
        ]
    )
    assert outcomes[0] is outcomes[3] is True
    assert outcomes[4] is False
    assert isinstance(outcomes[1], errors.BatchError)
    assert isinstance(outcomes[2], errors.FencedError)
    assert {run.id for run in store.flow_runs()} == {"old", "a", "b"}
    assert store.apply_many([]) == []


def test_a_batch_that_no_database_can_hold_is_told_from_a_database_that_is_away(
    store: Store,
) -> None:
    huge = dataclasses.replace(records.flow_run("huge"), parent_node=2**62, pid=2**62)
    (outcome,) = store.apply_many([parts("huge", records.flow_version(), huge)])
    assert outcome is True if store.is_embedded else isinstance(outcome, errors.BatchError)
