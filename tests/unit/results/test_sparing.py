"""Fingerprints of the inputs of calls: cheap, the same everywhere, and never an error."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from raflow.define import Hole
from raflow.results import inputs_fingerprint


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


@dataclasses.dataclass
class Place:
    x: int
    y: int = 0


class Odd:
    @property
    def nbytes(self) -> int:
        raise OSError("not now")


def test_it_is_the_same_on_every_machine() -> None:
    assert inputs_fingerprint({"x": 5, "name": "a"}) == 387556041873003074
    assert (
        inputs_fingerprint({"x": [1, 2.5, None, "ä"], "when": datetime.date(2026, 1, 2)})
        == 148848460217548261
    )
    assert inputs_fingerprint({"x": Point(1), "n": {3: 4}}) == 2301958436418393162


DIFFERENT: list[dict[str, object]] = [
    {"x": 1},
    {"x": 1.0},
    {"x": True},
    {"x": "1"},
    {"y": 1},
    {"x": 1, "y": 1},
    {"x": None},
    {"x": float("nan")},
    {"x": float("inf")},
    {"x": [None]},
    {"x": [float("nan")]},
    {"x": Point(1)},
    {"x": Point(1, 1)},
    {"x": Place(1)},
    {"x": {"x": 1}},
    {"x": {1: 1}},
    {"x": {1, 2}},
    {"x": b"1"},
    {"x": Hole(0)},
    {"x": Hole(1)},
    {"x": 1 << 80},
    {"x": Path("1")},
    {"x": datetime.date(2026, 1, 1)},
    {"x": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)},
    {"x": "2026-01-01"},
    {"x": range(3)},
    {"x": np.arange(3)},
    {"x": np.arange(3.0)},
    {"x": "long" * 1000},
    {"x": "long" * 1001},
]


def test_what_differs_has_another_one() -> None:
    found = [inputs_fingerprint(arguments) for arguments in DIFFERENT]
    assert None not in found
    assert len(set(found)) == len(DIFFERENT)
    assert found == [inputs_fingerprint(arguments) for arguments in DIFFERENT]


def test_the_order_of_dicts_and_sets_does_not_count() -> None:
    one = {"x": {"a": 1, "b": {"é", "b"}}}
    other = {"x": {"b": {"b", "é"}, "a": 1}}
    assert inputs_fingerprint(one) == inputs_fingerprint(other) is not None


def test_a_path_stands_for_itself(tmp_path: Path) -> None:
    file = tmp_path / "file"
    before = inputs_fingerprint({"x": {1: file}})
    file.write_text("content")
    assert inputs_fingerprint({"x": {1: file}}) == before is not None


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(lambda: 1, id="a lambda"),
        pytest.param([Point], id="a class"),
        pytest.param(functools.partial(print, 1), id="a partial"),
        pytest.param(io.StringIO(), id="a file"),
        pytest.param(object(), id="an object"),
        pytest.param(np.zeros(1 << 18), id="a big array"),
        pytest.param(b"b" * (2 << 20), id="many bytes"),
        pytest.param([Point(1)] * 10_000, id="many objects"),
        pytest.param(Odd(), id="an object that raises"),
    ],
)
def test_of_what_is_large_or_strange_none_is_made(value: object) -> None:
    assert inputs_fingerprint({"x": 1, "y": value}) is None


def test_which_future_is_which_counts() -> None:
    arguments = {"x": [Hole(0), Hole(1)]}
    assert inputs_fingerprint(arguments, [0, 1]) != inputs_fingerprint(arguments, [1, 0])


def items(column: list[object], size: int) -> Callable[[], int | None]:
    pieces = ({"x": column[n : n + size]} for n in range(0, len(column), size))
    return lambda: inputs_fingerprint({"shared": 1}, (), pieces)


def test_of_maps_every_item_counts() -> None:
    column: list[object] = list(range(100))
    known = items(column, 10)()
    assert known == items(column, 10)() is not None
    assert known != items([*column[:99], 0], 10)()
    assert known != items([*column, 100], 10)()
    assert items([*column, lambda: 1], 10)() is None
