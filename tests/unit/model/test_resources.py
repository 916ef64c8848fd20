"""What a task asks of the cluster, and whether the cluster has it."""

from __future__ import annotations

from typing import Any

import pytest

from raflow import errors
from raflow.model import Capacity, NodeCapacity, Resources, parse_bytes, shortfall

GIB = 2**30


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GiB", 2 * GIB),
        ("500 MB", 500_000_000),
        ("1.5kb", 1500),
        (" 7 ", 7),
        (1024, 1024),
        (1.5e3, 1500),
        ("3b", 3),
        ("2tib", 2 * 2**40),
    ],
)
def test_sizes(text: str | float, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "2 GiBs", "1,5GB", "two"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(errors.DefinitionError, match="is not a size"):
        parse_bytes(text)


def test_hints_have_one_canonical_form() -> None:
    one = Resources.of(resources={"b": 1, "a": 2}, label_selector={"y": "1", "x": "2"})
    two = Resources.of(resources={"a": 2.0, "b": 1.0}, label_selector={"x": "2", "y": "1"})
    assert one == two
    assert hash(one) == hash(two)
    assert Resources.of() == Resources()
    assert Resources.of(runtime_env={"b": [1], "a": {}}).runtime_env == '{"a": {}, "b": [1]}'
    assert Resources.of(runtime_env={}).runtime_env is None


def test_amounts_have_rays_names() -> None:
    wanted = Resources.of(
        num_cpus=0, num_gpus=0.5, memory="1GiB", resources={"disk": 2}, accelerator_type="T4"
    )
    assert wanted.amounts() == {
        "GPU": 0.5,
        "memory": float(GIB),
        "disk": 2.0,
        "accelerator_type:T4": 0.001,
    }
    assert Resources().amounts() == {"CPU": 1.0}


@pytest.mark.parametrize(
    ("hint", "value"),
    [("num_cpus", -1), ("num_gpus", "1"), ("num_cpus", True), ("resources", {"disk": -0.5})],
)
def test_amounts_that_are_none(hint: str, value: Any) -> None:
    with pytest.raises(errors.DefinitionError, match="is not an amount"):
        Resources.of(**{hint: value})


CLUSTER = Capacity(
    nodes=(
        NodeCapacity(
            name="a",
            amounts={"CPU": 4, "memory": 8.0 * GIB, "disk": 1},
            labels={"zone": "eu", "disk": "ssd"},
        ),
        NodeCapacity(
            name="b",
            amounts={"CPU": 2, "GPU": 1, "memory": 16.0 * GIB, "accelerator_type:T4": 1},
            labels={"zone": "us"},
        ),
    )
)


@pytest.mark.parametrize(
    "hints",
    [
        {},
        {"num_cpus": 4},
        {"num_cpus": 2, "num_gpus": 1, "memory": "16GiB"},
        {"num_gpus": 0.25},
        {"resources": {"disk": 1}},
        {"accelerator_type": "T4"},
        {"label_selector": {"zone": "eu", "disk": "ssd"}},
        {"label_selector": {"zone": "in(eu, us)", "disk": "!ssd"}},
        {"num_cpus": 0},
    ],
    ids=str,
)
def test_what_some_node_has(hints: Any) -> None:
    assert shortfall(Resources.of(**hints), CLUSTER) is None


@pytest.mark.parametrize(
    ("hints", "told"),
    [
        ({"num_cpus": 5}, "num_cpus=5, but the most that one node has is 4"),
        ({"num_gpus": 2}, "num_gpus=2, but the most that one node has is 1"),
        ({"memory": "32GiB"}, "memory=32GiB, but the most that one node has is 16GiB"),
        ({"resources": {"tape": 1}}, "resources={'tape': 1}, but no node has any"),
        ({"resources": {"disk": 3}}, "resources={'disk': 3}, but the most that one node has is 1"),
        ({"accelerator_type": "H100"}, "accelerator_type='H100', which no node has"),
        ({"label_selector": {"zone": "asia"}}, "label_selector={'zone': 'asia'}, which no node"),
        ({"num_cpus": 4, "num_gpus": 1}, "CPU=4, GPU=1 together, but no single node has all of it"),
        (
            {"num_gpus": 1, "label_selector": {"zone": "eu"}},
            "CPU=1, GPU=1 together, but no single node has all of it",
        ),
    ],
    ids=str,
)
def test_what_no_node_has(hints: Any, told: str) -> None:
    assert (shortfall(Resources.of(**hints), CLUSTER) or "").startswith(told)


def test_an_empty_cluster_has_nothing() -> None:
    assert shortfall(Resources(), Capacity(nodes=())) == "num_cpus=1, but no node has any"
    assert (CLUSTER.cpus, Capacity(nodes=()).cpus) == (6, 0)
