"""Cancelling runs of deployments, wherever they stand."""

from __future__ import annotations

import pytest

from raflow import errors
from raflow.model import Stage, StateName, Work
from raflow.store import Store
from tests.store.orders import claim, ordered, record


def test_what_has_not_begun_is_over_and_its_request_answered(store: Store) -> None:
    ordered(store, "r1", "r2")
    [taken] = claim(store, most=1)
    for run in ("r1", "r2"):
        store.work.cancel(run, by="ann", message="wrong day")
        state = store.flow_run(run).state
        assert (state.name, state.message) == (StateName.CANCELLED, "cancelled by ann: wrong day")
        assert [asked.outcome != "" for asked in store.requests.of(run)] == [True]
        assert store.work.dispatch(run) is None
    # Who has just taken it may not begin it any more.
    with pytest.raises(errors.FencedError):
        record(store, taken, StateName.RUNNING)
    with pytest.raises(errors.RunHasEndedError):
        store.work.cancel("r1", by="ann")


def test_what_runs_is_asked_and_what_nobody_drives_is_ended_by_a_worker(store: Store) -> None:
    ordered(store, "r1")
    [taken] = claim(store)
    record(store, taken, StateName.RUNNING)
    store.work.cancel("r1", by="ann")
    place = store.work.dispatch("r1")
    assert place is not None
    assert (place.stage, place.kind) == (Stage.RUNNING, Work.RUN)
    assert [asked.by for asked in store.requests.of("r1", open_only=True)] == ["ann"]


def test_what_is_suspended_is_ended_by_a_worker(store: Store) -> None:
    ordered(store, "r1")
    [taken] = claim(store)
    record(store, taken, StateName.RUNNING)
    record(store, taken, StateName.SUSPENDED, ahead=1)
    store.work.cancel("r1", by="ann")
    [ending] = claim(store, "w2")
    assert (ending.flow_run.id, ending.work) == ("r1", Work.END)
