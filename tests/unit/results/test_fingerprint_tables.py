"""Fingerprints of arrays and tables: content, type and shape count; how they lie in memory not."""

from __future__ import annotations

import datetime as dt
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from raflow import errors
from raflow.results import _print_arrays, fingerprint

SIMPLE = (
    hnp.integer_dtypes(endianness="=")
    | hnp.floating_dtypes(endianness="=", sizes=(16, 32, 64))
    | hnp.boolean_dtypes()
    | hnp.datetime64_dtypes(endianness="=")
    | hnp.unicode_string_dtypes(endianness="=", max_len=3)
)
ARRAYS = hnp.arrays(SIMPLE, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))


@given(ARRAYS)
def test_how_an_array_lies_in_memory_does_not_count(value: Any) -> None:
    expected = fingerprint(value)
    assert fingerprint(np.asfortranarray(value)) == expected or value.ndim == 0
    wide = np.repeat(np.array(value)[..., np.newaxis], 3, axis=-1)
    assert fingerprint(wide[..., 1]) == expected
    assert fingerprint(value.astype(value.dtype.newbyteorder(">"))) == expected
    if value.ndim:
        assert fingerprint(value[::-1][::-1]) == expected


@given(ARRAYS, ARRAYS)
def test_content_type_and_shape_of_an_array_count(one: Any, other: Any) -> None:
    same = one.dtype == other.dtype and one.shape == other.shape
    same = same and one.tobytes() == other.tobytes()
    assert (fingerprint(one) == fingerprint(other)) == same


def test_arrays_of_every_kind_differ() -> None:
    pairs = np.array([(1, 2.0), (3, 4.0)], dtype=[("a", "i1"), ("b", "f8")])
    other = pairs.copy()
    other["b"][1] = 5
    values: list[Any] = [
        *(np.zeros(3), np.zeros((3, 1)), np.zeros((1, 3)), np.zeros(3, "f4"), np.zeros(3, "i8")),
        *([0.0, 0.0, 0.0], np.zeros(0), np.zeros((0, 3)), np.zeros(()), np.float64(0), 0.0),
        *(np.int64(0), np.int32(0), np.bool_(False), np.str_(""), np.datetime64("2026-01-01")),
        *(np.datetime64("2026-01-01", "ns"), np.timedelta64(1, "s"), np.array(["a", "b"])),
        *(np.array(["a", "b"], dtype=object), np.array(["a", "b"], dtype="U5")),
        *(np.array(["a", "b"], dtype=np.dtypes.StringDType()), np.array([[1], [2, 3]], object)),
        *(pairs, other, pairs[0], np.array([[1, 2]], "c8"), pairs.view(np.recarray)),
        *(
            np.ma.masked_array([1, 2], [False, True]),
            np.ma.masked_array([1, 2]),
            np.dtype("f4"),
            np.add,
        ),
        *(np.array([b"a"], "S2"), np.array([b"a"], "V2"), np.zeros(2, [("a", "i4", (2,))])),
    ]
    assert len({fingerprint(value) for value in values}) == len(values)


def test_what_nobody_sees_of_an_array_does_not_count() -> None:
    layout = np.dtype([("a", "i1"), ("b", "f8")], align=True)
    clean = np.zeros(4, layout)
    dirty = np.frombuffer(bytearray(b"\xff" * clean.nbytes), layout)
    dirty["a"], dirty["b"] = 0, 0
    assert dirty.tobytes() != clean.tobytes()
    assert fingerprint(dirty) == fingerprint(clean)
    masked = [np.ma.masked_array([1, hidden], [False, True]) for hidden in (2, 3)]
    assert fingerprint(masked[0]) == fingerprint(masked[1])
    memory = np.arange(3).view(np.memmap)
    assert fingerprint(memory) == fingerprint(np.arange(3))


def test_a_large_array_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    value = np.arange(4_000_000, dtype="f8").reshape(2000, 2000)
    expected = fingerprint(value.T.copy())
    tracemalloc.start()
    try:
        fingerprint(value)
        _, straight = tracemalloc.get_traced_memory()
        monkeypatch.setattr(_print_arrays, "_BLOCK", 1 << 20)
        tracemalloc.reset_peak()
        assert fingerprint(value.T) == expected
        assert fingerprint(value.T[np.newaxis]) != expected
        _, turned = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert straight < 1 << 20
    assert turned < 4 << 20


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (np.array([1, object()], object), r"value\[1\] is of type 'builtins.object'"),
        (np.zeros(2, np.longdouble), r"value has elements of type 'longdouble|float128'"),
        (np.array([(1, object())], [("a", "i1"), ("b", "O")]), r"value\['b'\]\[0\] is of type"),
        (np.random.default_rng(0), "value is of type 'numpy.random._generator.Generator'"),
        (pd.DataFrame({"a": [object()]}), r"value\['a'\]\[0\] is of type 'builtins.object'"),
        (pd.DataFrame({object(): [1]}), r"value.columns\[0\] is of type 'builtins.object'"),
        (pd.offsets.Day(), "value is of type 'pandas"),
        (pl.DataFrame({"a": [object()]}), r"value\['a'\]\[0\] is of type 'builtins.object'"),
        (pl.DataFrame({"a": [1]}).lazy(), "value is a query that has not run. Call `.collect"),
        (pl.col("a"), "value is of type 'polars"),
        (pa.BufferOutputStream(), "value is of type 'pyarrow"),
    ],
)
def test_what_has_no_fingerprint_is_named(value: Any, told: str) -> None:
    with pytest.raises(errors.CacheKeyError, match=told):
        fingerprint(value)


ROWS = st.lists(
    st.tuples(
        st.none() | st.integers(-5, 5),
        st.none() | st.text(max_size=3),
        st.none() | st.lists(st.none() | st.integers(0, 3), max_size=3),
        st.none() | st.fixed_dictionaries({"x": st.none() | st.booleans(), "y": st.text("ab")}),
    ),
    max_size=6,
)
TYPES = (
    ("n", pa.int64()),
    ("s", pa.string()),
    ("l", pa.list_(pa.int32())),
    ("d", pa.struct([("x", pa.bool_()), ("y", pa.large_string())])),
)


def table_of(rows: list[Any]) -> pa.Table:
    columns = [pa.array([row[i] for row in rows], kind) for i, (_, kind) in enumerate(TYPES)]
    return pa.table(columns, names=[name for name, _ in TYPES])


@given(ROWS, st.integers(0, 6), st.integers(0, 6))
def test_chunks_and_offsets_of_a_table_do_not_count(rows: list[Any], cut: int, before: int) -> None:
    table = table_of(rows)
    expected = fingerprint(table)
    pieces = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
    assert fingerprint(pieces) == expected
    shifted = table_of([*rows[:before], *rows]).slice(len(rows[:before]))
    assert fingerprint(shifted) == expected
    assert fingerprint(table.replace_schema_metadata({"by": "me"})) == expected


@given(ROWS, ROWS)
def test_the_content_of_a_table_counts(one: list[Any], other: list[Any]) -> None:
    assert (fingerprint(table_of(one)) == fingerprint(table_of(other))) == (one == other)


def test_arrow_values_of_every_kind_differ() -> None:
    day = dt.date(2026, 1, 1)
    values: list[Any] = [
        *(pa.array([1, None]), pa.array([1, None], pa.int8()), pa.array([None, 1])),
        *(pa.array([0, None]), pa.array([None, None]), pa.array([None]), pa.array([], pa.int64())),
        *(pa.array([True, False]), pa.array([1.0]), pa.array(["a", "b"]), pa.array(["ab", ""])),
        *(
            pa.array([b"a"]),
            pa.array([b""], pa.binary(0)),
            pa.array([b"a"], pa.binary(1)),
            pa.array([day]),
            pa.array(["a", None]),
        ),
        *(pa.array(["a"], pa.large_string()), pa.array(["a"], pa.string_view())),
        pa.array([b"a"], pa.binary_view()),
        *(pa.array([[1], [2]]), pa.array([[1, 2], []]), pa.array([[1, 2], None])),
        *(pa.array([[1, 2]], pa.list_(pa.int64(), 2)), pa.array([[1, 3]], pa.list_(pa.int64(), 2))),
        *(
            pa.array([{"a": 1}]),
            pa.array([{"b": 1}]),
            pa.array([{"a": None}]),
            pa.array([None, {}]),
        ),
        pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
        pa.array([[("a", 2)]], pa.map_(pa.string(), pa.int64())),
        *(pa.array(["a", "b", "a"]).dictionary_encode(), pa.array(["a", "b", "a"])),
        *(pa.array([1, 1, 2], pa.decimal128(5, 2)), pa.array([1, 1, 2], pa.decimal256(5, 2))),
        pa.compute.run_end_encode(pa.array([1, 1, 2])),
        pa.array([dt.timedelta(1)]),
        pa.array([(1, 2, 3)], pa.month_day_nano_interval()),
        pa.UnionArray.from_dense(
            pa.array([0, 1], pa.int8()),
            pa.array([0, 0], pa.int32()),
            [pa.array([1]), pa.array(["a"])],
        ),
        pa.UnionArray.from_dense(
            pa.array([0, 1], pa.int8()),
            pa.array([0, 0], pa.int32()),
            [pa.array([1]), pa.array(["b"])],
        ),
        pa.array([b"0" * 16], pa.uuid()),
        *(pa.table({"a": [1]}), pa.table({"b": [1]}), pa.table({"a": [1], "b": [1]})),
        *(pa.record_batch({"a": [1]}), pa.scalar(1), pa.scalar(1, pa.int8()), pa.int8()),
        *(pa.schema([("a", pa.int8())]), pa.table({}), pa.table({"a": pa.array([], pa.int8())})),
    ]
    told: dict[str, Any] = {}
    for value in values[::-1]:
        found = told.setdefault(fingerprint(value), value)
        same = value.type == found.type if isinstance(value, pa.Array) else found is value
        assert found is value or (same and value.equals(found)), (found, value)


def test_how_arrow_holds_values_does_not_count() -> None:
    words = ["a", "b", "a", None]
    encoded = pa.array(words).dictionary_encode()
    other = pa.DictionaryArray.from_arrays(
        pa.array([1, 2, 1, None], pa.int32()), pa.array(["unused", "a", "b"])
    )
    assert fingerprint(encoded) == fingerprint(other)
    assert fingerprint(pa.chunked_array([words[:1], words[1:]])) == fingerprint(pa.array(words))
    unions = pa.UnionArray.from_sparse(
        pa.array([0, 1, 0], pa.int8()), [pa.array([1, 0, 2]), pa.array(["", "a", ""])]
    )
    pieces = pa.chunked_array([unions.slice(0, 1), unions.slice(1)])
    assert fingerprint(pieces) == fingerprint(unions)
    empty = pa.Array.from_buffers(pa.int64(), 0, [None, None])
    assert fingerprint(empty) == fingerprint(pa.array([], pa.int64()))
    assert fingerprint(empty) == fingerprint(pa.chunked_array([], pa.int64()))
    assert fingerprint(pa.chunked_array([[], [[]], [None]], pa.list_(pa.int8()))) == fingerprint(
        pa.array([[], None], pa.list_(pa.int8()))
    )
    hidden = pa.Array.from_buffers(
        pa.int8(), 2, [pa.py_buffer(b"\x01"), pa.py_buffer(b"\x05\x07")], null_count=1
    )
    assert fingerprint(hidden) == fingerprint(pa.array([5, None], pa.int8()))


FRAMES: tuple[tuple[Callable[..., Any], list[Any]], ...] = (
    (
        pd.Series,
        [
            *([1, 2], [1, 3], [1.0, 2.0], ["a", "b"], ["a", None], [None, "a"], [True, False]),
            *([1, "a"], ["1", "a"], [dt.date(2026, 1, 1)], [], [None]),
        ],
    ),
    (
        pl.Series,
        [
            *([1, 2], [1, 3], [1.0, 2.0], ["a", "b"], ["a", None], [None, "a"], [True, False]),
            *([[1], [2]], [[1, 2], []], [{"a": 1}], [{"a": 2}], [dt.date(2026, 1, 1)], []),
        ],
    ),
)


@pytest.mark.parametrize(("make", "contents"), FRAMES)
def test_columns_of_different_content_differ(make: Any, contents: list[Any]) -> None:
    assert len({fingerprint(make(content)) for content in contents}) == len(contents)
    for content in contents:
        assert fingerprint(make(content)) == fingerprint(make(list(content)))


PANDAS_TYPES = (
    *("int64", "Int64", "Float64", "float32", "object", "string", "category", "int64[pyarrow]"),
    *("datetime64[ns]", "datetime64[ns, UTC]", "datetime64[ns, Europe/Berlin]", "timedelta64[s]"),
    *("double[pyarrow]", "uint8", "complex128"),
)


def test_types_of_pandas_columns_count() -> None:
    frames = [pd.DataFrame({"a": pd.Series([1, 2]).astype(kind)}) for kind in PANDAS_TYPES]
    frames.append(pd.DataFrame({"a": pd.Series(["1", "2"], dtype="string")}))
    frames.append(pd.DataFrame({"a": pd.Series([1, 2]).astype(pd.CategoricalDtype([1, 2], True))}))
    frames.append(pd.DataFrame({"a": pd.period_range("2026-01", periods=2, freq="M")}))
    frames.append(pd.DataFrame({"a": pd.interval_range(0, 2)}))
    frames.append(pd.DataFrame({"a": pd.arrays.SparseArray([1, 2])}))
    assert len({fingerprint(frame) for frame in frames}) == len(frames) - 1
    for frame in frames:
        assert fingerprint(frame.copy()) == fingerprint(frame)
        turned = pd.concat([frame.iloc[:1], frame.iloc[1:]])
        assert fingerprint(turned) == fingerprint(frame)
        assert fingerprint(frame.iloc[::-1]) != fingerprint(frame)


def test_labels_of_pandas_count() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
    others = [
        frame.rename(columns={"b": "c"}),
        frame[["b", "a"]],
        frame.set_index("a"),
        frame.set_index(["a", "b"]),
        frame.set_axis([1, 2]),
        frame.rename_axis("row"),
        frame.rename_axis("column", axis=1),
        frame.iloc[:1],
        frame["a"],
        frame["a"].rename("b"),
        frame.index,
        pd.Index(["a", "b"]),
        pd.MultiIndex.from_product([["a"], ["b"]]),
        pd.DataFrame(index=[0, 1]),
        pd.DataFrame(),
    ]
    assert len({fingerprint(value) for value in [frame, *others]}) == len(others) + 1
    assert fingerprint(frame.set_axis(pd.Index([0, 1]))) == fingerprint(frame)
    noted = frame.copy()
    noted.attrs["by"] = "me"
    assert fingerprint(noted) == fingerprint(frame)


def test_scalars_of_pandas_differ() -> None:
    stamp = pd.Timestamp("2026-01-01T00:00:00.000000001")
    values = [
        *(stamp, stamp.floor("us"), stamp.tz_localize("UTC"), stamp.tz_localize("Europe/Berlin")),
        *(pd.NaT, pd.NA, None, pd.Timedelta(1, "ns"), pd.Timedelta(2, "ns"), dt.timedelta()),
        *(pd.Period("2026-01"), pd.Period("2026-01-01"), pd.Interval(0, 1)),
        *(pd.Interval(0, 1, closed="both"), pd.Int64Dtype(), pd.CategoricalDtype(["a"])),
        *(pd.array([1, None], dtype="Int64"), pd.array([1, 2], dtype="Int64")),
    ]
    assert len({fingerprint(value) for value in values}) == len(values)


def test_missing_values_of_objects_are_not_alike() -> None:
    missing = [None, float("nan"), pd.NA, pd.NaT]
    prints = {fingerprint(pd.Series([value], dtype="object")) for value in missing}
    assert len(prints) == len(missing)


def test_missing_values_of_one_type_are_alike() -> None:
    one = pd.array([1, 2], dtype="Int64")
    one[1] = pd.NA
    assert fingerprint(one) == fingerprint(pd.array([1, None], dtype="Int64"))


def test_chunks_of_polars_do_not_count() -> None:
    frame = pl.DataFrame({"n": [1, None, 3], "s": ["a", None, "ccc"], "l": [[1], None, []]})
    pieces = pl.concat([frame[:1], frame[1:]], rechunk=False)
    assert pieces.n_chunks() == 2
    assert fingerprint(pieces) == fingerprint(frame) == fingerprint(frame.clone())
    assert fingerprint(pl.concat([frame, frame])[3:]) == fingerprint(frame)


def test_types_and_names_of_polars_count() -> None:
    frame = pl.DataFrame({"a": ["1", "2"]})
    values = [
        frame,
        frame.rename({"a": "b"}),
        frame.cast(pl.Categorical),
        frame.cast(pl.Enum(["1", "2"])),
        frame.cast(pl.Enum(["2", "1"])),
        frame.cast(pl.Int64),
        frame.cast(pl.Int64).cast(pl.Datetime("us")),
        frame.cast(pl.Int64).cast(pl.Datetime("us", "UTC")),
        frame.cast(pl.Decimal(5, 2)),
        frame.cast(pl.Binary),
        frame["a"],
        frame["a"].rename("b"),
        frame.with_columns(b=1),
        frame.with_columns(a=pl.Series(["1", "2"], dtype=pl.Object)),
        frame.clear(),
        frame.select(a=pl.col("a").implode()),
        frame.select(a=pl.col("a").reshape((1, 2))),
        pl.DataFrame(),
        pl.Int64,
        pl.Int64(),
        pl.Datetime("us"),
    ]
    prints = [fingerprint(value) for value in values]
    assert len(set(prints)) == len(values) - 1
    assert fingerprint(pl.Int64) == fingerprint(pl.Int64())


def test_columns_of_polars_are_read_by_arrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.compute", None)
    with pytest.raises(errors.CacheKeyError, match=r"pip install 'raflow\[arrow\]'"):
        fingerprint(pl.DataFrame({"a": [1]}))
