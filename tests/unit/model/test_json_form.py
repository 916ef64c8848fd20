"""What runs and the service say to each other arrives as it was said."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raflow import model
from raflow.model import wire
from tests.store import records

KINDS = st.one_of(
    st.tuples(st.just(model.FlowRun), records.flow_runs),
    st.tuples(st.just(model.TaskRun), records.task_runs),
    st.tuples(st.just(model.StateChange), records.state_changes),
)


@settings(max_examples=80, deadline=None)
@given(KINDS)
def test_records_arrive(told: tuple[type[Any], Any]) -> None:
    kind, value = told
    assert wire.load_json(kind, wire.dump_json(value)) == value


def test_what_json_cannot_hold_is_written_out() -> None:
    run = records.flow_run()
    run = dataclasses.replace(run, name="\udc80", parameters={"huge": 2**80, "\ud800": [b"\xff"]})
    found = wire.load_json(model.FlowRun, wire.dump_json(run))
    assert found.name == "\\udc80"
    assert found.parameters == {"huge": 2**80, "\\ud800": ["/w=="]}


def test_a_run_of_a_deployment_arrives() -> None:
    origin = model.RunOrigin(deployment="nightly", version=2, bundle="b", pool="default")
    run = dataclasses.replace(records.flow_run(), origin=origin)
    assert wire.load_json(model.FlowRun, wire.dump_json(run)) == run


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b'{"incarnation": 1e30, "seconds": 1}',
        b'{"incarnation": 9223372036854775808, "seconds": 1}',
        b'{"incarnation": 1, "seconds": 1, "more": 1}',
        b'{"incarnation": 1, "seconds": NaN}',
        b'{"incarnation": 1}',
        b'{"incarnation": "1; DROP", "seconds": 1}',
        b"[" * 100_000,
    ],
)
def test_what_a_stranger_says_is_looked_at_closely(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        wire.load_json(wire.LeaseRenewal, data, strict=True)


def test_a_newer_service_may_say_more() -> None:
    found = wire.load_json(wire.BatchTaken, b'{"applied": true, "more": 1}')
    assert found.applied
