"""Values as bytes: JSON where that is exact, Arrow for tables, signed pickle otherwise."""

from __future__ import annotations

import hashlib
import hmac
import importlib
import io
import math
import pickle
from collections.abc import Callable
from typing import Any, Final

import cloudpickle
import orjson

from raflow import errors
from raflow.model import Serializer
from raflow.results import _tables
from raflow.results._describe import type_name

SIGNATURE_BYTES: Final = 32
_SIGNED: Final = b"raflow.result.v1\0"
_JSON_DEPTH: Final = 200
_JSON_SCALARS: Final = frozenset({str, bool, type(None)})
_LIBRARY: Final = b"raflow.library"
_UNSAFE_COLUMN: Final = "object"


class TooLargeError(Exception):
    """The serialized value would be longer than was asked for."""


def serializers_for(value: object) -> tuple[Serializer, ...]:
    """Return what `auto` stands for, by the kind of the value: the first that works is taken."""
    if is_json(value):
        return (Serializer.JSON, Serializer.PICKLE)
    library = _tables.library_of(value)
    if library is not None and _fits_arrow(value, library) and _arrow_installed():
        return (Serializer.ARROW, Serializer.PICKLE)
    return (Serializer.PICKLE,)


def dump(value: object, serializer: Serializer, *, key: bytes, limit: int | None = None) -> bytes:
    """Serialize a value.

    Args:
        value: Of any class.
        serializer: JSON, ARROW or PICKLE.
        key: Signs pickles.
        limit: Give up as soon as the bytes are sure to be more than this. None: no limit.

    Raises:
        SerializationError: The serializer cannot write such a value.
        TooLargeError: There would be more bytes than `limit`.
    """
    if serializer is Serializer.JSON:
        data = _dump_json(value)
    elif serializer is Serializer.ARROW:
        data = _dump_arrow(value)
    else:
        data = _dump_pickle(value, key, limit)
    if limit is not None and len(data) > limit:
        raise TooLargeError
    return data


def load(data: bytes, serializer: str, *, key: bytes, what: str) -> object:
    """Return the value that `dump` wrote.

    Args:
        data: What `dump` returned.
        serializer: Its name.
        key: The key it was signed with; checked before anything is unpickled.
        what: Names the value in errors.

    Raises:
        SerializationError: The bytes cannot be read, or a pickle carries no valid signature.
    """
    loaders: dict[str, Callable[[bytes], object]] = {
        Serializer.JSON.value: orjson.loads,
        Serializer.ARROW.value: _load_arrow,
        Serializer.PICKLE.value: lambda signed: pickle.loads(_verified(signed, key, what)),  # noqa: S301 - signed
    }
    if serializer not in loaders:
        raise errors.SerializationError(
            f"{what} was written by the serializer {serializer!r}, which this version of raflow "
            f"does not know; it knows {', '.join(loaders)}. Read it with the version that wrote it."
        )
    try:
        return loaders[serializer](data)
    except errors.RaflowError:
        raise
    except Exception as error:  # unpickling runs code of the value's class
        raise errors.SerializationError(
            f"{what} cannot be read back: {type(error).__name__}: {error}. Its class must be "
            "importable here, in the same version as where it was written."
        ) from error


def is_json(value: object) -> bool:
    """Whether JSON gives back exactly this value: no tuples, no subclasses, no NaN."""
    try:
        return _is_exact(value, _JSON_DEPTH)
    except RuntimeError:  # another thread changes the value
        return False


def _is_exact(value: Any, depth: int) -> bool:
    cls = type(value)
    if cls in _JSON_SCALARS:
        return True
    if cls is int:
        return bool(-(2**63) <= value < 2**64)
    if cls is float:
        return math.isfinite(value)
    if depth == 0:
        return False
    if cls is list:
        return all(_is_exact(item, depth - 1) for item in value)
    if cls is dict:
        return all(type(k) is str and _is_exact(v, depth - 1) for k, v in value.items())
    return False


def _dump_json(value: object) -> bytes:
    try:
        if is_json(value):
            return orjson.dumps(value)
        why = "JSON would not give it back as it is"
    except TypeError as error:  # half of a surrogate pair
        why = str(error)
    raise errors.SerializationError(
        f"serializer='json' cannot write a value of type {type_name(type(value))!r}: {why}. JSON "
        "holds dicts with text keys, lists, texts, finite numbers of at most 64 bits, booleans "
        "and None. Return those, or use serializer='auto'."
    )


def _dump_arrow(value: Any) -> bytes:
    library = _tables.library_of(value)
    name = type_name(type(value))
    if library is None:
        raise errors.SerializationError(
            f"serializer='arrow' cannot write a value of type {name!r}, which is no table. Return "
            "a table of polars, pandas or pyarrow, or use serializer='auto'."
        )
    pa = _pyarrow()
    try:
        table = _to_arrow(value, library)
        marked = table.replace_schema_metadata(
            {**(table.schema.metadata or {}), _LIBRARY: library.encode()}
        )
        sink = pa.BufferOutputStream()
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_stream(sink, marked.schema, options=options) as writer:
            writer.write_table(marked)
        return bytes(sink.getvalue())
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise errors.SerializationError(
            f"serializer='arrow' cannot write this {name!r}: {error}. Give each column values of "
            "one type, or use serializer='auto'."
        ) from error


def _load_arrow(data: bytes) -> object:
    pa = _pyarrow()
    table = pa.ipc.open_stream(data).read_all()
    metadata = dict(table.schema.metadata or {})
    library = metadata.pop(_LIBRARY, b"pyarrow").decode()
    table = table.replace_schema_metadata(metadata or None)
    if library == "polars":
        return importlib.import_module("polars").from_arrow(table)
    return table.to_pandas() if library == "pandas" else table


def _to_arrow(value: Any, library: _tables.Library) -> Any:
    if library == "polars":
        return value.to_arrow()
    return _pyarrow().Table.from_pandas(value) if library == "pandas" else value


def _fits_arrow(value: Any, library: _tables.Library) -> bool:
    """Whether Arrow gives back exactly this table, as far as its declared types tell."""
    module, _, _ = type(value).__module__.partition(".")
    if module != library:
        return False
    if library == "polars":
        return not any(str(dtype).lower() == _UNSAFE_COLUMN for dtype in value.dtypes)
    if library == "pandas":
        plain = value.columns.nlevels == value.index.nlevels == 1 and not value.attrs
        named = all(type(name) is str for name in value.columns) and value.columns.name is None
        return (
            plain
            and named
            and value.index.dtype != _UNSAFE_COLUMN
            and not any(dtype == _UNSAFE_COLUMN for dtype in value.dtypes)
        )
    return True


def _dump_pickle(value: object, key: bytes, limit: int | None) -> bytes:
    sink = _Bounded(limit)
    try:
        cloudpickle.dump(value, sink)
    except TooLargeError:
        raise
    except Exception as error:  # pickling runs code of the value's class
        raise errors.UnserializableResultError(
            f"A value of type {type_name(type(value))!r} cannot be pickled: {error}. Return plain "
            "data instead, or set persist_result=False so that it is not kept."
        ) from error
    data = sink.getvalue()
    return _sign(data, key) + data


def _verified(signed: bytes, key: bytes, what: str) -> bytes:
    signature, data = signed[:SIGNATURE_BYTES], signed[SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _sign(data, key)):
        raise errors.SerializationError(
            f"{what} is a pickle without a valid signature, and was not opened: a pickle can run "
            "any code. Use the key that it was written with (`keys/results.key` in RAFLOW_HOME), "
            "or run the task again."
        )
    return data


def _sign(data: bytes, key: bytes) -> bytes:
    return hmac.digest(key, _SIGNED + data, hashlib.sha256().name)


class _Bounded(io.BytesIO):
    """Takes bytes up to a limit, so that a large value is not pickled to its end in vain."""

    def __init__(self, limit: int | None) -> None:
        super().__init__()
        self.limit = limit

    def write(self, data: Any) -> int:
        written = super().write(data)
        if self.limit is not None and self.tell() > self.limit:
            raise TooLargeError
        return written


def _arrow_installed() -> bool:
    try:
        _pyarrow()
    except errors.SerializationError:
        return False
    return True


def _pyarrow() -> Any:
    try:
        importlib.import_module("pyarrow.ipc")
        return importlib.import_module("pyarrow")
    except ImportError as error:
        raise errors.SerializationError(
            "Tables are written by pyarrow, which is not installed. Run `pip install "
            "'raflow[arrow]'`, or use serializer='pickle'."
        ) from error
