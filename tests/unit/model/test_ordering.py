"""What a run of a deployment gets, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from raflow import errors, flow
from raflow.model import (
    Deployment,
    DeploymentSpec,
    DeploymentVersion,
    OnCrash,
    order_of,
    read_parameters,
)


@flow
def etl(day: date, regions: list[str], name: str = "x", most: int | None = None) -> None:
    pass


SCHEMA = etl.parameter_schema()
SPEC = DeploymentSpec(
    flow="etl",
    entrypoint="etl.py:etl",
    pool="gpu",
    parameters={"regions": ["eu"], "name": "mine"},
    tags=("a",),
    priority=3,
)
VERSION = DeploymentVersion(
    number=4, spec=SPEC, digest="", bundle="b", fingerprint="f", parameter_schema=SCHEMA
)
NIGHTLY = Deployment(name="nightly", flow="etl", version=4, spec=SPEC)


def refused(**parameters: Any) -> str:
    with pytest.raises(errors.ParameterError) as caught:
        order_of(NIGHTLY, VERSION, parameters)
    return caught.value.message


def test_a_run_gets_what_the_deployment_says_and_what_is_given_wins() -> None:
    order = order_of(NIGHTLY, VERSION, {"day": "2026-01-31", "name": "other"}, tags=("b", "a"))
    assert order.parameters == {"day": "2026-01-31", "regions": ["eu"], "name": "other"}
    assert order.tags == ("a", "b")
    assert (order.origin.version, order.origin.pool, order.origin.priority) == (4, "gpu", 3)
    assert (order.key, order.max_resumes) == (None, 3)
    assert order.name == f"etl-{order.flow_run_id[-6:]}"
    crashes = replace(NIGHTLY, spec=replace(SPEC, on_crash=OnCrash.CRASH))
    assert order_of(crashes, VERSION, {"day": "2026-01-31"}).max_resumes == 0


def test_what_is_to_tell_the_slot_is_to_be_given() -> None:
    marked = replace(SPEC, parameters={"day": "{slot:%Y-%m-%d}", "regions": []})
    with pytest.raises(errors.ParameterError, match="'day' is missing"):
        order_of(NIGHTLY, replace(VERSION, spec=marked), {})


def test_all_that_does_not_fit_is_named() -> None:
    assert "'day' is missing" in refused()
    told = refused(day="2026-01-31", regions=7, nme="y")
    assert "'nme' is none of them (did you mean 'name'?)" in told
    assert "regions=7 does not fit (7 is not of type 'array')" in told
    assert told.endswith("It takes day, regions, name, most.")
    assert "regions[1]=3 does not fit" in refused(day="2026-01-31", regions=["eu", 3])


def test_a_key_is_the_deployments_and_stands_for_what_was_ordered() -> None:
    given = {"day": "2026-01-31"}
    one, same = (order_of(NIGHTLY, VERSION, given, key="k") for _ in range(2))
    other = order_of(NIGHTLY, VERSION, {**given, "name": "y"}, key="k")
    assert one.key == ("deployment:nightly", "k")
    assert one.flow_run_id != same.flow_run_id
    assert one.digest == same.digest != other.digest


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("name", "5", "5"),
        ("name", "[1]", "[1]"),
        ("most", "5", 5),
        ("most", "null", None),
        ("day", "2026-01-31", "2026-01-31"),
        ("regions", '["eu", "us"]', ["eu", "us"]),
        ("regions", "7", 7),
        ("unknown", "7", "7"),
    ],
)
def test_texts_are_read_as_the_parameter_wants_them(name: str, text: str, value: object) -> None:
    assert read_parameters(SCHEMA, {name: text}) == {name: value}
