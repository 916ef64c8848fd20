"""What can be said of a value without keeping it: type, size, length, truth, and a short preview.

This runs in the worker for every task, on values of any class. It is quick for small values, looks
at a bounded part of large ones, and outlives classes whose methods raise.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from raflow.model import PREVIEW_LIMIT
from raflow.results import _tables

_PLAIN: Final = frozenset({bool, int, float, str, bytes})
_CONTAINERS: Final = frozenset({list, tuple, dict, set, frozenset})
_BRACKETS: Final[dict[type, tuple[str, str]]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
    dict: ("{", "}"),
}
_DEPTH: Final = 5
_SAMPLE: Final = 32
_VISITS: Final = 500
_REPR_BELOW: Final = 1 << 20
_LONG_INT_BITS: Final = 1000


class Description(NamedTuple):
    """See the fields of the same names in `raflow.model.ResultInfo`."""

    type: str
    size: int
    preview: str
    length: int | None
    truth: bool | None
    solid: bool
    """Whether `size` is about what serializing gives: texts, bytes, arrays and tables."""


def describe(value: object) -> Description:
    """Describe a value of any class; never raises an `Exception`."""
    cls = type(value)
    name = type_name(cls)
    if value is None or cls in _PLAIN:
        solid = cls is str or cls is bytes
        size = sys.getsizeof(value)
        return Description(name, size, preview(value, size), None, bool(value), solid)
    if cls in _CONTAINERS:
        size = _size(value)
        length = len(value)  # type: ignore[arg-type]  # one of _CONTAINERS
        return Description(name, size, preview(value, size), length, length > 0, False)
    buffer = _guarded(_tables.buffer_size, value)
    size = buffer if buffer is not None else _size(value)
    length = _guarded(_length, value)
    return Description(name, size, preview(value, size), length, None, buffer is not None)


def type_name(cls: type) -> str:
    """Return the qualified name of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def preview(value: object, size: int) -> str:
    """Return a short text on one line.

    Args:
        value: Of any class.
        size: Its estimated bytes: a `__repr__` of a user's class is asked of small values only.
    """
    text = _render(value, PREVIEW_LIMIT, _DEPTH, size)
    if not text.isprintable():
        # Line ends would break tables, and escape sequences would reach terminals.
        text = "".join(c if c.isprintable() else " " for c in text)
        text = " ".join(text.split())
    return text if len(text) <= PREVIEW_LIMIT else text[: PREVIEW_LIMIT - 1] + "…"


def _render(value: Any, room: int, depth: int, size: int) -> str:
    cls = type(value)
    if cls is str or cls is bytes:
        return repr(value) if len(value) <= room else repr(value[:room]) + "…"
    if cls is int and value.bit_length() > _LONG_INT_BITS:
        return f"<int of {value.bit_length()} bits>"
    if cls in _CONTAINERS:
        return _render_container(value, room, depth)
    if value is None or cls in _PLAIN:
        return repr(value)
    try:
        return _render_object(value, room, depth, size)
    except Exception:  # a user's __repr__ may raise anything
        return f"<{type_name(cls)}: its repr raises>"


def _render_container(value: Any, room: int, depth: int) -> str:
    opening, closing = _BRACKETS[type(value)]
    if not value:
        return repr(value)
    if depth == 0:
        return f"{opening}…{closing}"
    pairs = value.items() if type(value) is dict else ((None, item) for item in value)
    parts = _render_items(pairs, type(value) is dict, room, depth - 1)
    left = len(value) - len(parts)
    if left:
        parts.append(f"… {left:,} more")
    comma = "," if type(value) is tuple and len(value) == 1 else ""
    return f"{opening}{', '.join(parts)}{comma}{closing}"


def _render_items(
    pairs: Iterable[tuple[Any, Any]], keyed: bool, room: int, depth: int
) -> list[str]:
    parts: list[str] = []
    for key, item in pairs:
        if room <= 0:
            break
        before = f"{_render(key, room, depth, 0)}: " if keyed else ""
        parts.append(before + _render(item, room - len(before), depth, _own_size(item)))
        room -= len(parts[-1]) + 2
    return parts


def _render_object(value: Any, room: int, depth: int, size: int) -> str:
    cls = type(value)
    library = _tables.library_of(value)
    if library is not None:
        return _tables.preview_table(value, library)
    if _tables.is_array(value) and _tables.shape_of(value):
        return _tables.preview_array(value)
    fields = _fields(value)
    if fields is not None and depth > 0:
        shown = [
            f"{name}={_render(item, room, depth - 1, _own_size(item))}"
            for name, item in islice(fields.items(), 16)
        ]
        return f"{cls.__qualname__}({', '.join(shown)})"
    # Writing a large value as text only to cut it costs as much as serializing it.
    return repr(value) if size < _REPR_BELOW else f"<{type_name(cls)}, about {size:,} bytes>"


def _fields(value: Any) -> Mapping[str, Any] | None:
    """Return the fields of a dataclass or pydantic model that kept its generated `__repr__`."""
    cls = type(value)
    if dataclasses.is_dataclass(cls) and _is_generated(cls.__repr__):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.repr}
    if getattr(cls.__repr__, "__module__", "") == "pydantic.main":
        hidden = {name for name, field in cls.model_fields.items() if not field.repr}
        return {name: v for name, v in vars(value).items() if name not in hidden}
    return None


def _is_generated(function: Any) -> bool:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and code.co_filename == "<string>"


def _length(value: Any) -> int | None:
    if _tables.library_of(value) is not None or _tables.is_array(value):
        shape = _tables.shape_of(value)
        return shape[0] if shape else None
    if isinstance(value, (list, tuple, dict, Sequence)) and not isinstance(value, (str, bytes)):
        return len(value)
    return None


def _own_size(value: object) -> int:
    return _guarded(sys.getsizeof, value) or 0


def _guarded(look: Any, value: object) -> Any:
    try:
        return look(value)
    except Exception:  # a property or method of a user's class may raise anything
        return None


class _Estimate:
    """Walks a value up to a number of visits; a large container is judged by a sample."""

    def __init__(self) -> None:
        self.left = _VISITS

    def of(self, value: Any, depth: int) -> int:
        self.left -= 1
        own = _own_size(value)
        if depth == 0 or self.left <= 0:
            return own
        inside = _inside(value)
        if inside is None:
            buffer = _guarded(_tables.buffer_size, value) if type(value) not in _PLAIN else None
            return own if buffer is None else int(buffer)
        sample, count = inside
        sizes = [self.of(item, depth - 1) for item in sample if self.left > 0]
        return int(own + sum(sizes) * count / max(1, len(sizes)))


def _inside(value: Any) -> tuple[Sequence[Any], int] | None:
    """Return a sample of what a value is made of, and how many such parts there are."""
    if isinstance(value, (list, tuple)):
        step = max(1, len(value) // _SAMPLE)
        return [value[n] for n in range(0, len(value), step)], len(value)
    if isinstance(value, dict):
        pairs = list(islice(value.items(), _SAMPLE))
        return [part for pair in pairs for part in pair], 2 * len(value)
    if isinstance(value, (set, frozenset)):
        return list(islice(value, _SAMPLE)), len(value)
    if type(value) in _PLAIN or _tables.library_of(value) or _tables.is_array(value):
        return None
    attributes = _guarded(vars, value) or _guarded(_fields, value)
    if not attributes:
        return None
    return list(islice(attributes.values(), _SAMPLE)), len(attributes)


def _size(value: object) -> int:
    try:
        return _Estimate().of(value, _DEPTH)
    except Exception:  # a container class of the user's may raise anything
        return 0
