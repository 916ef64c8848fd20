"""Whether an environment is one that a deployment was made for."""

from __future__ import annotations

from raflow.model import DeploymentSpec, DeploymentVersion
from raflow.worker._fit import differences

VERSION = DeploymentVersion(
    number=1,
    spec=DeploymentSpec(flow="etl", entrypoint="etl.py:etl"),
    digest="d",
    bundle="b",
    fingerprint="f",
    python="3.11.4",
    packages={"numpy": "2.0", "polars": "1.1"},
)


def test_the_last_part_of_pythons_version_does_not_matter() -> None:
    assert differences(VERSION, "3.11.9", {"numpy": "2.0", "polars": "1.1"}) == []


def test_what_is_different_is_named() -> None:
    assert differences(VERSION, "3.12.1", {"numpy": "2.1", "ray": "2.60"}) == [
        "Python 3.11 (here 3.12)",
        "numpy 2.0 (here 2.1)",
        "polars 1.1 (not here)",
    ]
