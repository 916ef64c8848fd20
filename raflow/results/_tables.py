"""Tables and arrays of other libraries, recognised without importing any of them."""

from __future__ import annotations

import inspect
import sys
from typing import Any, Final, Literal, TypeAlias

Library: TypeAlias = Literal["polars", "pandas", "pyarrow"]
"""A library whose tables Arrow can carry."""

_TABLES: Final[tuple[tuple[Library, str], ...]] = (
    ("polars", "DataFrame"),
    ("pandas", "DataFrame"),
    ("pyarrow", "Table"),
)
_COLUMNS_SHOWN: Final = 8


def library_of(value: object) -> Library | None:
    """Return the library that `value` is a table of; None if it is no table."""
    for library, name in _TABLES:
        # A value of a library can only exist if the library is loaded.
        cls = getattr(sys.modules.get(library), name, None)
        if cls is not None and issubclass(type(value), cls):
            return library
    return None


def is_array(value: object) -> bool:
    """Whether `value` has a shape and an element type: arrays, tensors and series."""
    return _declares(value, "shape") and _declares(value, "dtype")


def shape_of(value: Any) -> tuple[int, ...]:
    """Return the shape of a table or an array."""
    return tuple(int(n) for n in value.shape)


def preview_table(value: Any, library: Library) -> str:
    """Return the number of rows, and the columns with their types."""
    rows, width = shape_of(value)
    columns = [f"{name} {dtype}" for name, dtype in _columns(value, library)]
    if width > len(columns):
        columns.append(f"… {width - len(columns)} more")
    listed = f": {', '.join(columns)}" if columns else ""
    return f"{_count(rows, 'row')}, {_count(width, 'column')}{listed}"


def preview_array(value: Any) -> str:
    """Return the kind, the element type and the shape."""
    return f"{type(value).__name__} {value.dtype} {shape_of(value)}"


def buffer_size(value: Any) -> int | None:
    """Return the bytes that a table or array holds, as its library counts them; None if unknown."""
    library = library_of(value)
    if library == "polars":
        return int(value.estimated_size())
    if library == "pandas":
        return int(value.memory_usage(index=True).sum())
    if _declares(value, "nbytes"):
        size = value.nbytes
        return size if isinstance(size, int) else None
    return None


def _columns(value: Any, library: Library) -> list[tuple[str, str]]:
    if library == "polars":
        pairs = list(value.schema.items())
    elif library == "pandas":
        pairs = list(zip(value.columns, value.dtypes, strict=True))
    else:
        pairs = [(field.name, field.type) for field in value.schema]
    return [(str(name), str(dtype)) for name, dtype in pairs[:_COLUMNS_SHOWN]]


def _declares(value: object, name: str) -> bool:
    # getattr would run a user's __getattr__, which may do anything.
    return inspect.getattr_static(type(value), name, None) is not None


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"
