"""What is said of values without keeping them."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections import OrderedDict, deque
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped,unused-ignore]
import polars as pl
import pyarrow as pa
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raflow.model import PREVIEW_LIMIT
from raflow.results._describe import describe


class Hostile:
    """Raises wherever it is touched."""

    def __repr__(self) -> str:
        raise RuntimeError("no")

    def __len__(self) -> int:
        raise RuntimeError("no")

    def __bool__(self) -> bool:
        raise RuntimeError("no")

    def __sizeof__(self) -> int:
        raise RuntimeError("no")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("no")


@dataclasses.dataclass
class Point:
    x: int
    data: object
    secret: str = dataclasses.field(default="hidden", repr=False)


class Model(pydantic.BaseModel):
    name: str
    rows: list[int]
    key: str = pydantic.Field(default="hidden", repr=False)


@pytest.mark.parametrize(
    ("value", "preview", "length", "truth"),
    [
        (None, "None", None, False),
        (0, "0", None, False),
        (2.5, "2.5", None, True),
        ("", "''", None, False),
        ("a\nb\x1b[31m", r"'a\nb\x1b[31m'", None, True),
        (b"ab", "b'ab'", None, True),
        ([], "[]", 0, False),
        ([1, "a", None], "[1, 'a', None]", 3, True),
        ((1,), "(1,)", 1, True),
        ({"a": [1, {"b": 2}]}, "{'a': [1, {'b': 2}]}", 1, True),
        (set(), "set()", 0, False),
        (frozenset({1}), "frozenset({1})", 1, True),
        ([[[[[[1]]]]]], "[[[[[[…]]]]]]", 1, True),
        (range(5), "range(0, 5)", 5, None),
        (deque([1]), "deque([1])", 1, None),
        (
            OrderedDict(a=1),
            "OrderedDict([('a', 1)])" if sys.version_info < (3, 12) else None,
            1,
            None,
        ),
    ],
)
def test_plain_values(value: object, preview: str | None, length: int | None, truth: bool) -> None:
    about = describe(value)
    assert (about.length, about.truth) == (length, truth)
    assert preview in {about.preview, None}


def test_type_is_the_qualified_name() -> None:
    assert describe(1).type == "builtins.int"
    assert describe(Point(1, 2)).type == f"{__name__}.Point"


@pytest.mark.parametrize(
    ("value", "preview", "length"),
    [
        (
            pl.DataFrame({"year": [2013, 2014], "name": ["a", "b"]}),
            "2 rows, 2 columns: year Int64, name String",
            2,
        ),
        (pd.DataFrame({"x": [1.5]}), "1 row, 1 column: x float64", 1),
        (pa.table({"x": [1, 2, 3]}), "3 rows, 1 column: x int64", 3),
        (
            pl.DataFrame({f"c{n}": [n] for n in range(10)}),
            "1 row, 10 columns: " + "".join(f"c{n} Int64, " for n in range(8)) + "… 2 more",
            1,
        ),
        (pl.Series("s", [1, 2]), "Series Int64 (2,)", 2),
        (pd.Series([1, 2]), "Series int64 (2,)", 2),
        (np.zeros((3, 4)), "ndarray float64 (3, 4)", 3),
        (np.float64(2.5), "np.float64(2.5)", None),
    ],
)
def test_tables_and_arrays_are_told_by_their_shape(
    value: object, preview: str, length: int | None
) -> None:
    about = describe(value)
    assert (about.preview, about.length, about.truth) == (preview, length, None)


def test_dataclasses_and_models_show_their_fields_but_not_the_hidden_ones() -> None:
    table = pl.DataFrame({"x": [1]})
    assert describe(Point(1, table)).preview == "Point(x=1, data=1 row, 1 column: x Int64)"
    assert describe(Model(name="m", rows=[1])).preview == "Model(name='m', rows=[1])"


def test_values_whose_methods_raise_are_described() -> None:
    about = describe(Hostile())
    assert about.type == f"{__name__}.Hostile"
    assert about.preview == f"<{__name__}.Hostile: its repr raises>"
    assert (about.length, about.truth) == (None, None)


def test_one_bad_item_does_not_hide_the_others() -> None:
    preview = describe([1, Hostile(), 3]).preview
    assert preview == f"[1, <{__name__}.Hostile: its repr raises>, 3]"


def test_what_a_repr_writes_cannot_reach_the_terminal_or_break_the_line() -> None:
    class Loud:
        def __repr__(self) -> str:
            return "red \x1b[31m\nnext\ud800"

    assert describe(Loud()).preview == "red [31m next"


def test_a_list_within_itself_ends() -> None:
    circle: list[object] = []
    circle.append(circle)
    assert describe(circle).preview == "[[[[[[…]]]]]]"


def test_very_long_numbers_are_not_written_out() -> None:
    assert describe(10**10_000).preview == "<int of 33220 bits>"


def test_the_repr_of_a_large_object_is_not_asked_for() -> None:
    class Large:
        def __init__(self) -> None:
            self.rows = ["x" * 1000] * 10_000

        def __repr__(self) -> str:
            raise AssertionError("the repr of a large object was asked for")

    preview = describe(Large()).preview
    assert "Large, about 1" in preview
    assert "raises" not in preview


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        (b"x" * 1000, 1000, 1100),
        (np.zeros(1000), 8000, 8000),
        (np.zeros((1000, 1000))[:, 0], 8000, 8000),
        (pl.DataFrame({"x": range(1000)}), 8000, 8100),
        (pd.DataFrame({"x": range(1000)}), 8000, 8500),
        (pa.table({"x": range(1000)}), 8000, 8500),
        (["x" * 100] * 1000, 100_000, 200_000),
        (dict.fromkeys(range(1000), "x" * 100), 100_000, 250_000),
        ([np.zeros(1000)] * 10, 80_000, 90_000),
        (Point(1, np.zeros(1000)), 8000, 9000),
        (Model(name="x" * 10_000, rows=[]), 10_000, 12_000),
    ],
)
def test_size_is_about_right(value: object, least: int, most: int) -> None:
    assert least <= describe(value).size <= most


def test_a_million_items_are_described_at_once() -> None:
    values: list[object] = [
        list(range(1_000_000)),
        {n: n for n in range(1_000_000)},
        [[n] for n in range(300_000)],
    ]
    begun = time.process_time()
    described = [describe(value) for value in values]
    # The whole repr of these takes a hundred times as long.
    assert time.process_time() - begun < 0.5
    assert all("more" in about.preview or "…" in about.preview for about in described)


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.builds(Point, st.integers(), inner)
    ),
)


@given(_ANYTHING)
def test_every_value_gets_one_short_printable_line(value: object) -> None:
    about = describe(value)
    assert about.preview.isprintable()
    assert len(about.preview) <= PREVIEW_LIMIT
    assert about.size > 0


@given(st.lists(st.integers()) | st.dictionaries(st.text(), st.none()) | st.text() | st.floats())
def test_length_and_truth_are_pythons(value: Any) -> None:
    about = describe(value)
    assert about.truth is bool(value)
    assert about.length == (len(value) if isinstance(value, (list, dict)) else None)
