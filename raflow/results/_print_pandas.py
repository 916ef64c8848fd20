"""Fingerprints of the tables, columns and scalars of pandas, which is never imported here."""

from __future__ import annotations

import sys
from typing import Any

from raflow.results import _print_arrays, _print_arrow
from raflow.results._digest import Encode, RefusedError, Writer
from raflow.results._print_plain import as_parts, as_text, write_class


def encoder(cls: type) -> Encode | None:
    """Return what writes objects of a class of pandas; None if they have no fingerprint."""
    pandas: Any = sys.modules["pandas"]
    for base, encode in (
        (pandas.DataFrame, _frame),
        (pandas.Series, _series),
        (pandas.Index, _index),
        (pandas.Timestamp, _timestamp),
        (pandas.Timedelta, _timedelta),
        (pandas.Period, as_parts("pandas.Period", "ordinal", "freqstr")),
        (pandas.Interval, as_parts("pandas.Interval", "left", "right", "closed")),
        (pandas.api.extensions.ExtensionArray, _array),
        (pandas.api.extensions.ExtensionDtype, as_text("pandas.dtype", str)),
        (type(pandas.NaT), as_text("pandas.NaT", str)),
        (type(pandas.NA), as_text("pandas.NA", str)),
    ):
        if issubclass(cls, base):
            return encode
    return None


def _frame(writer: Writer, value: Any) -> None:
    writer.tag("pandas.DataFrame")
    write_class(writer, type(value))
    writer.value(value.shape)
    writer.part(".columns", value.columns)
    writer.part(".index", value.index)
    for place, name in enumerate(value.columns):
        try:
            _write_column(writer, value.iloc[:, place].array)
        except RefusedError as refused:
            refused.inside(f"[{name!r}]"[:60])
            raise


def _series(writer: Writer, value: Any) -> None:
    writer.tag("pandas.Series")
    write_class(writer, type(value))
    writer.part(".name", value.name)
    writer.part(".index", value.index)
    _write_column(writer, value.array)


def _index(writer: Writer, value: Any) -> None:
    # A RangeIndex is equal to the Index of the same numbers.
    writer.tag("pandas.Index")
    writer.part(".names", list(value.names))
    for level in range(value.nlevels):
        _write_column(writer, value.get_level_values(level).array)


def _array(writer: Writer, value: Any) -> None:
    writer.tag("pandas.array")
    _write_column(writer, value)


def _timestamp(writer: Writer, value: Any) -> None:
    writer.tag("pandas.Timestamp")
    writer.value((value.isoformat(), value.fold, value.unit, str(value.tz)))


def _timedelta(writer: Writer, value: Any) -> None:
    writer.tag("pandas.Timedelta")
    writer.value((value.isoformat(), value.unit))


def _write_column(writer: Writer, column: Any) -> None:
    """Write an array of any type of pandas."""
    numpy: Any = sys.modules["numpy"]
    pandas: Any = sys.modules["pandas"]
    dtype = column.dtype
    writer.value(len(column))
    writer.value(str(dtype))
    plain = isinstance(column, pandas.arrays.NumpyExtensionArray)
    if plain or isinstance(dtype, numpy.dtype):
        _print_arrays.write_elements(writer, column.to_numpy())
    elif hasattr(dtype, "categories"):
        writer.value(bool(dtype.ordered))
        writer.part(".categories", dtype.categories)
        _print_arrays.write_elements(writer, column.codes)
    elif hasattr(dtype, "pyarrow_dtype"):
        _print_arrow.write_column(writer, column.__arrow_array__())
    elif hasattr(dtype, "numpy_dtype"):  # has a mask
        missing = column.isna()
        _print_arrays.write_elements(writer, missing)
        values = column.to_numpy(dtype=dtype.numpy_dtype, na_value=dtype.numpy_dtype.type(0))
        _print_arrays.write_elements(writer, values)
    elif hasattr(dtype, "tz"):
        _print_arrays.write_elements(writer, column.to_numpy(dtype=f"M8[{dtype.unit}]"))
    else:
        writer.items(column.to_numpy(dtype=object).tolist())
