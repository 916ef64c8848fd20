"""Why a run of a deployment does not begin, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from raflow.model import (
    Dispatch,
    FlowRun,
    Pool,
    PoolState,
    Stage,
    State,
    StateName,
    WaitSnapshot,
    Work,
    WorkerInfo,
)
from raflow.service import waits

NOW = 1_790_000_000.0
RUN = FlowRun(
    id="r1",
    flow="etl",
    fingerprint="f",
    name="r1",
    state=State(name=StateName.SCHEDULED, at=NOW),
)
PLACE = Dispatch(
    flow_run_id="r1",
    pool="gpu",
    deployment="nightly",
    stage=Stage.WAITING,
    kind=Work.RUN,
    priority=0,
    begins_at=NOW - 5,
    ordered_at=NOW - 5,
)
FREE = WorkerInfo(id="w1", name="box", pool="gpu", host="here", pid=7, runners=2)
BUSY = replace(FREE, busy=2)
POOL = PoolState(pool=Pool(name="gpu"))
FULL = PoolState(pool=Pool(name="gpu", concurrency=3), counts={Stage.CLAIMED: 1, Stage.RUNNING: 2})


def told(place: Mapping[str, Any], seen: Mapping[str, Any]) -> dict[str, str]:
    about: dict[str, Any] = {"pool": POOL, "workers": (FREE,), **seen}
    snapshot = WaitSnapshot(
        at=NOW, flow_run=RUN, dispatch=replace(PLACE, **place), lease=None, **about
    )
    return {wait.code: wait.text for wait in waits(snapshot)}


@pytest.mark.parametrize(
    ("place", "seen", "text"),
    [
        ({}, {"workers": ()}, "pool 'gpu' has no worker"),
        ({}, {"workers": (replace(FREE, draining=True),)}, "pool 'gpu' has no worker"),
        ({}, {"workers": (BUSY,), "ahead": 3}, "busy with 2 runs, as many as they may have, and 3"),
        ({}, {"deployment_paused": True}, "deployment 'nightly' is paused"),
        (
            {},
            {"concurrency": 1, "deployment_under_way": 1},
            "deployment 'nightly' has 1 run under way, and may have 1",
        ),
        ({}, {"pool": FULL}, "pool 'gpu' has 3 runs under way, and may have 3"),
        ({}, {"pool": PoolState(pool=Pool(name="gpu", paused=True))}, "pool 'gpu' is paused"),
        ({"stage": Stage.HELD}, {"schedule_holders": ("r0",)}, "it waits for 1 other run of its"),
        ({"stage": Stage.CLAIMED, "worker_id": "w1"}, {}, "worker box has it, and loads its code"),
        ({"begins_at": NOW + 60}, {"workers": ()}, "it begins at 2026-09-2"),
    ],
)
def test_what_keeps_a_run_from_beginning_is_told(
    place: dict[str, Any], seen: dict[str, Any], text: str
) -> None:
    [only] = told(place, seen).values()
    assert text in only


def test_what_was_given_back_tells_why_and_when_it_is_tried_again() -> None:
    back = {"refusals": 2, "message": "no numpy", "begins_at": NOW + 4}
    found = told(back, {})
    assert found["given_back"] == "it was given back 2 times: no numpy"
    assert found["not_due"].startswith("it is tried again at ")


def test_what_goes_on_waits_for_nothing() -> None:
    assert told({}, {}) == {}
    assert told({"stage": Stage.RUNNING}, {"workers": ()}) == {}
    # To end a run needs no room, and it has begun.
    assert told({"kind": Work.END}, {"pool": FULL, "deployment_paused": True}) == {}
    assert told({"kind": Work.RESUME}, {"deployment_paused": True}) == {}
