"""Fingerprints of Arrow's tables and arrays and of those of Polars; neither is imported here.

How the rows are split into chunks, where a chunk begins in its buffers, and what lies under a null
do not count: each column becomes a few streams of bytes that are hashed chunk by chunk.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from typing import Any

from raflow.results._digest import DIGEST_BYTES, Encode, RefusedError, Writer
from raflow.results._print_plain import as_text


def encoder(cls: type) -> Encode | None:
    """Return what writes objects of a class of PyArrow's; None if they have no fingerprint."""
    pa: Any = sys.modules["pyarrow"]
    for base, encode in (
        (pa.Table, _table),
        (pa.RecordBatch, _table),
        (pa.ChunkedArray, _array),
        (pa.Array, _array),
        (pa.Scalar, _scalar),
        (pa.Schema, as_text("pyarrow.Schema", _schema_text)),
        (pa.DataType, as_text("pyarrow.DataType", str)),
    ):
        if issubclass(cls, base):
            return encode
    return None


def polars_encoder(cls: type) -> Encode | None:
    """Return what writes objects of a class of Polars; None if they have no fingerprint."""
    polars: Any = sys.modules["polars"]
    for base, encode in (
        (polars.DataFrame, _polars_frame),
        (polars.Series, _polars_series),
        (polars.LazyFrame, _lazy_frame),
        (polars.DataType, as_text("polars.DataType", repr)),
        (type(polars.DataType), as_text("polars.DataType", repr)),
    ):
        if issubclass(cls, base):
            return encode
    return None


def write_column(writer: Writer, column: Any) -> None:
    """Write an Array or a ChunkedArray without its type."""
    streams = _Streams(writer)
    chunks = getattr(column, "chunks", None)
    for chunk in [column] if chunks is None else chunks:
        streams.feed("", chunk)
    streams.end()


def _table(writer: Writer, value: Any) -> None:
    writer.tag(f"pyarrow.{type(value).__name__}")
    writer.value(_schema_text(value.schema))
    writer.value(value.num_rows)
    for column in value.columns:
        write_column(writer, column)


def _schema_text(schema: Any) -> str:
    return repr([(field.name, str(field.type)) for field in schema])


def _array(writer: Writer, value: Any) -> None:
    writer.tag("pyarrow.Array")
    writer.value(str(value.type))
    write_column(writer, value)


def _scalar(writer: Writer, value: Any) -> None:
    writer.tag("pyarrow.Scalar")
    writer.value(str(value.type))
    writer.value(value.as_py())


def _polars_frame(writer: Writer, value: Any) -> None:
    writer.tag("polars.DataFrame")
    writer.value(value.shape)
    for column in value.get_columns():
        writer.value(column.name)
        try:
            _write_series(writer, column)
        except RefusedError as refused:
            refused.inside(f"[{column.name!r}]")
            raise


def _polars_series(writer: Writer, value: Any) -> None:
    writer.tag("polars.Series")
    writer.value(value.name)
    writer.value(len(value))
    _write_series(writer, value)


def _write_series(writer: Writer, column: Any) -> None:
    polars: Any = sys.modules["polars"]
    writer.value(str(column.dtype))
    if column.dtype == polars.Object:
        writer.items(column.to_list())
        return
    try:
        importlib.import_module("pyarrow.compute")
    except ImportError:
        raise RefusedError(
            "is a column of Polars, which is read by PyArrow. Run `pip install 'raflow[arrow]'`."
        ) from None
    write_column(writer, column.to_arrow())


def _lazy_frame(writer: Writer, _: Any) -> None:
    writer.tag("polars.LazyFrame")
    raise RefusedError("is a query that has not run. Call `.collect()` on it and pass the table.")


class _Streams:
    """The parts of a column: lengths, offsets, values; each is hashed as if it had no chunks."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._pa: Any = sys.modules["pyarrow"]
        self._types: Any = importlib.import_module("pyarrow.types")
        self._compute: Any = importlib.import_module("pyarrow.compute")
        self._hashes: dict[str, Any] = {}
        self._counts: dict[str, int] = {}
        self._rare: dict[str, list[Any]] = {}
        """Values of types whose buffers are not looked at."""

    def feed(self, path: str, array: Any) -> None:
        """Take the next chunk of a column, or of a part of it.

        Args:
            path: Which part it is; empty for the whole.
            array: An Array.
        """
        if not len(array):
            return
        before = self._counts.get(path, 0)
        self._counts[path] = before + len(array)
        array = self._storage(array)
        if self._types.is_null(array.type):
            return
        if array.null_count:
            nulls = self._compute.indices_nonzero(array.is_null())
            self._fixed(path + "?", self._compute.add(nulls.cast("int64"), before))
            array = array.drop_null()
        if len(array):
            self._feed_values(path, array)

    def end(self) -> None:
        """Write what all parts come to."""
        self._writer.value(sorted(self._counts.items()))
        for path in sorted(self._hashes):
            self._writer.value(path)
            self._writer.data(self._hashes[path].digest())
        for path in sorted(self._rare):
            self._writer.value(path)
            self._writer.items(self._rare[path])

    def _storage(self, array: Any) -> Any:
        """Return an array of the kind that others stand for."""
        types = self._types
        while True:
            if isinstance(array, self._pa.ExtensionArray):
                array = array.storage
            elif types.is_dictionary(array.type):
                array = array.dictionary_decode()
            elif types.is_run_end_encoded(array.type):
                array = self._compute.run_end_decode(array)
            elif types.is_string_view(array.type):
                array = array.cast("large_string")
            elif types.is_binary_view(array.type):
                array = array.cast("large_binary")
            else:
                return array

    def _feed_values(self, path: str, array: Any) -> None:
        """Take an array that is not empty and has no nulls."""
        types, kind = self._types, array.type
        if types.is_boolean(kind):
            self._fixed(path, array.cast("uint8"))
        elif types.is_struct(kind):
            for place in range(kind.num_fields):
                self.feed(f"{path}.{place}", array.field(place))
        elif types.is_map(kind):
            self._lengths(path, array.cast(self._pa.list_(kind.field(0).type)))
        elif types.is_list(kind) or types.is_large_list(kind):
            self._lengths(path, array)
        elif types.is_fixed_size_list(kind):
            self.feed(f"{path}[]", array.flatten())
        elif _has_text(types, kind):
            self._text(path, array)
        elif types.is_fixed_size_binary(kind) or types.is_primitive(kind) or _is_wide(types, kind):
            self._fixed(path, array)
        else:  # as Python has them
            self._rare.setdefault(path, []).extend(array.to_pylist())

    def _lengths(self, path: str, array: Any) -> None:
        self._fixed(f"{path}#", self._compute.list_value_length(array).cast("int64"))
        self.feed(f"{path}[]", array.flatten())

    def _text(self, path: str, array: Any) -> None:
        self._fixed(f"{path}#", self._compute.binary_length(array).cast("int64"))
        _, offsets, data = array.buffers()
        large = self._types.is_large_string(array.type) or self._types.is_large_binary(array.type)
        width = 8 if large else 4
        places = memoryview(offsets)[array.offset * width :]
        first = int.from_bytes(places[:width], "little")
        end = int.from_bytes(places[len(array) * width :][:width], "little")
        self._stream(path).update(memoryview(data or b"")[first:end])

    def _fixed(self, path: str, array: Any) -> None:
        """Take an array whose elements all have the same number of bytes."""
        width = array.type.bit_width // 8
        data = memoryview(array.buffers()[1] or b"")  # there may be none, where there are no bytes
        start = array.offset * width
        self._stream(path).update(data[start : start + len(array) * width])

    def _stream(self, path: str) -> Any:
        found = self._hashes.get(path)
        if found is None:
            found = self._hashes[path] = hashlib.blake2b(digest_size=DIGEST_BYTES)
        return found


def _has_text(types: Any, kind: Any) -> bool:
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
    )


def _is_wide(types: Any, kind: Any) -> bool:
    return bool(types.is_decimal(kind) or types.is_interval(kind))
